// Grouped LoRA experts: each kernel against a masked product in plain f64 loops, for sizes with whole and
// partial tiles, experts with no or all rows, several experts per row; and the order of rows.
#include "autograd/ops.h"
#include "tests/support/kernel_testing.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

struct Sizes {
  int64_t N, C, O, E, K, R, used;  // rows choose among the first `used` experts
};
const Sizes kSizes[] = {
    {1, 1, 1, 1, 1, 1, 1},       {0, 5, 3, 2, 1, 2, 2},       {7, 33, 5, 3, 1, 2, 3},
    {23, 64, 130, 4, 2, 8, 4},   {40, 129, 64, 8, 1, 3, 2},   {31, 48, 17, 5, 5, 4, 5},
    {300, 96, 200, 6, 1, 16, 1}, {120, 257, 96, 16, 3, 7, 9}, {200, 128, 128, 64, 2, 5, 60},
    {37, 48, 30, 4, 2, 70, 3},   {3, 33, 20, 4, 1, 64, 4},    {0, 8, 8, 2, 1, 64, 2}};  // blocks of an FFN

// Chooses K of the first `used` experts for each row.
Tensor random_choice(const Sizes& s, DType dtype) {
  Tensor chosen = Tensor::zeros({s.N, s.E}, DType::f64);
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t k = 0; k < s.K;) {
      double& at =
          chosen
              .data<double>()[n * s.E + static_cast<int64_t>(source().below(static_cast<uint32_t>(s.used)))];
      k += at == 0;
      at = 1;
    }
  }
  return chosen.to(dtype);
}

// Groups, and the same assignment as a list of (row, expert) pairs in grouped order, derived from `chosen`.
struct Places {
  std::vector<int64_t> row, expert;
  explicit Places(const Tensor& chosen) {
    const Values v = values_of(chosen);
    const int64_t N = chosen.dim(0), E = chosen.dim(1);
    for (int64_t e = 0; e < E; ++e) {
      for (int64_t n = 0; n < N; ++n) {
        if (v[static_cast<size_t>(n * E + e)] == 0) continue;
        row.push_back(n);
        expert.push_back(e);
      }
    }
  }
  // calls f(j, n, e) for every pair j of row n and expert e
  template <class F>
  void each(F f) const {
    for (size_t j = 0; j < row.size(); ++j) f(static_cast<int64_t>(j), row[j], expert[j]);
  }
};

// Calls f(size, chosen, groups, outputs) at each size.
template <class T, class F>
void at_each_size(F f) {
  for (const Sizes& s : kSizes) {
    CAPTURE(s.N);
    CAPTURE(s.E);
    Outputs outputs;
    const Tensor chosen = random_choice(s, DTypeOf<T>::value);
    f(s, chosen, group_by_expert(chosen, s.K), outputs);
  }
}

// Indexing of row-major values with C columns.
auto at(Values& v, int64_t C) {
  return [&v, C](int64_t i, int64_t j) -> double& { return v[static_cast<size_t>(i * C + j)]; };
}

}  // namespace

TEST_CASE_TEMPLATE("group_by_expert", T, float, double) {
  for (const Sizes& s : kSizes) {
    CAPTURE(s.N);
    CAPTURE(s.E);
    Outputs outputs;
    const Tensor chosen = random_choice(s, DTypeOf<T>::value);
    const Places places(chosen);
    Tensor order = outputs.make({s.N * s.K}, DType::i32), offsets = outputs.make({s.E + 1}, DType::i32);
    kernel::group_by_expert(order, offsets, chosen);
    std::vector<int64_t> first(static_cast<size_t>(s.E) + 1, 0);
    for (const int64_t e : places.expert) ++first[static_cast<size_t>(e) + 1];
    for (size_t e = 1; e < first.size(); ++e) first[e] += first[e - 1];
    CHECK(values_of(order) == Values(places.row.begin(), places.row.end()));
    CHECK(values_of(offsets) == Values(first.begin(), first.end()));
  }
  const Tensor two = Tensor::full({3, 2}, 1, DTypeOf<T>::value);
  CHECK(error_of([&] { group_by_expert(two, 1); }) ==
        "[group_by_expert] chosen (3, 2) holds 6 choices, order has 3 places");
}

