#pragma once
// Attention of bf16 with heads up to 128 on the tensor cores: tiles in shared memory as bf16, scores and
// weights in registers, every sum in f32. A block is 4 warps, each owns 16 or 32 rows of a head; the other
// side passes through shared memory in tiles of 32 rows, the next tile copied during the current product.
// Shared memory bounds the speed: every warp reads every passing tile.
#include "tensor/cuda/attention_tiles.cuh"
#include "tensor/cuda/mma.cuh"

namespace burrow::cuda {

// Rows of a forward block, of a backward block, and of a passing tile. For DM = 128 (256 bytes a row) a
// forward block holds 128 + 2 * 32 rows, a backward block 2 * 64 + 2 * 32: 48 KB, the static limit.
constexpr int kAsking = 128, kOwned = 64, kPassing = 32;
// Resident blocks per SM: 2 allow a thread 255 registers, 3 allow 168.
template <int DM>
constexpr int kBlocks = DM > 64 ? 2 : 3;

constexpr float kLog2e = 1.44269504f, kLn2 = 0.693147181f;

// 2^x with an error of at most 2 ulp; 0 below 2^-126.
__device__ inline float exp2_near(float x) {
#ifdef BURROW_CUDA_EMULATED
  return std::exp2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// The `rows` rows of its block's tile that a warp owns; empty beyond the end.
__device__ inline Tile warp_tile(const Tile& block, int rows) {
  const int64_t first = block.first + static_cast<int>(threadIdx.x / 32) * rows, end = first + rows;
  return {block.sequence, first, end < block.end ? end : block.end};
}
__device__ inline bool empty(const Tile& tile) { return tile.first >= tile.end; }
// The i-th (0 or 1) of a lane's two rows among 16 from `first` on. Beyond the end, where rows are 0 and
// results are not stored, the last row, so that it can index lse and positions.
__device__ inline int64_t held_row(int64_t first, int i, int64_t end) {
  const int64_t n = first + lane_group() + 8 * i;
  return n < end ? n : end - 1;
}

// Loads rows [first, end) of one of `heads` heads of D elements, zero-padded to Rows by DM.
template <int Rows, int DM>
__device__ void load_head(SharedRows<DM> to, const bf16* from, int64_t first, int64_t end, int64_t heads,
                          int64_t head, int64_t D) {
  load_rows<Rows, kAttentionThreads>(to, from + (first * heads + head) * D, heads * D, end - first, D);
}

// score [16M,8N] = the warp's 16M rows of a times the 8N rows of b, summed over the channels in order.
template <int M, int N, int DM>
__device__ void rows_dot_rows(MatrixC (&score)[M][N], const SharedRows<DM>& a, const SharedRows<DM>& b) {
  const int first = static_cast<int>(threadIdx.x / 32) * 16 * M;
#pragma unroll
  for (int j = 0; j < M * N; ++j) score[j / N][j % N] = {};
#pragma unroll 4
  for (int d = 0; d < DM; d += 16) {
    MatrixA left[M];
#pragma unroll
    for (int m = 0; m < M; ++m) left[m] = load_a(a, first + 16 * m, d);
#pragma unroll
    for (int j = 0; j < N; j += 2) {
      const MatrixB2 right = load_b_turned(b, 8 * j, d);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        multiply(score[m][j], left[m], right.left);
        multiply(score[m][j + 1], left[m], right.right);
      }
    }
  }
}

// sum [16M,8N] += w [16M,16K] x [16K,8N], in the order of the rows of x.
template <int M, int N, int K, int DM>
__device__ void add_weighted_rows(MatrixC (&sum)[M][N], const MatrixA (&w)[M][K], const SharedRows<DM>& x) {
#pragma unroll
  for (int k = 0; k < K; ++k) {
#pragma unroll
    for (int j = 0; j < N; j += 2) {
      const MatrixB2 right = load_b(x, 16 * k, 8 * j);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        multiply(sum[m][j], w[m][k], right.left);
        multiply(sum[m][j + 1], w[m][k], right.right);
      }
    }
  }
}

