// Attention over packed segments without a library: tiles of queries and keys in shared memory, softmax as
// the tiles come (forward) or from the kept lse (backward). bf16 is multiplied on the tensor cores
// (attention_mma.cuh), f32 on the CUDA cores, here.
#include "tensor/cuda/attention_mma.cuh"
#include "tensor/cuda/attention_wide.cuh"
#include "tensor/cuda/cudnn.h"

namespace burrow::cuda {
namespace {

// A block owns a tile of queries of one head.
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
    __syncthreads();  // queries and keys are there
    float score[Tiles::kRows][Tiles::kScores] = {};
    Tiles::rows_dot_rows(score, queries, keys, in.D);
    __syncthreads();  // all have read the keys: the values may take their place
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
    __syncthreads();  // values and weights are there
    Tiles::weights_times_rows(sum, weights, keys);
    __syncthreads();  // all have read both: the next keys may come
  }
  for (int i = 0; i < Tiles::kRows; ++i) {
    const int64_t n = tile.first + Tiles::row(i);
    if (n >= tile.end) continue;
    const float inverse = total[i] > 0 ? 1 / total[i] : 0;  // a query that sees no key: 0
    for (int c = 0; c < Tiles::kChannels; ++c) {
      if (Tiles::column(c) < in.D)
        y[(n * in.H + h) * in.D + Tiles::column(c)] = static_cast<T>(sum[i][c] * inverse);
    }
    if (Tiles::column(0) == 0) lse[n * in.H + h] = most[i] + std::log(total[i]);
  }
}

// delta[n,h] = dy.y. A warp owns a head of a row.
template <class T>
__global__ void delta_kernel(float* delta, const T* dy, const T* y, int64_t heads, int64_t D) {
  const int64_t i = team_row<32>();
  if (i >= heads) return;
  float sum = 0;
  for (int64_t d = team_rank<32>(); d < D; d += 32) sum += to_float(dy[i * D + d]) * to_float(y[i * D + d]);
  sum = team_sum<32>(sum);
  if (team_rank<32>() == 0) delta[i] = sum;
}

// A block owns a tile of queries of one head and takes the keys in order.
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
    __syncthreads();  // all tiles are there
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
    __syncthreads();  // the score gradients are there
    Tiles::weights_times_rows(sum, gradients, keys);
    __syncthreads();  // all have read them: the next keys may come
  }
  store_rows<Tiles>(dq, sum, tile, in.H, h, in.D);
}

// A block owns a tile of keys of one key head and takes the queries of all heads that share it, in order.
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
      __syncthreads();  // all tiles are there
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
      __syncthreads();  // weights and score gradients are there
      Tiles::weights_times_rows(sum_v, weights, cotangents);
      Tiles::weights_times_rows(sum_k, gradients, queries);
      __syncthreads();  // all have read them: the next queries may come
    }
  }
  store_rows<Tiles>(dk, sum_k, tile, in.Hkv, kv, in.D);
  store_rows<Tiles>(dv, sum_v, tile, in.Hkv, kv, in.D);
}

// The gradients' kernels for a type and a size of head, and how many rows their blocks own.
template <int DM, class T>
struct GradientKernels {
  static constexpr int kRows = DM > 64 ? 16 : 32;  // four tiles must fit the 48 KB of shared memory
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
               "[{}] {} heads of size {} over {} heads of keys", op, s.heads, s.head_size, s.kv_heads);
  BURROW_CHECK(s.head_size <= kWideChannels * kThreads, "[{}] heads of {}: on CUDA at most {}", op,
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

// Blocks for tiles of N rows that do not straddle B sequences: the most there may be.
int64_t tile_slots(int64_t N, int64_t B, int64_t rows) { return N == 0 ? 0 : N / rows + B; }

}  // namespace

// y = softmax(scale q k^T) v over the keys that a query sees;  lse[n,h] = log sum_j e^(scale q.k_j)
// in: q [Nq,H*D], k v [Nk,Hkv*D], ranges, shape   out: y [Nq,H*D], lse f32 [Nq,H], written; a query that sees
// no key gives y = 0 and lse = -infinity
// A block owns 32 queries of a head, a thread 4 by D/16 results; keys pass 32 at a time; sums in f32.
// A block of bf16 owns 128 queries, a warp 32 of them; keys pass 32 at a time; p is summed in f32 and rounded
// to bf16 where it is multiplied.
// Positions must ascend within a sequence. Heads above 128 have a block a row, and are at most 8192.
// Source: Dao et al., FlashAttention, 2022 (online softmax, lse for the backward).
// Source: Dao, FlashAttention-2, 2023 (what a warp owns; scores stay in registers).
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

// With p = e^(scale q.k - lse) and delta[n,h] = dy.y:  dv_j = sum_n p dy_n,  ds = p (dy.v_j - delta) scale,
// dq_n = sum_j ds k_j,  dk_j = sum_n ds q_n
// in: dy y q [Nq,H*D], lse f32 [Nq,H], k v [Nk,Hkv*D], ranges, shape
// out: dq [Nq,H*D], dk dv [Nk,Hkv*D], written; each or undefined
// A block owns 32 (D > 64: 16) queries of a head for dq, as many keys of a key head for dk and dv, and
// takes the other side in order: no two blocks add to one element; sums in f32.
// A block of bf16 owns 64 rows, a warp 16 of them; the other side passes 32 rows at a time; p and ds / scale
// are rounded to bf16 before they are multiplied.
// Positions must ascend within a sequence. Heads above 128 have a block a row, and are at most 8192.
// Source: Dao et al., FlashAttention, 2022 (recomputation from lse).
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
