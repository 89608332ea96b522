// Attention over packed sequences: the f32 kernels for heads up to 128, and the launchers for every case.
// bf16 is in attention_mma.cuh, larger heads in attention_wide.cuh, and cuDNN's version, where requested, in
// cudnn.cpp. A block owns a tile of rows of one head and iterates over the tiles of the other side in shared
// memory. Softmax is computed online (forward) or from the stored lse (backward).
#include "tensor/cuda/attention_mma.cuh"
#include "tensor/cuda/attention_wide.cuh"
#include "tensor/cuda/cudnn.h"

namespace burrow::cuda {
namespace {

// y = softmax(scale q k^T) v over the keys that a query sees;  lse[n,h] = log sum_j e^(scale q.k_j)
// in: q [Nq,H*D], k v [Nk,Hkv*D], ranges   out: y [Nq,H*D], lse f32 [Nq,H], written; a query that sees no
// key gets y = 0 and lse = -infinity
// A block owns BT queries of a head, a thread BT/8 of them by DM/16 channels; BT keys at a time; sums in f32.
// D <= DM; positions must ascend within a sequence.
// Source: Dao et al., FlashAttention, 2022 (online softmax, lse for the backward).
template <int BT, int DM, class T>
__global__ void forward_kernel(T* y, float* lse, AttentionInputs<T> in) {
  using Tiles = AttentionTiles<BT, DM>;
  __shared__ float queries[BT][DM + 1], keys[BT][DM + 1], weights[BT][BT + 1];
  const int64_t h = blockIdx.y, kv = h / (in.H / in.Hkv);
  const Tile tile = find_tile<BT>(in.q_offsets, in.B, blockIdx.x);
  if (tile.first == tile.end) return;
  const int64_t k_begin = in.k_offsets[tile.sequence], k_end = in.k_offsets[tile.sequence + 1];
  load_rows<BT, DM>(queries, in.q, tile.first, tile.end, in.H, h, in.D);
  float most[Tiles::kRows], total[Tiles::kRows] = {}, sum[Tiles::kRows][Tiles::kChannels] = {};
  for (float& m : most) m = -std::numeric_limits<float>::infinity();
  for (int64_t k0 = k_begin; k0 < k_end && !in.none_seen(tile, k0); k0 += BT) {
    load_rows<BT, DM>(keys, in.k, k0, k_end, in.Hkv, kv, in.D);
    __syncthreads();  // queries and keys are loaded
    float score[Tiles::kRows][Tiles::kScores] = {};
    Tiles::rows_dot_rows(score, queries, keys, in.D);
    __syncthreads();  // all threads have read the keys, which the values overwrite
    load_rows<BT, DM>(keys, in.v, k0, k_end, in.Hkv, kv, in.D);
    for (int i = 0; i < Tiles::kRows; ++i) {
      const int64_t n = tile.first + Tiles::row(i);
      float row_most = most[i];
      for (int j = 0; j < Tiles::kScores; ++j) {
        const int64_t key = k0 + Tiles::column(j);
        const bool seen = n < tile.end && key < k_end && in.sees(n, key);
        score[i][j] = seen ? score[i][j] * in.scale : -std::numeric_limits<float>::infinity();
        row_most = Largest{}(score[i][j], row_most);
      }
      row_most = Tiles::row_reduce(row_most, Largest{});
      const bool none = row_most == -std::numeric_limits<float>::infinity();
      const float kept = none ? 1 : vector_exp(most[i] - row_most);
      float row_total = 0;
      for (int j = 0; j < Tiles::kScores; ++j) {
        const float p = none ? 0 : vector_exp(score[i][j] - row_most);
        weights[Tiles::row(i)][Tiles::column(j)] = p;
        row_total += p;
      }
      total[i] = total[i] * kept + Tiles::row_reduce(row_total, Sum{});
      for (float& s : sum[i]) s *= kept;
      most[i] = row_most;
    }
    __syncthreads();  // values and weights are loaded
    Tiles::weights_times_rows(sum, weights, keys);
    __syncthreads();  // all threads have read both, which the next iteration overwrites
  }
  for (int i = 0; i < Tiles::kRows; ++i) {
    const int64_t n = tile.first + Tiles::row(i);
    if (n >= tile.end) continue;
    const float inverse = total[i] > 0 ? 1 / total[i] : 0;  // 0 for a query that sees no key
    for (int c = 0; c < Tiles::kChannels; ++c) {
      if (Tiles::column(c) < in.D)
        y[(n * in.H + h) * in.D + Tiles::column(c)] = static_cast<T>(sum[i][c] * inverse);
    }
    if (Tiles::column(0) == 0) lse[n * in.H + h] = most[i] + std::log(total[i]);
  }
}

// delta[n,h] = sum_d dy[n,h,d] y[n,h,d]
// in: dy y [Nq,H*D]   out: delta f32 [Nq,H], written
// A warp owns one head of a row; sums in f32.
template <class T>
__global__ void delta_kernel(float* delta, const T* dy, const T* y, int64_t heads, int64_t D) {
  const int64_t i = team_row<32>();
  if (i >= heads) return;
  float sum = 0;
  for (int64_t d = team_rank<32>(); d < D; d += 32) sum += to_float(dy[i * D + d]) * to_float(y[i * D + d]);
  sum = team_sum<32>(sum);
  if (team_rank<32>() == 0) delta[i] = sum;
}

// dq_n = sum_j ds k_j  with  p = e^(scale q.k_j - lse)  and  ds = p (dy.v_j - delta) scale
// in: dy q [Nq,H*D], lse delta f32 [Nq,H], k v [Nk,Hkv*D], ranges   out: dq [Nq,H*D], written
// A block owns BT queries of a head, a thread BT/8 of them by DM/16 channels; keys in order; sums in f32.
// Source: Dao et al., FlashAttention, 2022 (recomputation from lse).
template <int BT, int DM, class T>
__global__ void query_gradient_kernel(T* dq, const T* dy, const float* lse, const float* delta,
                                      AttentionInputs<T> in) {
  using Tiles = AttentionTiles<BT, DM>;
  __shared__ float queries[BT][DM + 1], cotangents[BT][DM + 1], keys[BT][DM + 1], values[BT][DM + 1],
      gradients[BT][BT + 1];
  const int64_t h = blockIdx.y, kv = h / (in.H / in.Hkv);
  const Tile tile = find_tile<BT>(in.q_offsets, in.B, blockIdx.x);
  if (tile.first == tile.end) return;
  const int64_t k_begin = in.k_offsets[tile.sequence], k_end = in.k_offsets[tile.sequence + 1];
  load_rows<BT, DM>(queries, in.q, tile.first, tile.end, in.H, h, in.D);
  load_rows<BT, DM>(cotangents, dy, tile.first, tile.end, in.H, h, in.D);
  float sum[Tiles::kRows][Tiles::kChannels] = {};
  for (int64_t k0 = k_begin; k0 < k_end && !in.none_seen(tile, k0); k0 += BT) {
    load_rows<BT, DM>(keys, in.k, k0, k_end, in.Hkv, kv, in.D);
    load_rows<BT, DM>(values, in.v, k0, k_end, in.Hkv, kv, in.D);
    __syncthreads();  // all tiles are loaded
    float score[Tiles::kRows][Tiles::kScores] = {}, dp[Tiles::kRows][Tiles::kScores] = {};
    Tiles::rows_dot_rows(score, queries, keys, in.D);
    Tiles::rows_dot_rows(dp, cotangents, values, in.D);
    for (int i = 0; i < Tiles::kRows; ++i) {
      const int64_t n = tile.first + Tiles::row(i);
      for (int j = 0; j < Tiles::kScores; ++j) {
        const int64_t key = k0 + Tiles::column(j);
        const bool seen = n < tile.end && key < k_end && in.sees(n, key);
        const int64_t at = n * in.H + h;
        gradients[Tiles::row(i)][Tiles::column(j)] =
            seen ? vector_exp(score[i][j] * in.scale - lse[at]) * (dp[i][j] - delta[at]) * in.scale : 0;
      }
    }
    __syncthreads();  // the score gradients are stored
    Tiles::weights_times_rows(sum, gradients, keys);
    __syncthreads();  // all threads have read the tiles, which the next iteration overwrites
  }
  store_rows<Tiles>(dq, sum, tile, in.H, h, in.D);
}

// dv_j = sum_n p dy_n,  dk_j = sum_n ds q_n,  with p and ds as above
// in: as above   out: dk dv [Nk,Hkv*D], written; each may be null
// A block owns BT keys of a key head and reads the queries of all heads that share it, in order, so that no
// two blocks add to one element; a thread owns BT/8 rows by DM/16 channels of dk and dv; sums in f32.
template <int BT, int DM, class T>
__global__ void key_gradient_kernel(T* dk, T* dv, const T* dy, const float* lse, const float* delta,
                                    AttentionInputs<T> in) {
  using Tiles = AttentionTiles<BT, DM>;
  __shared__ float queries[BT][DM + 1], cotangents[BT][DM + 1], keys[BT][DM + 1], values[BT][DM + 1],
      weights[BT][BT + 1], gradients[BT][BT + 1];
  const int64_t kv = blockIdx.y, group = in.H / in.Hkv;
  const Tile tile = find_tile<BT>(in.k_offsets, in.B, blockIdx.x);
  if (tile.first == tile.end) return;
  const int64_t q_begin = in.q_offsets[tile.sequence], q_end = in.q_offsets[tile.sequence + 1];
  load_rows<BT, DM>(keys, in.k, tile.first, tile.end, in.Hkv, kv, in.D);
  load_rows<BT, DM>(values, in.v, tile.first, tile.end, in.Hkv, kv, in.D);
  float sum_k[Tiles::kRows][Tiles::kChannels] = {}, sum_v[Tiles::kRows][Tiles::kChannels] = {};
  for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
    for (int64_t q0 = q_begin; q0 < q_end; q0 += BT) {
      const Tile asking{tile.sequence, q0, q0 + BT < q_end ? q0 + BT : q_end};
      if (in.none_seen(asking, tile.first)) continue;
      load_rows<BT, DM>(queries, in.q, q0, q_end, in.H, h, in.D);
      load_rows<BT, DM>(cotangents, dy, q0, q_end, in.H, h, in.D);
      __syncthreads();  // all tiles are loaded
      float score[Tiles::kRows][Tiles::kScores] = {}, dp[Tiles::kRows][Tiles::kScores] = {};
      Tiles::rows_dot_rows(score, keys, queries, in.D);
      Tiles::rows_dot_rows(dp, values, cotangents, in.D);
      for (int i = 0; i < Tiles::kRows; ++i) {
        const int64_t key = tile.first + Tiles::row(i);
        for (int j = 0; j < Tiles::kScores; ++j) {
          const int64_t n = q0 + Tiles::column(j);
          const bool seen = n < q_end && key < tile.end && in.sees(n, key);
          const int64_t at = n * in.H + h;
          const float p = seen ? vector_exp(score[i][j] * in.scale - lse[at]) : 0;
          weights[Tiles::row(i)][Tiles::column(j)] = p;
          gradients[Tiles::row(i)][Tiles::column(j)] = seen ? p * (dp[i][j] - delta[at]) * in.scale : 0;
        }
      }
      __syncthreads();  // weights and score gradients are stored
      Tiles::weights_times_rows(sum_v, weights, cotangents);
      Tiles::weights_times_rows(sum_k, gradients, queries);
      __syncthreads();  // all threads have read the tiles, which the next iteration overwrites
    }
  }
  store_rows<Tiles>(dk, sum_k, tile, in.Hkv, kv, in.D);
  store_rows<Tiles>(dv, sum_v, tile, in.Hkv, kv, in.D);
}

// The gradient kernels for a dtype and a head size, and the rows that a block owns.
template <int DM, class T>
struct GradientKernels {
  static constexpr int kRows = DM > 64 ? 16 : 32;  // four tiles must fit into 48 KB of shared memory
  static constexpr auto of_queries = query_gradient_kernel<kRows, DM, T>;
  static constexpr auto of_keys = key_gradient_kernel<kRows, DM, T>;
};
template <int DM>
struct GradientKernels<DM, bf16> {
  static constexpr int kRows = kOwned;
  static constexpr auto of_queries = mma_query_gradient_kernel<DM>;
  static constexpr auto of_keys = mma_key_gradient_kernel<DM>;
};

template <class T>
AttentionInputs<T> inputs_of(const char* op, const Tensor& q, const Tensor& k, const Tensor& v,
                             const AttentionRanges& r, const AttentionShape& s) {
  const int64_t Nq = leading(q), Nk = leading(k);
  BURROW_CHECK(s.heads > 0 && s.kv_heads > 0 && s.head_size > 0 && s.heads % s.kv_heads == 0,
               "[{}] {} heads of size {} are not a multiple of {} key heads", op, s.heads, s.head_size,
               s.kv_heads);
  BURROW_CHECK(s.head_size <= kWideChannels * kThreads, "[{}] head size {}, at most {} on CUDA", op,
               s.head_size, kWideChannels * kThreads);
  check_matrix(op, "q", q, DTypeOf<T>::value, Nq, s.heads * s.head_size);
  check_matrix(op, "k", k, DTypeOf<T>::value, Nk, s.kv_heads * s.head_size);
  check_matrix(op, "v", v, DTypeOf<T>::value, Nk, s.kv_heads * s.head_size);
  check_vector(op, "q_offsets", r.q_offsets, DType::i32, std::max<int64_t>(r.k_offsets.numel(), 1));
  check_vector(op, "q_positions", r.q_positions, DType::i32, Nq);
  check_vector(op, "k_positions", r.k_positions, DType::i32, Nk);
  return {device_data<T>(q),
          device_data<T>(k),
          device_data<T>(v),
          device_data<int32_t>(r.q_offsets),
          device_data<int32_t>(r.k_offsets),
          device_data<int32_t>(r.q_positions),
          device_data<int32_t>(r.k_positions),
          r.q_offsets.numel() - 1,
          s.heads,
          s.kv_heads,
          s.head_size,
          s.causal,
          static_cast<float>(s.scale)};
}

// An upper bound on the tiles of N rows in B sequences, where no tile spans two sequences.
int64_t tile_slots(int64_t N, int64_t B, int64_t rows) { return N == 0 ? 0 : N / rows + B; }

}  // namespace