// Stores sum, each row times its factor, in the 16 rows [first, end) of a head; does nothing if `to` is null.
template <int N>
__device__ void store_held(bf16* to, const MatrixC (&sum)[N], const float (&factor)[2], int64_t first,
                           int64_t end, int64_t heads, int64_t head, int64_t D) {
  if (!to) return;
  const bool in_pairs = (reinterpret_cast<uintptr_t>(to) | 2 * D) % 4 == 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int64_t n = first + lane_group() + 8 * i;
    bf16* row = to + (n * heads + head) * D;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int column = 8 * j + 2 * lane_of_group();
      if (n >= end || column >= D) continue;
      const uint32_t pair = pack(sum[j].value[2 * i] * factor[i], sum[j].value[2 * i + 1] * factor[i]);
      if (in_pairs) {
        *reinterpret_cast<uint32_t*>(row + column) = pair;
      } else {
        row[column].bits = static_cast<uint16_t>(pair);
        if (column + 1 < D) row[column + 1].bits = static_cast<uint16_t>(pair >> 16);
      }
    }
  }
}

// The online softmax of a lane's two rows: the largest score so far, and this lane's part of the sum.
struct RunningSoftmax {
  float most[2] = {-std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  float total[2] = {};

  // Reduces over the four lanes that share a row.
  template <class Combine>
  __device__ static float row_reduce(float value, Combine combine) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, 1));
    return combine(value, __shfl_xor_sync(kAllLanes, value, 2));
  }

  // Replaces scores (base 2) by weights e^(score - max), and rescales the earlier sums to the new maximum.
  template <int N, int C>
  __device__ void take(MatrixC (&score)[N], MatrixC (&sum)[C]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float row_most = most[i];
#pragma unroll
      for (int j = 0; j < 2 * N; ++j) row_most = Largest{}(score[j / 2].value[2 * i + j % 2], row_most);
      row_most = row_reduce(row_most, Largest{});
      const bool none = row_most == -std::numeric_limits<float>::infinity();
      const float base = none ? 0 : row_most, kept = exp2_near(most[i] - base);
      total[i] *= kept;
#pragma unroll
      for (int j = 0; j < 2 * N; ++j) {
        float& s = score[j / 2].value[2 * i + j % 2];
        s = exp2_near(s - base);
        total[i] += s;
      }
#pragma unroll
      for (int c = 0; c < 2 * C; ++c) sum[c / 2].value[2 * i + c % 2] *= kept;
      most[i] = row_most;
    }
  }

  // Stores y = sum / total and lse for the 16 rows [first, end) of a head; 0 and -infinity if none was seen.
  template <int C>
  __device__ void store(bf16* y, float* lse, const MatrixC (&sum)[C], int64_t first, int64_t end,
                        int64_t heads, int64_t head, int64_t D) const {
    float inverse[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float all = row_reduce(total[i], Sum{});
      const int64_t n = first + lane_group() + 8 * i;
      inverse[i] = all > 0 ? 1 / all : 0;
      if (n < end && lane_of_group() == 0) lse[n * heads + head] = most[i] * kLn2 + std::log(all);
    }
    store_held(y, sum, inverse, first, end, heads, head, D);
  }
};

// Sets the scores of the 16 rows [first, end) with keys from k0 on to -infinity where hidden or >= k_end.
template <int N>
__device__ void hide(MatrixC (&score)[N], const AttentionInputs<bf16>& in, int64_t first, int64_t end,
                     int64_t k0, int64_t k_end) {
  const int32_t sees_to[2] = {in.last_seen(held_row(first, 0, end)), in.last_seen(held_row(first, 1, end))};
  each_held<N>([&](int j, int e, int, int column) {
    if (k0 + column >= k_end || in.k_positions[k0 + column] > sees_to[e / 2])
      score[j].value[e] = -std::numeric_limits<float>::infinity();
  });
}