TEST_CASE_TEMPLATE("grouped products", T, float, double) {
  at_each_size<T>([](const Sizes& s, const Tensor& chosen, const ExpertGroups& groups, Outputs& outputs) {
    const Places places(chosen);
    const int64_t M = s.N * s.K, R = s.R, ER = s.E * R;
    const Tensor x = random_tensor<T>({s.N, s.C}), y = random_tensor<T>({s.N, s.O}),
                 h = random_tensor<T>({M, R}), a = random_tensor<T>({ER, s.C}),
                 b = random_tensor<T>({s.O, ER});
    Values vx = values_of(x), vy = values_of(y), vh = values_of(h), va = values_of(a), vb = values_of(b);
    Values down(vh.size(), 0), up(vh.size(), 0), to_x = vx, to_y = vy, da = va, db = vb,
                                                 spread(static_cast<size_t>(M * s.O));
    places.each([&](int64_t j, int64_t n, int64_t e) {
      for (int64_t r = 0; r < R; ++r) {
        const double hjr = at(vh, R)(j, r);
        for (int64_t c = 0; c < s.C; ++c) {
          at(down, R)(j, r) += at(vx, s.C)(n, c) * at(va, s.C)(e * R + r, c);
          at(to_x, s.C)(n, c) += hjr * at(va, s.C)(e * R + r, c);
          at(da, s.C)(e * R + r, c) += hjr * at(vx, s.C)(n, c);
        }
        for (int64_t o = 0; o < s.O; ++o) {
          at(spread, s.O)(j, o) += (r == 0 ? at(vy, s.O)(n, o) : 0) + hjr * at(vb, ER)(o, e * R + r);
          at(up, R)(j, r) += at(vy, s.O)(n, o) * at(vb, ER)(o, e * R + r);
          at(to_y, s.O)(n, o) += hjr * at(vb, ER)(o, e * R + r);
          at(db, ER)(o, e * R + r) += hjr * at(vy, s.O)(n, o);
        }
      }
    });
    Tensor got_down = outputs.template make<T>({M, R}), got_up = outputs.template make<T>({M, R});
    kernel::gather_matmul_nt(got_down, x, a, groups);
    check_near("gather_matmul_nt", got_down, down);
    kernel::gather_matmul_nn(got_up, y, b, groups);
    check_near("gather_matmul_nn", got_up, up);
    Tensor got_x = outputs.copy(x), got_y = outputs.copy(y), got_a = outputs.copy(a), got_b = outputs.copy(b);
    kernel::scatter_matmul_nn(got_x, h, a, groups);
    check_near("scatter_matmul_nn", got_x, to_x);
    kernel::scatter_matmul_nt(got_y, h, b, groups);
    check_near("scatter_matmul_nt", got_y, to_y);
    Tensor got_spread = outputs.template make<T>({M, s.O});
    kernel::spread_matmul_nt(got_spread, y, h, b, groups);
    check_near("spread_matmul_nt", got_spread, spread);
    kernel::gather_matmul_tn_a(got_a, h, x, groups);
    check_near("gather_matmul_tn_a", got_a, da);
    kernel::gather_matmul_tn_b(got_b, y, h, groups);
    check_near("gather_matmul_tn_b", got_b, db);
  });
}

