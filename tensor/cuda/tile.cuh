#pragma once
// Block-level matrix product on the CUDA cores, for any shape and any source of the operands: a block of 128
// threads owns 32 by 32 results, a thread 2 rows by 4 columns in registers; operands pass through shared
// memory. Products of whole tensors use cuBLASLt (matmul.cpp).
#include "tensor/cuda/launch.cuh"

namespace burrow::cuda {

constexpr int64_t kTile = 32;
constexpr unsigned kTileThreads = 128;

// A thread's results in a tile: rows y and y + 16, columns x, x + 8, x + 16 and x + 24.
struct TileSum {
  static constexpr int kRows = 2, kColumns = 4;
  float value[kRows][kColumns] = {};

  __device__ static int64_t row(int i) { return threadIdx.x / 8 + 16 * i; }
  __device__ static int64_t column(int k) { return threadIdx.x % 8 + 8 * k; }
  // Calls f(row, column, sum) for each result of the thread.
  template <class F>
  __device__ void each(F f) const {
    for (int i = 0; i < kRows; ++i) {
      for (int k = 0; k < kColumns; ++k) f(row(i), column(k), value[i][k]);
    }
  }
};

// sum[i,k] += sum_{j < inner} a(i, j) b(j, k), in the order of j. a and b are called for i, k < 32 and for j
// up to `inner` rounded up to 32, and must return 0 outside of their tensors.
template <class A, class B>
__device__ void tile_product(TileSum& sum, int64_t inner, A a, B b) {
  __shared__ float left[kTile][kTile + 1],
      right[kTile][kTile + 1];  // padded against bank conflicts
  for (int64_t j0 = 0; j0 < inner; j0 += kTile) {
    for (int64_t t = threadIdx.x; t < kTile * kTile; t += kTileThreads) {
      left[t / kTile][t % kTile] = a(t / kTile, j0 + t % kTile);
      right[t / kTile][t % kTile] = b(j0 + t / kTile, t % kTile);
    }
    __syncthreads();  // both tiles are loaded
    for (int j = 0; j < kTile; ++j) {
      for (int i = 0; i < TileSum::kRows; ++i) {
        for (int k = 0; k < TileSum::kColumns; ++k)
          sum.value[i][k] += left[TileSum::row(i)][j] * right[j][TileSum::column(k)];
      }
    }
    __syncthreads();  // all threads have read the tiles, which the next ones overwrite
  }
}

}  // namespace burrow::cuda