// y = P v / (P 1),  lse = m + log(P 1)  with  P = e^(scale q k^T - m),  m the largest score of a row so far
// in: q bf16 [Nq,H*D], k v bf16 [Nk,Hkv*D], ranges   out: y bf16 [Nq,H*D], lse f32 [Nq,H], written
// A block owns 128 queries of one head, a warp 32 of them; keys pass in order, 32 at a time.
// P is summed in f32 and rounded to bf16 for the product P v, which sums in f32.
// D <= DM; positions must ascend within a sequence.
// Source: Dao, FlashAttention-2, 2023 (rows split among warps; scores stay in registers).
template <int DM>
__global__ void __launch_bounds__(kAttentionThreads, kBlocks<DM>)
    mma_forward_kernel(bf16* y, float* lse, AttentionInputs<bf16> in) {
  constexpr int M = 2, KT = kPassing;
  __shared__ Chunk own[kAsking * DM / 8], passing[2][KT * DM / 8];
  const SharedRows<DM> queries{own}, keys{passing[0]}, values{passing[1]};
  const int64_t h = blockIdx.y, kv = h / (in.H / in.Hkv);
  const Tile tile = find_tile<kAsking>(in.q_offsets, in.B, blockIdx.x), mine = warp_tile(tile, 16 * M);
  if (empty(tile)) return;
  const int64_t k_begin = in.k_offsets[tile.sequence], k_end = in.k_offsets[tile.sequence + 1];
  const auto seen = [&](int64_t k0) { return k0 < k_end && !in.none_seen(tile, k0); };
  load_head<kAsking>(queries, in.q, tile.first, tile.end, in.H, h, in.D);
  load_head<KT>(keys, in.k, k_begin, k_end, in.Hkv, kv, in.D);
  finish_copies();
  __syncthreads();  // queries and the first keys are loaded
  MatrixC sum[M][DM / 8] = {};
  RunningSoftmax softmax[M];
  bool more = seen(k_begin);
  for (int64_t k0 = k_begin; more; k0 += KT) {
    load_head<KT>(values, in.v, k0, k_end, in.Hkv, kv, in.D);
    const bool asks = !empty(mine) && !in.none_seen(mine, k0);
    MatrixC score[M][KT / 8];
    if (asks) rows_dot_rows(score, queries, keys);
    finish_copies();
    __syncthreads();  // the values are loaded, and all threads have read the keys
    more = seen(k0 + KT);
    if (more) load_head<KT>(keys, in.k, k0 + KT, k_end, in.Hkv, kv, in.D);
    if (asks) {
      MatrixA weights[M][KT / 16];
      const bool whole = k0 + KT <= k_end && in.all_see(mine, k0 + KT - 1);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        each_held<KT / 8>([&](int j, int e, int, int) { score[m][j].value[e] *= in.scale * kLog2e; });
        if (!whole) hide(score[m], in, mine.first + 16 * m, mine.end, k0, k_end);
        softmax[m].take(score[m], sum[m]);
        as_factor(weights[m], score[m]);
      }
      add_weighted_rows(sum, weights, values);
    }
    finish_copies();
    __syncthreads();  // the next keys are loaded, and all threads have read the values
  }
#pragma unroll
  for (int m = 0; m < M; ++m) softmax[m].store(y, lse, sum[m], mine.first + 16 * m, mine.end, in.H, h, in.D);
}

