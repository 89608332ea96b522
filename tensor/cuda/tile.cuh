#pragma once
// The product of two tiles that a block stages through shared memory: 32 by 32 results, 128 threads, each
// with 2 rows by 4 columns in registers. Correct for any shape and source of the operands, on the CUDA cores;
// the products of whole tensors go to cuBLASLt (matmul.cpp).
#include "tensor/cuda/launch.cuh"

namespace burrow::cuda {

constexpr int64_t kTile = 32;
constexpr unsigned kTileThreads = 128;

// A thread's share of a tile of results: rows y and y + 16, columns x, x + 8, x + 16 and x + 24.
struct TileSum {
  static constexpr int kRows = 2, kColumns = 4;
  float value[kRows][kColumns] = {};

  __device__ static int64_t row(int i) { return threadIdx.x / 8 + 16 * i; }
  __device__ static int64_t column(int k) { return threadIdx.x % 8 + 8 * k; }
  // f(row, column, sum) for each.
  template <class F>
  __device__ void each(F f) const {
    for (int i = 0; i < kRows; ++i) {
      for (int k = 0; k < kColumns; ++k) f(row(i), column(k), value[i][k]);
    }
  }
};

// sum[i,k] += sum_{j < inner} a(i, j) b(j, k), in the order of j. a and b are read where i, k < 32 and j is
// below `inner` rounded up to 32: they give 0 outside of their tensors.
template <class A, class B>
__device__ void tile_product(TileSum& sum, int64_t inner, A a, B b) {
  __shared__ float left[kTile][kTile + 1],
      right[kTile][kTile + 1];  // a column more: no two lanes in one bank
  for (int64_t j0 = 0; j0 < inner; j0 += kTile) {
    for (int64_t t = threadIdx.x; t < kTile * kTile; t += kTileThreads) {
      left[t / kTile][t % kTile] = a(t / kTile, j0 + t % kTile);
      right[t / kTile][t % kTile] = b(j0 + t / kTile, t % kTile);
    }
    __syncthreads();  // both tiles are complete
    for (int j = 0; j < kTile; ++j) {
      for (int i = 0; i < TileSum::kRows; ++i) {
        for (int k = 0; k < TileSum::kColumns; ++k)
          sum.value[i][k] += left[TileSum::row(i)][j] * right[j][TileSum::column(k)];
      }
    }
    __syncthreads();  // all have read them: the next tiles may come
  }
}

}  // namespace burrow::cuda
