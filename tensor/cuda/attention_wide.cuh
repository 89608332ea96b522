#pragma once
// Attention for heads too large for tiles in shared memory (D > 128), with few queries: Parrot's images
// attend with one head as wide as the model. A block owns one head of one row, one score at a time.
#include "tensor/cuda/attention_tiles.cuh"

namespace burrow::cuda {

constexpr int kWideChannels = 32;  // of a thread, so that D <= 32 * kThreads

// a . b over one head; every thread of the block gets the sum.
template <class T>
__device__ float head_dot(const T* a, const T* b, int64_t D) {
  float sum = 0;
  for (int64_t d = threadIdx.x; d < D; d += kThreads) sum += to_float(a[d]) * to_float(b[d]);
  return team_sum<kThreads>(sum);
}

// sum[i] += weight x[d] for the thread's channels.
template <class T>
__device__ void add_row(float (&sum)[kWideChannels], float weight, const T* x, int64_t D) {
  for (int i = 0; i < kWideChannels; ++i) {
    const int64_t d = threadIdx.x + int64_t{i} * kThreads;
    if (d < D) sum[i] += weight * to_float(x[d]);
  }
}
// to[d] = factor sum[i] for the thread's channels; does nothing if `to` is null.
template <class T>
__device__ void store_row(T* to, float factor, const float (&sum)[kWideChannels], int64_t D) {
  for (int i = 0; to && i < kWideChannels; ++i) {
    const int64_t d = threadIdx.x + int64_t{i} * kThreads;
    if (d < D) to[d] = static_cast<T>(factor * sum[i]);
  }
}

__device__ inline int64_t sequence_of(const int32_t* offsets, int64_t row) {
  int64_t b = 0;
  while (row >= offsets[b + 1]) ++b;
  return b;
}

// y = softmax(scale q k^T) v over the keys that a query sees;  lse[n,h] = log sum_j e^(scale q.k_j)
// in: q [Nq,H*D], k v [Nk,Hkv*D], ranges   out: y [Nq,H*D], lse f32 [Nq,H], written
// A block owns one head of a query, a thread every 256th channel; sums in f32.
template <class T>
__global__ void wide_forward_kernel(T* y, float* lse, AttentionInputs<T> in) {
  const int64_t n = blockIdx.x, h = blockIdx.y, kv = h / (in.H / in.Hkv), b = sequence_of(in.q_offsets, n);
  const int64_t at = n * in.H + h;
  float most = -std::numeric_limits<float>::infinity(), total = 0, sum[kWideChannels] = {};
  for (int64_t key = in.k_offsets[b]; key < in.k_offsets[b + 1] && in.sees(n, key); ++key) {
    const int64_t row = (key * in.Hkv + kv) * in.D;
    const float score = head_dot(in.q + at * in.D, in.k + row, in.D) * in.scale, before = most;
    most = Largest{}(score, most);
    const float kept = vector_exp(before - most), p = vector_exp(score - most);
    total = total * kept + p;
    for (float& s : sum) s *= kept;
    add_row(sum, p, in.v + row, in.D);
  }
  store_row(y + at * in.D, total > 0 ? 1 / total : 0.0f, sum, in.D);
  if (threadIdx.x == 0) lse[at] = most + std::log(total);
}

// dq_n = sum_j ds k_j  with  p = e^(scale q.k_j - lse)  and  ds = p (dy.v_j - delta) scale
// in: dy q [Nq,H*D], lse delta f32 [Nq,H], k v [Nk,Hkv*D], ranges   out: dq [Nq,H*D], written
// A block owns one head of a query, a thread every 256th channel; sums in f32.
template <class T>
__global__ void wide_query_gradient_kernel(T* dq, const T* dy, const float* lse, const float* delta,
                                           AttentionInputs<T> in) {
  const int64_t n = blockIdx.x, h = blockIdx.y, kv = h / (in.H / in.Hkv), b = sequence_of(in.q_offsets, n);
  const int64_t at = n * in.H + h;
  float sum[kWideChannels] = {};
  for (int64_t key = in.k_offsets[b]; key < in.k_offsets[b + 1] && in.sees(n, key); ++key) {
    const int64_t row = (key * in.Hkv + kv) * in.D;
    const float p = vector_exp(head_dot(in.q + at * in.D, in.k + row, in.D) * in.scale - lse[at]);
    const float dp = head_dot(dy + at * in.D, in.v + row, in.D);
    add_row(sum, p * (dp - delta[at]) * in.scale, in.k + row, in.D);
  }
  store_row(dq + at * in.D, 1, sum, in.D);
}

// dv_j = sum_n p dy_n,  dk_j = sum_n ds q_n,  with p and ds as above
// in: as above   out: dk dv [Nk,Hkv*D], written; each may be null
// A block owns one key head of a key and reads the queries of all heads that share it, in order; sums in f32.
template <class T>
__global__ void wide_key_gradient_kernel(T* dk, T* dv, const T* dy, const float* lse, const float* delta,
                                         AttentionInputs<T> in) {
  const int64_t key = blockIdx.x, kv = blockIdx.y, group = in.H / in.Hkv, b = sequence_of(in.k_offsets, key);
  const int64_t row = (key * in.Hkv + kv) * in.D;
  float sum_k[kWideChannels] = {}, sum_v[kWideChannels] = {};
  for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
    for (int64_t n = in.q_offsets[b]; n < in.q_offsets[b + 1]; ++n) {
      if (!in.sees(n, key)) continue;
      const int64_t at = n * in.H + h;
      const float p = vector_exp(head_dot(in.q + at * in.D, in.k + row, in.D) * in.scale - lse[at]);
      const float dp = head_dot(dy + at * in.D, in.v + row, in.D);
      add_row(sum_k, p * (dp - delta[at]) * in.scale, in.q + at * in.D, in.D);
      add_row(sum_v, p, dy + at * in.D, in.D);
    }
  }
  store_row(dk ? dk + row : nullptr, 1, sum_k, in.D);
  store_row(dv ? dv + row : nullptr, 1, sum_v, in.D);
}

}  // namespace burrow::cuda
