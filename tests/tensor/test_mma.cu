// The products of mma.cuh against loops, on the device or its emulation; part of test_cuda. Factors are small
// integers, so that every sum is exact.
#include <doctest/doctest.h>

#include "tensor/cuda/mma.cuh"
#include "tensor/cuda/values.cuh"
#include "tests/support/guarded_memory.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

constexpr int kRows = 16, kLoaded = 64;
constexpr int kThreads = 128;  // all load, the first warp multiplies

// across [16,16] = x y^T and along [C,C] = x^T y, for x y [16,C] of which `there` rows of D elements exist,
// the rest 0.
template <int C>
__global__ void products_kernel(float* across, float* along, const bf16* x, const bf16* y, int64_t there,
                                int64_t D) {
  __shared__ cuda::Chunk space[2][kLoaded * C / 8];
  const cuda::SharedRows<C> left{space[0]}, right{space[1]};
  cuda::load_rows<kLoaded, kThreads>(left, x, D, there, D);
  cuda::load_rows<kLoaded, kThreads>(right, y, D, there, D);
  cuda::finish_copies();
  __syncthreads();
  if (threadIdx.x >= 32) return;
  cuda::MatrixC sum[2] = {};
  for (int k = 0; k < C; k += 16) {
    const cuda::MatrixB2 b = cuda::load_b_turned(right, 0, k);
    cuda::multiply(sum[0], cuda::load_a(left, 0, k), b.left);
    cuda::multiply(sum[1], cuda::load_a(left, 0, k), b.right);
  }
  cuda::each_held<2>(
      [&](int j, int e, int row, int column) { across[row * kRows + column] = sum[j].value[e]; });
  for (int m = 0; m < C; m += 16) {
    for (int n = 0; n < C; n += 16) {
      cuda::MatrixC tile[2] = {};
      const cuda::MatrixB2 b = cuda::load_b(right, 0, n);
      cuda::multiply(tile[0], cuda::load_a_turned(left, 0, m), b.left);
      cuda::multiply(tile[1], cuda::load_a_turned(left, 0, m), b.right);
      cuda::each_held<2>(
          [&](int j, int e, int row, int column) { along[(m + row) * C + n + column] = tile[j].value[e]; });
    }
  }
}

// y [16,16] = (x x^T) x for x [16,16], where the result of the first product is a factor of the second.
__global__ void twice_kernel(float* y, const bf16* x) {
  __shared__ cuda::Chunk space[kLoaded * kRows / 8];
  const cuda::SharedRows<kRows> rows{space};
  cuda::load_rows<kLoaded, kThreads>(rows, x, kRows, kRows, kRows);
  cuda::finish_copies();
  __syncthreads();
  if (threadIdx.x >= 32) return;
  cuda::MatrixC first[2] = {}, second[2] = {};
  const cuda::MatrixB2 turned = cuda::load_b_turned(rows, 0, 0), b = cuda::load_b(rows, 0, 0);
  cuda::multiply(first[0], cuda::load_a(rows, 0, 0), turned.left);
  cuda::multiply(first[1], cuda::load_a(rows, 0, 0), turned.right);
  cuda::MatrixA a[1];
  cuda::as_factor(a, first);
  cuda::multiply(second[0], a[0], b.left);
  cuda::multiply(second[1], a[0], b.right);
  cuda::each_held<2>(
      [&](int j, int e, int row, int column) { y[row * kRows + column] = second[j].value[e]; });
}

// Integers with an absolute value of at most `most`.
Tensor integers(int64_t rows, int64_t columns, uint32_t most) {
  Tensor t = Tensor::empty({rows, columns}, DType::f32);
  for (int64_t i = 0; i < t.numel(); ++i)
    t.data<float>()[i] = static_cast<float>(source().below(2 * most + 1)) - static_cast<float>(most);
  return t;
}

template <int C>
void check_products(int64_t there, int64_t D) {
  const Tensor x = integers(there, D, 8), y = integers(there, D, 8);
  const Tensor on_x = x.to(DType::bf16).to(Device::cuda), on_y = y.to(DType::bf16).to(Device::cuda);
  Tensor across = Tensor::empty({kRows, kRows}, DType::f32, Device::cuda),
         along = Tensor::empty({C, C}, DType::f32, Device::cuda);
  cuda::launch("products", products_kernel<C>, {1, 1, 1, kThreads}, cuda::device_data<float>(across),
               cuda::device_data<float>(along), cuda::device_data<bf16>(on_x), cuda::device_data<bf16>(on_y),
               there, D);
  Tensor want_across = Tensor::zeros({kRows, kRows}, DType::f32),
         want_along = Tensor::zeros({C, C}, DType::f32);
  for (int64_t i = 0; i < there; ++i) {
    for (int64_t j = 0; j < there; ++j) {
      for (int64_t d = 0; d < D; ++d)
        want_across.data<float>()[i * kRows + j] += x.data<float>()[i * D + d] * y.data<float>()[j * D + d];
    }
    for (int64_t c = 0; c < D * D; ++c)
      want_along.data<float>()[c / D * C + c % D] +=
          x.data<float>()[i * D + c / D] * y.data<float>()[i * D + c % D];
  }
  CHECK_MESSAGE(same_bits(across.to(Device::cpu), want_across), "x y^T of ", there, " rows of ", D);
  CHECK_MESSAGE(same_bits(along.to(Device::cpu), want_along), "x^T y of ", there, " rows of ", D);
}

}  // namespace

TEST_CASE("products on tensor cores equal those of loops") {
  for (const bool rising : {true, false}) {
    set_thread_order(rising);
    check_products<16>(16, 16);
    check_products<32>(16, 32);
    check_products<64>(16, 64);
    check_products<128>(16, 128);
    check_products<64>(13, 40);  // rows of whole chunks, some missing
    check_products<128>(1, 99);  // rows not a multiple of 16 bytes
  }
  set_thread_order(true);
}

TEST_CASE("a product on tensor cores becomes a factor") {
  const Tensor x = integers(kRows, kRows, 2), on = x.to(DType::bf16).to(Device::cuda);
  Tensor y = Tensor::empty({kRows, kRows}, DType::f32, Device::cuda);
  cuda::launch("twice", twice_kernel, {1, 1, 1, kThreads}, cuda::device_data<float>(y),
               cuda::device_data<bf16>(on));
  Tensor want = Tensor::zeros({kRows, kRows}, DType::f32);
  const float* a = x.data<float>();
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kRows; ++j) {
      float dot = 0;
      for (int d = 0; d < kRows; ++d) dot += a[i * kRows + d] * a[j * kRows + d];
      for (int d = 0; d < kRows; ++d) want.data<float>()[i * kRows + d] += dot * a[j * kRows + d];
    }
  }
  CHECK(same_bits(y.to(Device::cpu), want));
}
