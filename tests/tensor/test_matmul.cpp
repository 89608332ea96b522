// Matrix products against plain loops in f64; and kernels whose bits must not depend on the number of
// threads.
#include "tests/support/kernel_testing.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

// c[M,N] = a b + c0, with a(i,k) and b(k,j) as functions.
template <class A, class B>
Values product(int64_t M, int64_t N, int64_t K, A a, B b, Values c0) {
  c0.resize(static_cast<size_t>(M * N), 0);
  for (int64_t i = 0; i < M; ++i) {
    for (int64_t j = 0; j < N; ++j) {
      for (int64_t k = 0; k < K; ++k) c0[static_cast<size_t>(i * N + j)] += a(i, k) * b(k, j);
    }
  }
  return c0;
}
auto reader(const Values& v, int64_t cols) {
  return [&v, cols](int64_t i, int64_t j) { return v[static_cast<size_t>(i * cols + j)]; };
}
auto flipped(const Values& v, int64_t cols) {
  return [&v, cols](int64_t i, int64_t j) { return v[static_cast<size_t>(j * cols + i)]; };
}

// Sizes for thin factors, for few rows and for the library; and without rows, columns or an inner size.
struct Sizes {
  int64_t N, O, C;
};
const Sizes kSizes[] = {{1, 1, 1},      {7, 33, 5},  {33, 7, 64},  {40, 6, 128}, {40, 256, 6},
                        {31, 109, 127}, {1, 40, 90}, {40, 20, 2},  {2, 20, 40},  {0, 3, 4},
                        {3, 0, 4},      {3, 4, 0},   {50, 30, 26}, {65, 26, 33}};

void product_nt(Tensor& y, const Tensor& x, const Tensor& w, bool accumulate) {
  kernel::matmul_nt(y, x, w, {}, accumulate);
}

}  // namespace

TEST_CASE_TEMPLATE("matmul", T, float, double) {
  for (const auto [N, O, C] : kSizes) {
    for (const bool add : {false, true}) {
      INFO("N = ", N, ", O = ", O, ", C = ", C, ", add = ", add);
      Outputs outputs;
      const Tensor x = random_tensor<T>({N, C}), w = random_tensor<T>({O, C}), g = random_tensor<T>({N, O});
      const Values vx = values_of(x), vw = values_of(w), vg = values_of(g);
      const auto run = [&](auto kernel, Shape shape, const Tensor& a, const Tensor& b, auto want) {
        const Tensor start = random_tensor<T>(shape);
        Tensor y = add ? outputs.copy(start) : outputs.template make<T>(shape), again = y.clone();
        kernel(y, a, b, add);
        kernel(again, a, b, add);
        check_near("y", y, want(add ? values_of(start) : Values{}));
        check_same_bits(y, again);
      };
      run(product_nt, {N, O}, x, w,
          [&](Values c) { return product(N, O, C, reader(vx, C), flipped(vw, C), std::move(c)); });
      run(kernel::matmul_nn, {N, C}, g, w,
          [&](Values c) { return product(N, C, O, reader(vg, O), reader(vw, C), std::move(c)); });
      run(kernel::matmul_tn, {O, C}, g, x,
          [&](Values c) { return product(O, C, N, flipped(vg, O), reader(vx, C), std::move(c)); });
      const Tensor narrow = w.to(DType::bf16);
      const Values vn = values_of(narrow);
      run(product_nt, {N, O}, x, narrow,
          [&](Values c) { return product(N, O, C, reader(vx, C), flipped(vn, C), std::move(c)); });
      run(kernel::matmul_nn, {N, C}, g, narrow,
          [&](Values c) { return product(N, C, O, reader(vg, O), reader(vn, C), std::move(c)); });
    }
  }
  Tensor y = Tensor::zeros({128, 32}, DTypeOf<T>::value);
  const Tensor x = random_tensor<T>({128, 64}), w = random_tensor<T>({32, 60});
  CHECK(error_of([&] { kernel::matmul_nt(y, x, w, {}, false); }) ==
        "[matmul_nt] x (128, 64) and w (32, 60): inner sizes 64 and 60 differ");
  CHECK(error_of([&] {
          kernel::matmul_nt(y, x, random_tensor<T>({32, 64}), w, false);
        }) == fmt::format("[matmul_nt] bias is {0} (32, 60), expected {0} (32)", DTypeOf<T>::value));
}

TEST_CASE_TEMPLATE("a bias gives the bits of a product and an addition after it", T, float, double) {
  std::vector<Sizes> sizes(std::begin(kSizes), std::end(kSizes));
  for (const Sizes& large : {Sizes{700, 96, 80}, {900, 8, 300}, {900, 300, 8}, {4, 900, 300}})
    sizes.push_back(large);  // large enough for a team of threads
  for (const auto [N, O, C] : sizes) {
    for (const bool add : {false, true}) {
      INFO("N = ", N, ", O = ", O, ", C = ", C, ", add = ", add);
      Outputs outputs;
      const Tensor x = random_tensor<T>({N, C}), w = random_tensor<T>({O, C}), bias = random_tensor<T>({O});
      const Tensor start = random_tensor<T>({N, O});
      Tensor y = add ? outputs.copy(start) : outputs.template make<T>({N, O}), want = start.clone();
      kernel::matmul_nt(y, x, w, bias, add);
      kernel::matmul_nt(want, x, w, {}, add);
      for (int64_t i = 0; i < want.numel(); ++i) want.data<T>()[i] += bias.data<T>()[i % O];
      check_same_bits(y, want);
    }
  }
}