// dq = scale dS k  with  dS = P (dy v^T - delta),  P = e^(scale q k^T - lse)
// in: dy q bf16 [Nq,H*D], lse delta f32 [Nq,H], k v bf16 [Nk,Hkv*D], ranges   out: dq bf16 [Nq,H*D], written
// A block owns 64 queries of one head, a warp 16 of them; keys pass in order, 32 at a time.
// dS is rounded to bf16 for the product dS k, which sums in f32.
template <int DM>
__global__ void __launch_bounds__(kAttentionThreads, 3)
    mma_query_gradient_kernel(bf16* dq, const bf16* dy, const float* lse, const float* delta,
                              AttentionInputs<bf16> in) {
  constexpr int KT = kPassing;
  __shared__ Chunk own[2][kOwned * DM / 8], passing[2][KT * DM / 8];
  const SharedRows<DM> queries{own[0]}, cotangents{own[1]}, keys{passing[0]}, values{passing[1]};
  const int64_t h = blockIdx.y, kv = h / (in.H / in.Hkv);
  const Tile tile = find_tile<kOwned>(in.q_offsets, in.B, blockIdx.x), mine = warp_tile(tile, 16);
  if (empty(tile)) return;
  const int64_t k_begin = in.k_offsets[tile.sequence], k_end = in.k_offsets[tile.sequence + 1];
  const auto seen = [&](int64_t k0) { return k0 < k_end && !in.none_seen(tile, k0); };
  load_head<kOwned>(queries, in.q, tile.first, tile.end, in.H, h, in.D);
  load_head<kOwned>(cotangents, dy, tile.first, tile.end, in.H, h, in.D);
  load_head<KT>(values, in.v, k_begin, k_end, in.Hkv, kv, in.D);
  float log_sum[2], dot[2];  // of the lane's rows
  for (int i = 0; i < 2 && !empty(mine); ++i) {
    const int64_t at = held_row(mine.first, i, mine.end) * in.H + h;
    // A row that sees no key has lse = -infinity; 0 instead gives weights of 0 rather than NaN.
    log_sum[i] = lse[at] == -std::numeric_limits<float>::infinity() ? 0 : lse[at] * kLog2e;
    dot[i] = delta[at];
  }
  finish_copies();
  __syncthreads();  // the block's rows and the first values are loaded
  MatrixC sum[1][DM / 8] = {};
  bool more = seen(k_begin);
  for (int64_t k0 = k_begin; more; k0 += KT) {
    load_head<KT>(keys, in.k, k0, k_end, in.Hkv, kv, in.D);
    const bool asks = !empty(mine) && !in.none_seen(mine, k0);
    MatrixC score[1][KT / 8], dp[1][KT / 8];
    if (asks) rows_dot_rows(dp, cotangents, values);
    finish_copies();
    __syncthreads();  // the keys are loaded, and all threads have read the values
    more = seen(k0 + KT);
    if (more) load_head<KT>(values, in.v, k0 + KT, k_end, in.Hkv, kv, in.D);
    if (asks) {
      rows_dot_rows(score, queries, keys);
      each_held<KT / 8>([&](int j, int e, int, int) { score[0][j].value[e] *= in.scale * kLog2e; });
      if (k0 + KT > k_end || !in.all_see(mine, k0 + KT - 1))
        hide(score[0], in, mine.first, mine.end, k0, k_end);
      each_held<KT / 8>([&](int j, int e, int, int) {
        float& s = score[0][j].value[e];
        s = exp2_near(s - log_sum[e / 2]) * (dp[0][j].value[e] - dot[e / 2]);
      });
      MatrixA gradients[1][KT / 16];
      as_factor(gradients[0], score[0]);
      add_weighted_rows(sum, gradients, keys);
    }
    finish_copies();
    __syncthreads();  // the next values are loaded, and all threads have read the keys
  }
  store_held(dq, sum[0], {in.scale, in.scale}, mine.first, mine.end, in.H, h, in.D);
}

// The first of the queries begin, begin + Rows, ... whose tile sees `key` (positions ascend, so the tiles
// that do not see it come first). All lanes of the warp must call it.
template <int Rows>
__device__ int first_asking(const AttentionInputs<bf16>& in, int begin, int end, int64_t key) {
  for (;;) {
    const int q0 = begin + static_cast<int>(threadIdx.x % 32) * Rows;
    const Tile asking{0, q0, q0 + Rows < end ? q0 + Rows : end};
    const int blind = __popc(__ballot_sync(kAllLanes, q0 < end && in.none_seen(asking, key)));
    begin += blind * Rows;
    if (blind < 32) return begin;
  }
}

