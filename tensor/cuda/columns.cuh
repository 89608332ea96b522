#pragma once
// Sums over rows, one for each channel, in a fixed order: the gradients of biases and of norm weights.
// Two launches: blocks sum chunks of rows, then a thread adds the chunk sums of one channel.
#include "tensor/cuda/team.cuh"
#include "tensor/cuda/values.cuh"

namespace burrow::cuda {

constexpr int64_t kColumns = 32, kRowLanes = kThreads / kColumns;  // a block's threads: 32 channels, 8 rows
constexpr int64_t kMostChunks = 128;                               // of rows, each with partial sums

// partial[chunk, c] = sum over the chunk's rows n of value(n, c)
// in: value(n, c), a functor, for N rows and C channels   out: partial f32 [chunks,C], written
// A block owns 32 channels of a chunk; a thread sums every eighth row of one channel, and the eight sums are
// added in order; sums in f32.
template <class F>
__global__ void partial_column_sums(float* partial, F value, int64_t N, int64_t C, int64_t chunk_rows) {
  __shared__ float sums[kRowLanes][kColumns];
  const int64_t lane = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
  const int64_t c = blockIdx.x * kColumns + column, begin = blockIdx.y * chunk_rows;
  const int64_t end = begin + chunk_rows < N ? begin + chunk_rows : N;
  float sum = 0;
  for (int64_t n = begin + lane; c < C && n < end; n += kRowLanes) sum += value(n, c);
  sums[lane][column] = sum;
  __syncthreads();  // all threads have written; the first row of threads reads
  if (lane != 0 || c >= C) return;
  for (int64_t i = 1; i < kRowLanes; ++i) sum += sums[i][column];
  partial[blockIdx.y * C + c] = sum;
}

// y[c] = (or +=) sum over chunks of partial[chunk, c], in order
// in: partial f32 [chunks,C]   out: y f32 or bf16 [C]
// A thread owns a channel; sums in f32.
__global__ static void finish_column_sums(Floats y, const float* partial, int64_t chunks, int64_t C,
                                          bool add) {
  const int64_t c = first_element();
  if (c >= C) return;
  float sum = 0;
  for (int64_t k = 0; k < chunks; ++k) sum += partial[k * C + c];
  y.set(c, add ? y[c] + sum : sum);
}

// y[c] = (or +=) sum_n value(n, c); value is a device functor; sums in f32.
template <class F>
void column_sums(const char* op, Floats y, F value, int64_t N, int64_t C, bool add) {
  const int64_t chunk_rows = std::max<int64_t>(64, ceil_div(N, kMostChunks));
  const int64_t chunks = ceil_div(N, chunk_rows);
  const Scratch<float> partial(chunks * C);
  launch(op, partial_column_sums<F>, {ceil_div(C, kColumns), chunks}, partial.data(), value, N, C,
         chunk_rows);
  launch(op, finish_column_sums, {ceil_div(C, kThreads)}, y, partial.data(), chunks, C, add);
}

}  // namespace burrow::cuda