TEST_CASE_TEMPLATE("grouped_scale", T, float, double) {
  at_each_size<T>([](const Sizes& s, const Tensor& chosen, const ExpertGroups& groups, Outputs& outputs) {
    const int64_t M = s.N * s.K, R = s.R;
    const Tensor h = random_tensor<T>({M, R}), dy = random_tensor<T>({M, R}),
                 w = random_tensor<T>({s.N, s.E});
    Values vh = values_of(h), vdy = values_of(dy), vw = values_of(w), y(vh.size()), dh(vh.size()),
           dw(vw.size(), 0);
    Places(chosen).each([&](int64_t j, int64_t n, int64_t e) {
      for (int64_t r = 0; r < R; ++r) {
        at(y, R)(j, r) = 0.5 * at(vw, s.E)(n, e) * at(vh, R)(j, r);
        at(dh, R)(j, r) = 0.5 * at(vw, s.E)(n, e) * at(vdy, R)(j, r);
        at(dw, s.E)(n, e) += 0.5 * at(vdy, R)(j, r) * at(vh, R)(j, r);
      }
    });
    Tensor got = outputs.template make<T>({M, R}), none;
    kernel::grouped_scale(got, h, w, groups, 0.5);
    check_near("grouped_scale", got, y);
    Tensor got_h = outputs.template make<T>({M, R}), got_w = outputs.template make<T>({s.N, s.E});
    kernel::grouped_scale_backward(got_h, got_w, dy, h, w, groups, 0.5);
    check_near("dh", got_h, dh);
    check_near("dweights", got_w, dw);
    got_h = outputs.template make<T>({M, R}), got_w = outputs.template make<T>({s.N, s.E});
    kernel::grouped_scale_backward(got_h, none, dy, none, w, groups, 0.5);
    kernel::grouped_scale_backward(none, got_w, dy, h, w, groups, 0.5);
    check_near("dh alone", got_h, dh);
    check_near("dweights alone", got_w, dw);
  });
}

TEST_CASE_TEMPLATE("grouped_swiglu", T, float, double) {
  at_each_size<T>([](const Sizes& s, const Tensor& chosen, const ExpertGroups& groups, Outputs& outputs) {
    const int64_t M = s.N * s.K, F = s.C;
    const Tensor gate = random_tensor<T>({M, F}), up = random_tensor<T>({M, F}),
                 dy = random_tensor<T>({M, F}), w = random_tensor<T>({s.N, s.E});
    Values va = values_of(gate), vb = values_of(up), vd = values_of(dy), vw = values_of(w), y(va.size()),
           da(va.size()), db(va.size()), dw(vw.size(), 0);
    Places(chosen).each([&](int64_t j, int64_t n, int64_t e) {
      for (int64_t f = 0; f < F; ++f) {
        const double x = at(va, F)(j, f), sigmoid = 1 / (1 + std::exp(-x)), b = at(vb, F)(j, f),
                     d = at(vd, F)(j, f);
        at(y, F)(j, f) = at(vw, s.E)(n, e) * x * sigmoid * b;
        at(da, F)(j, f) = at(vw, s.E)(n, e) * d * b * sigmoid * (1 + x * (1 - sigmoid));
        at(db, F)(j, f) = at(vw, s.E)(n, e) * d * x * sigmoid;
        at(dw, s.E)(n, e) += d * x * sigmoid * b;
      }
    });
    Tensor got = outputs.template make<T>({M, F}), none;
    kernel::grouped_swiglu(got, gate, up, w, groups);
    check_near("grouped_swiglu", got, y);
    const auto backward = [&](bool with_gate, bool with_up, bool with_weights) {
      Tensor to_gate = with_gate ? outputs.template make<T>({M, F}) : none,
             to_up = with_up ? outputs.template make<T>({M, F}) : none,
             to_w = with_weights ? outputs.template make<T>({s.N, s.E}) : none;
      kernel::grouped_swiglu_backward(to_gate, to_up, to_w, dy, gate, up, w, groups);
      if (with_gate) check_near("dgate", to_gate, da);
      if (with_up) check_near("dup", to_up, db);
      if (with_weights) check_near("dweights", to_w, dw);
    };
    backward(true, true, true), backward(true, false, false), backward(false, true, false),
        backward(false, false, true);
  });
}

