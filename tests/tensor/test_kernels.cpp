// Every CPU kernel except attention and the matrix products against a plain loop in f64, in both dtypes and
// odd shapes.
#include "tests/support/kernel_testing.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

struct Size {
  int64_t N, C;
};
const Size kSizes[] = {{1, 1}, {1, 128}, {0, 5}, {7, 33}, {33, 7}, {40, 109}, {3, 64}, {300, 301}};

}  // namespace

TEST_CASE_TEMPLATE("pointwise", T, float, double) {
  for (const auto [N, C] : kSizes) {
    INFO("N = ", N, ", C = ", C);
    Outputs outputs;
    const Tensor a = random_tensor<T>({N, C}, 3), b = random_tensor<T>({N, C}), g = random_tensor<T>({N, C});
    const Tensor factor = random_tensor<T>({1});
    const Values va = values_of(a), vb = values_of(b), vg = values_of(g);
    const auto each = [&](auto f) {
      Values want(va.size());
      for (size_t i = 0; i < want.size(); ++i) want[i] = f(i);
      return want;
    };
    const auto fresh = [&] { return outputs.template make<T>({N, C}); };
    Tensor y = fresh(), d = fresh(), u = fresh();
    for (const Unary op : {Unary::silu, Unary::gelu, Unary::quick_gelu}) {
      CAPTURE(static_cast<int>(op));
      const auto slope = op == Unary::quick_gelu ? 1.702 : 1.0;
      const auto f = [&](double x) {
        if (op == Unary::gelu) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
        return x / (1 + std::exp(-slope * x));
      };
      const auto df = [&](double x) {
        if (op == Unary::gelu) {
          return 0.5 * std::erfc(-x / std::sqrt(2.0)) +
                 x * std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0));
        }
        const double s = 1 / (1 + std::exp(-slope * x));
        return s + slope * x * s * (1 - s);
      };
      kernel::unary(y, a, op);
      check_near("unary", y, each([&](size_t i) { return f(va[i]); }));
      kernel::unary_backward(d, g, a, op);
      check_near("unary_backward", d, each([&](size_t i) { return vg[i] * df(va[i]); }));
    }
    kernel::add(y, a, b);
    check_near("add", y, each([&](size_t i) { return va[i] + vb[i]; }));
    kernel::scale(y, a, -0.75);
    check_near("scale", y, each([&](size_t i) { return -0.75 * va[i]; }));
    kernel::mul(y, a, b);
    check_near("mul", y, each([&](size_t i) { return va[i] * vb[i]; }));
    Tensor sum = outputs.copy(b);
    kernel::accumulate(sum, a, 0.3);
    check_near("accumulate", sum, each([&](size_t i) { return vb[i] + 0.3 * va[i]; }));
    const double s0 = values_of(factor)[0];
    kernel::scale_by(y, a, factor, 2, false);
    check_near("scale_by", y, each([&](size_t i) { return 2 * s0 * va[i]; }));
    sum.copy_from(b);
    kernel::scale_by(sum, a, factor, 2, true);
    check_near("scale_by", sum, each([&](size_t i) { return vb[i] + 2 * s0 * va[i]; }));
    const auto silu = [](double x) { return x / (1 + std::exp(-x)); };
    const auto dsilu = [](double x) {
      const double s = 1 / (1 + std::exp(-x));
      return s + x * s * (1 - s);
    };
    kernel::swiglu(y, a, b);
    check_near("swiglu", y, each([&](size_t i) { return silu(va[i]) * vb[i]; }));
    const Values dgate = each([&](size_t i) { return vg[i] * vb[i] * dsilu(va[i]); });
    const Values dup = each([&](size_t i) { return vg[i] * silu(va[i]); });
    Tensor none;
    kernel::swiglu_backward(d, u, g, a, b);
    check_near("dgate", d, dgate);
    check_near("dup", u, dup);
    d = fresh(), u = fresh();
    kernel::swiglu_backward(d, none, g, a, b);
    kernel::swiglu_backward(none, u, g, a, b);
    check_near("dgate alone", d, dgate);
    check_near("dup alone", u, dup);
    Values columns(static_cast<size_t>(C), 0);
    for (size_t i = 0; i < va.size(); ++i) columns[i % static_cast<size_t>(C)] += va[i];
    Tensor total = outputs.template make<T>({C});
    kernel::sum_rows(total, a, false);
    check_near("sum_rows", total, columns);
    kernel::sum_rows(total, a, true);
    for (double& c : columns) c *= 2;
    check_near("sum_rows added", total, columns);
  }
  Tensor y = Tensor::zeros({3, 4}, DTypeOf<T>::value);
  CHECK(contains(error_of([&] { kernel::add(y, y, Tensor::zeros({3, 5}, y.dtype())); }), "[add] a"));
}