// Runs cuDNN if requested and possible, else wide_forward_kernel for D > 128 (at most 8192),
// mma_forward_kernel for bf16, forward_kernel for f32.
void attention(Tensor& y, Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
               const AttentionRanges& ranges, const AttentionShape& shape) {
  const char* op = "attention";
  check_same(op, "y", y, "q", q);
  check_vector(op, "lse", lse, DType::f32, leading(q) * shape.heads);
  if (attention_by_cudnn(y, lse, q, k, v, ranges, shape)) return;
  visit_device(op, q.dtype(), [&]<class T>(T) {
    const auto in = inputs_of<T>(op, q, k, v, ranges, shape);
    if (in.D > kMostTiled) {
      launch(op, wide_forward_kernel<T>, {leading(q), in.H}, device_data<T>(y), device_data<float>(lse), in);
      return;
    }
    visit_head_size(in.D, [&]<int DM>(std::integral_constant<int, DM>) {
      if constexpr (std::is_same_v<T, bf16>)
        launch(op, mma_forward_kernel<DM>,
               {tile_slots(leading(q), in.B, kAsking), in.H, 1, kAttentionThreads}, device_data<T>(y),
               device_data<float>(lse), in);
      else
        launch(op, forward_kernel<32, DM, T>, {tile_slots(leading(q), in.B, 32), in.H, 1, kAttentionThreads},
               device_data<T>(y), device_data<float>(lse), in);
    });
  });
}