TEST_CASE_TEMPLATE("two threads give the bits of one", T, float, double) {
  // Large enough for a team. Without matrix products, whose library may divide the inner size among threads.
  const int64_t N = 1500, C = 300, G = 7;
  const Tensor x = random_tensor<T>({N, C}), g = random_tensor<T>({N, C}), w = random_tensor<T>({C});
  const Tensor index = random_index(N, 0, G), target = random_index(N, 0, static_cast<int32_t>(C));
  std::vector<int32_t> places(static_cast<size_t>(N));
  for (size_t n = 0; n < places.size(); ++n) places[n] = static_cast<int32_t>(n % 500);
  const Tensor cuts = index_of({0, 500, 1000, 1500}), position = index_of(places);
  const AttentionRanges ranges{cuts, cuts, position, position};
  const AttentionShape shape{6, 3, 50, true, 0.14};
  const Tensor k = random_tensor<T>({N, 150}), v = random_tensor<T>({N, 150});
  const auto run = [&] {
    std::vector<Tensor> out;
    const auto next = [&](Shape s) -> Tensor& {
      return out.emplace_back(Tensor::zeros(std::move(s), DTypeOf<T>::value));
    };
    out.reserve(64);
    Tensor &y = next({N, C}), &rstd = next({N}), &dx = next({N, C}), &dw = next({C});
    Tensor none;
    kernel::rms_norm(y, rstd, none, x, {}, w, 1e-5);
    kernel::rms_norm_backward(dx, dw, g, {}, x, w, rstd);
    Tensor &y2 = next({N, C}), &mean = next({N}), &r2 = next({N}), &dx2 = next({N, C}), &dw2 = next({C}),
           &db2 = next({C});
    kernel::layer_norm(y2, mean, r2, x, w, w, 1e-5);
    kernel::layer_norm_backward(dx2, dw2, db2, g, x, w, mean, r2);
    kernel::sum_rows(next({C}), x, false);
    kernel::dot(next({1}), x, g, 1);
    kernel::unary(next({N, C}), x, Unary::gelu);
    kernel::swiglu(next({N, C}), x, g);
    kernel::softmax(next({N, C}), x);
    Tensor &loss = next({N}), &dlogits = next({N, C}), &means = next({G, C}), &count = next({G});
    kernel::cross_entropy(loss, dlogits, x, target);
    kernel::group_mean(means, count, x, index);
    kernel::scatter_rows(next({G, C}), x, index, true);
    kernel::dropout(next({N, C}), x, index, position, 3, 0.3);
    kernel::rope(next({N, C}), x, position, 6, 1e4, false);
    Tensor &o = next({N, C}), &lse = next({N, 6}), &dq = next({N, C}), &dk = next({N, 150}),
           &dv = next({N, 150});
    kernel::attention(o, lse, x, k, v, ranges, shape);
    kernel::attention_backward(dq, dk, dv, g, o, lse, x, k, v, ranges, shape);
    return out;
  };
  check_same_on_threads(run);
}

TEST_CASE("a profile counts calls, time and the FLOPs of products and attention") {
  Tensor y = Tensor::empty({5, 7}, DType::f32), w = Tensor::empty({7, 3}, DType::f32);
  const Tensor x = Tensor::full({5, 3}, 1, DType::f32), weight = Tensor::full({7, 3}, 1, DType::f32);
  start_profile();
  kernel::matmul_nt(y, x, weight, {}, false);
  kernel::matmul_nt(y, x, weight, {}, true);
  kernel::matmul_tn(w, y, x, false);
  const Tensor offsets = Tensor::of({3}, std::vector<int32_t>{0, 2, 5});
  const Tensor positions = Tensor::of({5}, std::vector<int32_t>{0, 1, 0, 1, 2});
  const AttentionRanges ranges{offsets, offsets, positions, positions};
  const Tensor q = Tensor::full({5, 8}, 1, DType::f32);
  Tensor out = Tensor::empty({5, 8}, DType::f32), lse = Tensor::empty({5, 2}, DType::f32);
  kernel::attention(out, lse, q, q, q, ranges, {2, 2, 4, true, 1});
  kernel::attention(out, lse, q, q, q, ranges, {2, 2, 4, false, 1});
  const std::vector<KernelProfile> profile = stop_profile();
  kernel::matmul_nt(y, x, weight, {}, false);  // no longer counted
  REQUIRE(profile.size() == 3);
  for (const KernelProfile& k : profile) {
    CHECK(k.seconds > 0);
    if (k.name == "matmul_nt") {
      CHECK(k.calls == 2);
      CHECK(k.flops == 2 * (2 * 5 * 7 * 3));
    } else if (k.name == "matmul_tn") {
      CHECK(k.flops == 2 * 5 * 7 * 3);
    } else {  // visible pairs: 3 + 6 when causal, 4 + 9 otherwise; q kT and p v over 2 heads of 4
      CHECK(k.name == "attention");
      CHECK(k.flops == (9 + 13) * 4 * 2 * 4);
    }
  }
}