TEST_CASE_TEMPLATE("exp over the whole range", T, float, double) {
  // softmax of (x, 0) is e^x / (1 + e^x), whose tail shows the relative error of exp.
  const double lowest = std::is_same_v<T, float> ? -86 : -700;
  Outputs outputs;
  for (double x = lowest; x < 0; x += 0.37) {
    const Tensor pair = Tensor::of({1, 2}, std::vector<T>{static_cast<T>(x), T(0)});
    Tensor y = outputs.template make<T>({1, 2});
    kernel::softmax(y, pair);
    const double e = std::exp(values_of(pair)[0]);
    CHECK(std::abs(values_of(y)[0] / (e / (1 + e)) - 1) < (std::is_same_v<T, float> ? 5e-7 : 1e-15));
  }
}

// The known answers of Random123's Philox4x32-10 (kat_vectors), for counters and keys of zeros, of ones and
// of pi.
TEST_CASE("philox") {
  const auto words = [](uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
    const PhiloxBlock b = philox(key, c0, c1, c2, c3);
    return std::vector<uint32_t>(b.v, b.v + 4);
  };
  constexpr uint32_t kOnes = 0xffffffff;
  using Words = std::vector<uint32_t>;
  CHECK(words(0, 0, 0, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(words(~0ull, kOnes, kOnes, kOnes, kOnes) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(words(0x299f31d0a4093822, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE_TEMPLATE("dropout", T, float, double) {
  for (const auto [N, C] : {Size{1, 1}, {0, 8}, {7, 33}, {40, 128}}) {
    Outputs outputs;
    const Tensor x = random_tensor<T>({N, C}), ordinal = random_index(N, 0, 1000),
                 position = random_index(N, 0, 50);
    for (const double p : {0.0, 0.1, 0.5, 1.0 / 3}) {
      Tensor y = outputs.template make<T>({N, C});
      const uint64_t key = 0x123456789abcdefull;
      kernel::dropout(y, x, ordinal, position, key, p);
      Values want = values_of(x);
      for (int64_t i = 0; i < N * C; ++i) {
        const auto n = i / C, c = i % C;
        const PhiloxBlock block =
            philox(key, static_cast<uint32_t>(ordinal.data<int32_t>()[n]), 0,
                   static_cast<uint32_t>(position.data<int32_t>()[n]), static_cast<uint32_t>(c / 4));
        want[static_cast<size_t>(i)] *= uniform(block.v[c % 4]) >= p ? 1 / (1 - p) : 0;
      }
      check_near("dropout", y, want);
    }
  }
  Tensor y = Tensor::zeros({1, 4}, DTypeOf<T>::value), zero = index_of({0});
  CHECK(error_of([&] { kernel::dropout(y, y, zero, zero, 1, 1.0); }) ==
        "[dropout] p is 1, expected 0 <= p < 1");
}

TEST_CASE_TEMPLATE("reduce", T, float, double) {
  for (const auto [N, C] : kSizes) {
    INFO("N = ", N, ", C = ", C);
    Outputs outputs;
    const Tensor a = random_tensor<T>({N, C}), b = random_tensor<T>({N, C});
    const Values va = values_of(a), vb = values_of(b);
    double ab = 0, aa = 0;
    for (size_t i = 0; i < va.size(); ++i) ab += va[i] * vb[i], aa += va[i] * va[i];
    Tensor y = outputs.template make<T>({1}), square = outputs.template make<double>({1});
    kernel::dot(y, a, b, 0.5);
    CHECK(std::abs(y.item() - 0.5 * ab) <= (std::is_same_v<T, float> ? 1e-6 : 1e-13) * (aa + 1));
    kernel::sum_squares(square, a);
    check_near("sum_squares", square, {aa});
    const int64_t G = 5;  // group 4 is empty
    const Tensor group = random_index(N, -1, 4);
    Tensor mean = outputs.template make<T>({G, C}), count = outputs.template make<T>({G});
    kernel::group_mean(mean, count, a, group);
    Values sums(static_cast<size_t>(G * C), 0), rows(static_cast<size_t>(G), 0), dx(va.size(), 0);
    const Tensor dy = random_tensor<T>({G, C});
    const Values vdy = values_of(dy);
    for (int64_t n = 0; n < N; ++n) {
      const int32_t of = group.data<int32_t>()[n];
      if (of < 0) continue;
      rows[static_cast<size_t>(of)] += 1;
      for (int64_t c = 0; c < C; ++c)
        sums[static_cast<size_t>(of * C + c)] += va[static_cast<size_t>(n * C + c)];
    }
    for (size_t i = 0; i < sums.size(); ++i) sums[i] /= std::max(1.0, rows[i / static_cast<size_t>(C)]);
    check_near("group_mean", mean, sums);
    check_near("count", count, rows);
    for (int64_t i = 0; i < N * C; ++i) {
      const int32_t of = group.data<int32_t>()[i / C];
      if (of >= 0)
        dx[static_cast<size_t>(i)] = vdy[static_cast<size_t>(of * C + i % C)] / rows[static_cast<size_t>(of)];
    }
    Tensor got = outputs.template make<T>({N, C});
    kernel::group_mean_backward(got, dy, count, group);
    check_near("group_mean_backward", got, dx);
  }
  Tensor y = Tensor::zeros({1}, DType::f64);
  Tensor x = Tensor::full({3}, std::nan(""), DTypeOf<T>::value);
  kernel::sum_squares(y, x);
  CHECK(std::isnan(y.item()));
}

TEST_CASE_TEMPLATE("rows", T, float, double) {
  for (const auto [N, C] : kSizes) {
    Outputs outputs;
    const int64_t M = 9;
    const auto at = [C = C](int64_t n, int64_t c) { return static_cast<size_t>(n * C + c); };
    const Tensor x = random_tensor<T>({M, C}), g = random_tensor<T>({N, C}), index = random_index(N, 0, M);
    const Values vx = values_of(x), vg = values_of(g);
    Tensor y = outputs.template make<T>({N, C}), into = outputs.copy(x);
    Values gathered(static_cast<size_t>(N * C)), scattered = vx;
    for (int64_t i = 0; i < N * C; ++i) {
      const int64_t row = index.data<int32_t>()[i / C];
      gathered[static_cast<size_t>(i)] = vx[at(row, i % C)];
      scattered[at(row, i % C)] += vg[static_cast<size_t>(i)];
    }
    kernel::gather_rows(y, x, index);
    check_near("gather_rows", y, gathered);
    kernel::scatter_rows(into, g, index, true);
    check_near("scatter_rows", into, scattered);
    Tensor anew = outputs.template make<T>({M, C});
    kernel::scatter_rows(anew, g, index, false);
    for (size_t i = 0; i < scattered.size(); ++i) scattered[i] -= vx[i];
    check_near("scatter_rows, anew", anew, scattered);
    Tensor many = outputs.copy(random_tensor<T>({5 * N, C}));  // few of its rows are targets
    Values sums = values_of(many);
    for (int64_t i = 0; i < N * C; ++i)
      sums[at(index.data<int32_t>()[i / C] % (5 * N), i % C)] += vg[static_cast<size_t>(i)];
    Tensor within = Tensor::empty({N}, DType::i32);
    for (int64_t n = 0; n < N; ++n)
      within.data<int32_t>()[n] = static_cast<int32_t>(index.data<int32_t>()[n] % (5 * N));
    kernel::scatter_rows(many, g, within, true);
    check_near("scatter_rows into many", many, sums);

    const int64_t V = 11, images = 4;
    const Tensor table = random_tensor<T>({V, C}), visual = random_tensor<T>({images, C});
    const Tensor id = random_index(N, -4, 11), words = random_index(N, 0, 11);
    Values dtable(static_cast<size_t>(V * C), 1), dvisual(static_cast<size_t>(images * C), 1);
    for (const Tensor& t : {table, table.to(DType::bf16)}) {
      const Values vt = values_of(t), vv = values_of(visual);
      Values want(static_cast<size_t>(N * C)), want_words = want;
      for (int64_t i = 0; i < N * C; ++i) {
        const int64_t of = id.data<int32_t>()[i / C];
        want[static_cast<size_t>(i)] = of >= 0 ? vt[at(of, i % C)] : vv[at(-1 - of, i % C)];
        want_words[static_cast<size_t>(i)] = vt[at(words.data<int32_t>()[i / C], i % C)];
      }
      kernel::embedding(y, t, visual, id);
      check_near("embedding", y, want);
      kernel::embedding(y, t, Tensor(), words);
      check_near("embedding of words", y, want_words);
    }
    for (int64_t i = 0; i < N * C; ++i) {
      const int64_t of = id.data<int32_t>()[i / C];
      (of >= 0 ? dtable[at(of, i % C)] : dvisual[at(-1 - of, i % C)]) += vg[static_cast<size_t>(i)];
    }
    Tensor dt = outputs.template make<T>({V, C}, 1), dv = outputs.template make<T>({images, C}, 1), none;
    kernel::embedding_backward(dt, none, g, id);
    kernel::embedding_backward(none, dv, g, id);
    check_near("dtable", dt, dtable);
    check_near("dvisual", dv, dvisual);
    dt = outputs.template make<T>({V, C}, 1), dv = outputs.template make<T>({images, C}, 1);
    kernel::embedding_backward(dt, dv, g, id);
    check_near("dtable", dt, dtable);
    check_near("dvisual", dv, dvisual);
  }
  Tensor y = Tensor::zeros({2, 4}, DTypeOf<T>::value);
  const Tensor x = random_tensor<T>({3, 4});
  const Tensor above = index_of({0, 3}), below = index_of({-1, 0});
  CHECK(error_of([&] { kernel::gather_rows(y, x, above); }) ==
        "[gather_rows] index[1] is 3, expected 0 <= index < 3");
  CHECK(error_of([&] { kernel::embedding(y, x, Tensor(), below); }) ==
        "[embedding] id[0] is -1, expected 0 <= id < 3");
}

TEST_CASE_TEMPLATE("norm", T, float, double) {
  const double eps = 1e-5;
  for (const auto [N, C] : kSizes) {
    for (const bool centred : {false, true}) {
      INFO("N = ", N, ", C = ", C, ", centred = ", centred);
      Outputs outputs;
      const Tensor x = random_tensor<T>({N, C}), w = random_tensor<T>({C}), b = random_tensor<T>({C});
      const Tensor dy = random_tensor<T>({N, C});
      const Values vx = values_of(x), vw = values_of(w), vb = values_of(b), vdy = values_of(dy);
      Values y(vx.size()), dx(vx.size()), dw(vw.size(), 1), db(vw.size(), 1), means, scales;
      for (int64_t n = 0; n < N; ++n) {
        const auto at = [&](int64_t c) { return static_cast<size_t>(n * C + c); };
        double mean = 0, var = 0, g_mean = 0, gx_mean = 0;
        for (int64_t c = 0; centred && c < C; ++c) mean += vx[at(c)] / static_cast<double>(C);
        for (int64_t c = 0; c < C; ++c)
          var += (vx[at(c)] - mean) * (vx[at(c)] - mean) / static_cast<double>(C);
        const double r = 1 / std::sqrt(var + eps);
        means.push_back(mean), scales.push_back(r);
        for (int64_t c = 0; c < C; ++c) {
          const auto k = static_cast<size_t>(c);
          const double xhat = (vx[at(c)] - mean) * r, g = vdy[at(c)] * vw[k];
          y[at(c)] = xhat * vw[k] + (centred ? vb[k] : 0);
          g_mean += centred ? g / static_cast<double>(C) : 0;
          gx_mean += g * xhat / static_cast<double>(C);
          dw[k] += vdy[at(c)] * xhat;
          db[k] += vdy[at(c)];
        }
        for (int64_t c = 0; c < C; ++c) {
          const double xhat = (vx[at(c)] - mean) * r, g = vdy[at(c)] * vw[static_cast<size_t>(c)];
          dx[at(c)] = r * (g - g_mean - xhat * gx_mean);
        }
      }
      Tensor out = outputs.template make<T>({N, C}), m = outputs.template make<T>({N}),
             r = outputs.template make<T>({N});
      Tensor none;
      if (centred)
        kernel::layer_norm(out, m, r, x, w, b, eps);
      else
        kernel::rms_norm(out, r, none, x, {}, w, eps);
      check_near("y", out, y);
      check_near("rstd", r, scales);
      if (centred) check_near("mean", m, means);
      // With one channel dx is a difference of equal numbers: only rounding errors remain.
      const auto backward = [&](bool with_dx, bool with_rest) {
        Tensor a = with_dx ? outputs.template make<T>({N, C}) : Tensor();
        Tensor c = with_rest ? outputs.template make<T>({C}, 1) : Tensor(),
               d = with_rest ? outputs.template make<T>({C}, 1) : Tensor();
        if (centred)
          kernel::layer_norm_backward(a, c, d, dy, x, w, m, r);
        else
          kernel::rms_norm_backward(a, c, dy, {}, x, w, r);
        if (with_dx && C > 1) check_near("dx", a, dx);
        if (with_rest) check_near("dw", c, dw);
        if (with_rest && centred) check_near("db", d, db);
      };
      backward(true, true), backward(true, false), backward(false, true);
    }
  }
  Tensor y = Tensor::zeros({2, 64}, DTypeOf<T>::value), r = Tensor::zeros({2}, y.dtype()), none;
  CHECK(contains(error_of([&] { kernel::rms_norm(y, r, none, y, y, y, eps); }), "sum and added"));
  CHECK(contains(error_of([&] { kernel::rms_norm(y, r, none, y, {}, Tensor::zeros({60}, y.dtype()), eps); }),
                 "(60), expected"));
}

TEST_CASE_TEMPLATE("softmax, cross entropy, argmax", T, float, double) {
  for (const auto [N, C] : kSizes) {
    INFO("N = ", N, ", C = ", C);
    Outputs outputs;
    const Tensor x = random_tensor<T>({N, C}, 4), dy = random_tensor<T>({N, C});
    const Tensor target = random_index(N, 0, static_cast<int32_t>(C));
    const Values vx = values_of(x), vdy = values_of(dy);
    Values p(vx.size()), dx(vx.size()), loss, dlogits, best;
    for (int64_t n = 0; n < N; ++n) {
      const auto at = [&](int64_t c) { return static_cast<size_t>(n * C + c); };
      double sum = 0;
      int64_t first = 0;
      for (int64_t c = 0; c < C; ++c)
        sum += std::exp(vx[at(c)]), first = vx[at(c)] > vx[at(first)] ? c : first;
      for (int64_t c = 0; c < C; ++c) p[at(c)] = std::exp(vx[at(c)]) / sum;
      loss.push_back(-std::log(p[at(target.data<int32_t>()[n])]));
      best.push_back(static_cast<double>(first));
    }
    dlogits = p;
    for (int64_t n = 0; n < N; ++n) dlogits[static_cast<size_t>(n * C + target.data<int32_t>()[n])] -= 1;
    Tensor y = outputs.template make<T>({N, C}), d = outputs.template make<T>({N, C}),
           l = outputs.template make<T>({N}), none;
    kernel::softmax(y, x);
    check_near("softmax", y, p);
    // The expected gradient uses y as rounded: if one class has nearly all probability, it amplifies y's
    // rounding.
    const Values vy = values_of(y);
    for (int64_t n = 0; n < N; ++n) {
      double inner = 0;
      for (int64_t i = n * C; i < (n + 1) * C; ++i)
        inner += vy[static_cast<size_t>(i)] * vdy[static_cast<size_t>(i)];
      for (int64_t i = n * C; i < (n + 1) * C; ++i)
        dx[static_cast<size_t>(i)] = vy[static_cast<size_t>(i)] * (vdy[static_cast<size_t>(i)] - inner);
    }
    kernel::softmax_backward(d, dy, y);
    check_near("softmax_backward", d, dx);
    kernel::cross_entropy(l, none, x, target);
    check_near("loss", l, loss);
    l = outputs.template make<T>({N});
    Tensor in_place = outputs.copy(x);
    kernel::cross_entropy(l, in_place, in_place, target);
    check_near("loss", l, loss);
    check_near("dlogits", in_place, dlogits);
    Tensor index = outputs.make({N}, DType::i32);
    kernel::argmax(index, x);
    check_near("argmax", index, best);
  }
  Tensor loss = Tensor::zeros({1}, DTypeOf<T>::value), none;
  const Tensor x = random_tensor<T>({1, 5});
  CHECK(error_of([&] { kernel::cross_entropy(loss, none, x, index_of({5})); }) ==
        "[cross_entropy] target[0] is 5, expected 0 <= target < 5");
  Tensor index = Tensor::zeros({1}, DType::i32);
  kernel::argmax(index, Tensor::of({1, 4}, std::vector<T>{1, 3, 3, 2}));
  CHECK(index.item() == 1);
}

TEST_CASE_TEMPLATE("routing", T, float, double) {
  for (const int64_t N : {1, 0, 7, 33}) {
    for (const int64_t E : {1, 3, 8}) {
      for (const int64_t R : {1, 2, 5}) {
        INFO("N = ", N, ", E = ", E, ", R = ", R);
        Outputs outputs;
        Tensor probs = Tensor::empty({N, E}, DTypeOf<T>::value);
        kernel::softmax(probs, random_tensor<T>({N, E}));
        const Tensor h = random_tensor<T>({N, E * R}), dy = random_tensor<T>({N, E * R});
        const Values vp = values_of(probs), vh = values_of(h), vdy = values_of(dy);
        Values y(vh.size()), dh(vh.size()), dw(vp.size(), 0);
        for (size_t i = 0; i < vh.size(); ++i) {
          const size_t w = i / static_cast<size_t>(R);
          y[i] = 0.5 * vp[w] * vh[i];
          dh[i] = 0.5 * vp[w] * vdy[i];
          dw[w] += 0.5 * vdy[i] * vh[i];
        }
        Tensor out = outputs.template make<T>({N, E * R}), none;
        kernel::scale_experts(out, h, probs, 0.5);
        check_near("scale_experts", out, y);
        Tensor a = outputs.template make<T>({N, E * R}), b = outputs.template make<T>({N, E});
        kernel::scale_experts_backward(a, b, dy, h, probs, 0.5);
        check_near("dh", a, dh);
        check_near("dweights", b, dw);
        a = outputs.template make<T>({N, E * R}), b = outputs.template make<T>({N, E});
        kernel::scale_experts_backward(a, none, dy, h, probs, 0.5);
        kernel::scale_experts_backward(none, b, dy, h, probs, 0.5);
        check_near("dh alone", a, dh);
        check_near("dweights alone", b, dw);
        for (int64_t k = 1; k <= E; ++k) {
          Values mask(vp.size(), 0);
          for (size_t i = 0; i < vp.size(); ++i) {  // chosen if fewer than k others come before it
            const size_t row = i / static_cast<size_t>(E) * static_cast<size_t>(E);
            int64_t before = 0;
            for (size_t j = row; j < row + static_cast<size_t>(E); ++j)
              before += vp[j] > vp[i] || (vp[j] == vp[i] && j < i);
            mask[i] = before < k;
          }
          Tensor chosen = outputs.template make<T>({N, E});
          kernel::top_k_mask(chosen, probs, k);
          check_near("top_k_mask", chosen, mask);
        }
      }
    }
  }
  Tensor mask = Tensor::zeros({1, 4}, DTypeOf<T>::value);
  kernel::top_k_mask(mask, Tensor::full({1, 4}, 0.25, mask.dtype()), 2);
  check_near("ties", mask, {1, 1, 0, 0});
  CHECK(contains(error_of([&] { kernel::top_k_mask(mask, mask, 5); }),
                 "[top_k_mask] k is 5, expected 1 <= k <= 4"));
}

TEST_CASE_TEMPLATE("adamw", T, float, double) {
  for (const int64_t n : {0, 1, 33, 1000}) {
    Outputs outputs;
    Tensor p = outputs.copy(random_tensor<T>({n})), m = outputs.template make<T>({n}, 0),
           v = outputs.template make<T>({n}, 0);
    Values vp = values_of(p), vm(vp.size(), 0), vv(vp.size(), 0);
    const AdamW options{0.9, 0.99, 1e-8, 0.1};
    const double lr = 0.01, gain = 0.25;
    for (int64_t step = 1; step <= 5; ++step) {
      const Tensor grad = random_tensor<T>({n});
      kernel::adamw(p, m, v, grad, options, step, lr, gain);
      const Values vg = values_of(grad);
      for (size_t i = 0; i < vp.size(); ++i) {
        const double g = gain * vg[i], t = static_cast<double>(step);
        vm[i] = 0.9 * vm[i] + 0.1 * g;
        vv[i] = 0.99 * vv[i] + 0.01 * g * g;
        vp[i] -= lr * 0.1 * vp[i];
        vp[i] -= lr * (vm[i] / (1 - std::pow(0.9, t))) / (std::sqrt(vv[i] / (1 - std::pow(0.99, t))) + 1e-8);
      }
    }
    check_near("value", p, vp);
    check_near("m", m, vm);
    check_near("v", v, vv);
  }
  Tensor p = Tensor::zeros({2}, DTypeOf<T>::value), m = p.clone(), v = p.clone();
  CHECK(contains(error_of([&] { kernel::adamw(p, m, v, p, {}, 0, 1, 1); }), "[adamw] step is 0"));
}
