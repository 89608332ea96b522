// The matrix product for the cases that cuBLASLt does not support, on the CUDA cores.
// A block owns a tile of 32 by 32 results.
#include "tensor/cuda/gemm.h"
#include "tensor/cuda/tile.cuh"
#include "tensor/cuda/values.cuh"

namespace burrow::cuda {
namespace {

// c = (or +=) op(a) op(b) + bias, op transposes where its flag says
// in: a [M,K] (transposed: [K,M]), b [K,N] ([N,K]), bias [N] or null   out: c [M,N]; each f32 or bf16
// A block owns a tile of 32 by 32 results and sums over the inner size in order; sums in f32.
__global__ void plain_gemm_kernel(Floats c, Floats a, Floats b, Floats bias, int64_t M, int64_t N, int64_t K,
                                  bool a_transposed, bool b_transposed, bool add) {
  const int64_t m0 = int64_t{blockIdx.x} * kTile, n0 = int64_t{blockIdx.y} * kTile;
  TileSum sum;
  tile_product(
      sum, K,
      [&](int64_t i, int64_t k) {
        const int64_t m = m0 + i;
        return m < M && k < K ? a[a_transposed ? k * M + m : m * K + k] : 0;
      },
      [&](int64_t k, int64_t j) {
        const int64_t n = n0 + j;
        return n < N && k < K ? b[b_transposed ? n * K + k : k * N + n] : 0;
      });
  sum.each([&](int64_t i, int64_t j, float value) {
    const int64_t m = m0 + i, n = n0 + j;
    if (m >= M || n >= N) return;
    if (add) value += c[m * N + n];
    if (bias.p) value += bias[n];
    c.set(m * N + n, value);
  });
}

}  // namespace

void plain_gemm(const Gemm& g) {
  const auto floats = [](const void* p, DType type) {
    return Floats{const_cast<void*>(p), type == DType::bf16};
  };
  launch("matmul", plain_gemm_kernel, {ceil_div(g.M, kTile), ceil_div(g.N, kTile), 1, kTileThreads},
         floats(g.c, g.output), floats(g.a, g.inputs), floats(g.b, g.inputs), floats(g.bias, g.output), g.M,
         g.N, g.K, g.a_transposed, g.b_transposed, g.add);
}

}  // namespace burrow::cuda