// dk = scale dS^T q,  dv = P^T dy,  with P and dS as above, computed as transposes, from k q^T
// in: as above   out: dk dv bf16 [Nk,Hkv*D], written; each may be null
// A block owns 64 keys of one key head, a warp 16 of them; the queries of all heads that share it pass in
// order, 32 at a time. P and dS are rounded to bf16 for the products, which sum in f32.
template <int DM>
__global__ void __launch_bounds__(kAttentionThreads, kBlocks<DM>)
    mma_key_gradient_kernel(bf16* dk, bf16* dv, const bf16* dy, const float* lse, const float* delta,
                            AttentionInputs<bf16> in) {
  constexpr int QT = kPassing;
  __shared__ Chunk own[2][kOwned * DM / 8], passing[2][QT * DM / 8];
  const SharedRows<DM> keys{own[0]}, values{own[1]}, queries{passing[0]}, cotangents{passing[1]};
  const int H = static_cast<int>(in.H), group = H / static_cast<int>(in.Hkv),
            kv = static_cast<int>(blockIdx.y), last_head = (kv + 1) * group;
  const Tile tile = find_tile<kOwned>(in.k_offsets, in.B, blockIdx.x), mine = warp_tile(tile, 16);
  if (empty(tile)) return;
  const int q_end = in.q_offsets[tile.sequence + 1],
            q_begin = first_asking<QT>(in, in.q_offsets[tile.sequence], q_end, tile.first);
  load_head<kOwned>(keys, in.k, tile.first, tile.end, in.Hkv, kv, in.D);
  load_head<kOwned>(values, in.v, tile.first, tile.end, in.Hkv, kv, in.D);
  int32_t seen_from[2];  // the position from which queries see the lane's rows
  for (int i = 0; i < 2 && !empty(mine); ++i)
    seen_from[i] = in.first_to_see(held_row(mine.first, i, mine.end));
  MatrixC sum_k[1][DM / 8] = {}, sum_v[1][DM / 8] = {};
  int h = q_begin < q_end ? kv * group : last_head, q0 = q_begin;
  if (h < last_head) load_head<QT>(queries, in.q, q0, q_end, in.H, h, in.D);
  finish_copies();
  __syncthreads();  // the block's rows and the first queries are loaded
  while (h < last_head) {
    load_head<QT>(cotangents, dy, q0, q_end, in.H, h, in.D);
    const Tile asking{tile.sequence, q0, q0 + QT < q_end ? q0 + QT : q_end};
    const bool asked = !empty(mine) && !in.none_seen(asking, mine.first);
    MatrixC score[1][QT / 8], dp[1][QT / 8];
    MatrixA weights[1][QT / 16], gradients[1][QT / 16];
    if (asked) rows_dot_rows(score, keys, queries);
    finish_copies();
    __syncthreads();  // the cotangents are loaded
    if (asked) {
      rows_dot_rows(dp, values, cotangents);
      const bool whole = q0 + QT <= q_end && in.all_see(asking, mine.end - 1);
      const int32_t* position = in.q_positions + q0;
      const float *log_sum = lse + q0 * in.H + h, *dot = delta + q0 * in.H + h;
      each_held<QT / 8>([&](int j, int e, int, int column) {
        float &s = score[0][j].value[e], &d = dp[0][j].value[e];
        const bool sees = whole || (q0 + column < q_end && position[column] >= seen_from[e / 2]);
        s = sees ? exp2_near((s * in.scale - log_sum[column * H]) * kLog2e) : 0;
        d = sees ? s * (d - dot[column * H]) : 0;
      });
      as_factor(weights[0], score[0]);
      as_factor(gradients[0], dp[0]);
      add_weighted_rows(sum_k, gradients, queries);
    }
    __syncthreads();  // all threads have read the queries
    q0 += QT;
    if (q0 >= q_end) q0 = q_begin, ++h;
    if (h < last_head) load_head<QT>(queries, in.q, q0, q_end, in.H, h, in.D);
    if (asked) add_weighted_rows(sum_v, weights, cotangents);
    finish_copies();
    __syncthreads();  // the next queries are loaded, and all threads have read the cotangents
  }
  store_held(dk, sum_k[0], {in.scale, in.scale}, mine.first, mine.end, in.Hkv, kv, in.D);
  store_held(dv, sum_v[0], {1, 1}, mine.first, mine.end, in.Hkv, kv, in.D);
}

}  // namespace burrow::cuda