// Chooses the kernels as attention does. delta is computed first; dq, and dk with dv, have a kernel each,
// launched only where the gradient is defined.
void attention_backward(Tensor& dq, Tensor& dk, Tensor& dv, const Tensor& dy, const Tensor& y,
                        const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                        const AttentionRanges& ranges, const AttentionShape& shape) {
  const char* op = "attention_backward";
  check_same(op, "dy", dy, "q", q);
  check_same(op, "y", y, "q", q);
  const int64_t heads = leading(q) * shape.heads;
  check_vector(op, "lse", lse, DType::f32, heads);
  if (dq.defined()) check_same(op, "dq", dq, "q", q);
  if (dk.defined()) check_same(op, "dk", dk, "k", k);
  if (dv.defined()) check_same(op, "dv", dv, "v", v);
  if (attention_backward_by_cudnn(dq, dk, dv, dy, y, lse, q, k, v, ranges, shape)) return;
  visit_device(op, q.dtype(), [&]<class T>(T) {
    const auto in = inputs_of<T>(op, q, k, v, ranges, shape);
    const T* g = device_data<T>(dy);
    const float* log_sums = device_data<float>(lse);
    const Scratch<float> delta(heads);
    launch(op, delta_kernel<T>, teams<32>(heads), delta.data(), g, device_data<T>(y), heads, in.D);
    if (in.D > kMostTiled) {
      if (dq.defined())
        launch(op, wide_query_gradient_kernel<T>, {leading(q), in.H}, device_data<T>(dq), g, log_sums,
               delta.data(), in);
      if (dk.defined() || dv.defined())
        launch(op, wide_key_gradient_kernel<T>, {leading(k), in.Hkv}, device_data<T>(dk), device_data<T>(dv),
               g, log_sums, delta.data(), in);
      return;
    }
    visit_head_size(in.D, [&]<int DM>(std::integral_constant<int, DM>) {
      using Kernels = GradientKernels<DM, T>;
      const int64_t q_slots = tile_slots(leading(q), in.B, Kernels::kRows),
                    k_slots = tile_slots(leading(k), in.B, Kernels::kRows);
      if (dq.defined())
        launch(op, Kernels::of_queries, {q_slots, in.H, 1, kAttentionThreads}, device_data<T>(dq), g,
               log_sums, delta.data(), in);
      if (dk.defined() || dv.defined())
        launch(op, Kernels::of_keys, {k_slots, in.Hkv, 1, kAttentionThreads}, device_data<T>(dk),
               device_data<T>(dv), g, log_sums, delta.data(), in);
    });
  });
}

}  // namespace burrow::cuda