TEST_CASE_TEMPLATE("grouped kernels have the same bits on one and two threads", T, float, double) {
  const Sizes s{900, 300, 200, 7, 2, 5, 6};  // large enough to run on several threads
  const Tensor chosen = random_choice(s, DTypeOf<T>::value);
  const ExpertGroups groups = group_by_expert(chosen, s.K);
  const int64_t M = s.N * s.K, ER = s.E * s.R;
  const Tensor x = random_tensor<T>({s.N, s.C}), y = random_tensor<T>({s.N, s.O}),
               h = random_tensor<T>({M, s.R}), a = random_tensor<T>({ER, s.C}),
               b = random_tensor<T>({s.O, ER}), w = random_tensor<T>({s.N, s.E});
  const auto run = [&] {
    std::vector<Tensor> out{h.clone(), h.clone(), x.clone(),
                            y.clone(), a.clone(), b.clone(),
                            h.clone(), w.clone(), random_tensor<T>({M, s.O}),
                            h.clone(), h.clone(), h.clone(),
                            w.clone()};
    kernel::gather_matmul_nt(out[0], x, a, groups);
    kernel::gather_matmul_nn(out[1], y, b, groups);
    kernel::scatter_matmul_nn(out[2], h, a, groups);
    kernel::scatter_matmul_nt(out[3], h, b, groups);
    kernel::gather_matmul_tn_a(out[4], h, x, groups);
    kernel::gather_matmul_tn_b(out[5], y, h, groups);
    kernel::grouped_scale_backward(out[6], out[7], h, h, w, groups, 2);
    kernel::spread_matmul_nt(out[8], y, h, b, groups);
    kernel::grouped_swiglu(out[9], h, h, w, groups);
    kernel::grouped_swiglu_backward(out[10], out[11], out[12], h, h, h, w, groups);
    return out;
  };
  check_same_on_threads(run);
}

TEST_CASE("invalid groups are refused") {
  Tensor h = Tensor::zeros({3, 2}, DType::f32);
  const Tensor x = Tensor::zeros({4, 5}, DType::f32), a = Tensor::zeros({4, 5}, DType::f32);
  const auto message = [&](std::vector<int32_t> order, std::vector<int32_t> offsets) {
    return error_of([&] { kernel::gather_matmul_nt(h, x, a, {index_of(order), index_of(offsets)}); });
  };
  CHECK(message({0, 2, 1}, {0, 2, 3}) == "no error");
  CHECK(message({0, 4, 1}, {0, 2, 3}) == "[gather_matmul_nt] order[1] is 4, expected 0 <= order < 4");
  CHECK(message({2, 0, 1}, {0, 2, 3}) ==
        "[gather_matmul_nt] order[1] is 0: the rows of expert 0 do not ascend");
  CHECK(message({0, 2, 1}, {0, 2, 2}) ==
        "[gather_matmul_nt] offsets (3) do not run from 0 to the 3 places of order");
  CHECK(message({0, 2, 1}, {0, 2, 1, 3}) == "[gather_matmul_nt] offsets[1] is 2, above the next offset");
  CHECK(message({0, 2}, {0, 1, 2}) == "[gather_matmul_nt] h (3, 2) does not have the 2 rows of order");
}

TEST_CASE("a profile counts the FLOPs of chosen experts only") {
  constexpr int64_t N = 6, C = 4, O = 5, R = 3;  // M = 6 pairs, 2 experts
  const ExpertGroups groups{index_of({0, 1, 2, 3, 4, 5}), index_of({0, 2, 6})};
  Tensor x = Tensor::zeros({N, C}, DType::f32), y = Tensor::zeros({N, O}, DType::f32),
         h = Tensor::zeros({N, R}, DType::f32), a = Tensor::zeros({2 * R, C}, DType::f32),
         b = Tensor::zeros({O, 2 * R}, DType::f32);
  start_profile();
  kernel::gather_matmul_nt(h, x, a, groups);
  kernel::gather_matmul_nn(h, y, b, groups);
  kernel::scatter_matmul_nn(x, h, a, groups);
  kernel::scatter_matmul_nt(y, h, b, groups);
  kernel::gather_matmul_tn_a(a, h, x, groups);
  kernel::gather_matmul_tn_b(b, y, h, groups);
  kernel::spread_matmul_nt(y, y.clone(), h, b, groups);
  const std::vector<KernelProfile> profile = stop_profile();
  CHECK(profile.size() == 7);
  for (const KernelProfile& k : profile) {
    const bool of_b =
        k.name != "gather_matmul_nt" && k.name != "scatter_matmul_nn" && k.name != "gather_matmul_tn_a";
    CHECK_MESSAGE(k.flops == 2 * N * R * (of_b ? O : C), k.name);
  }
}
