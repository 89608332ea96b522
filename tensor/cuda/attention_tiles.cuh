#pragma once
// Shared pieces of the attention kernels: which rows a block owns, its tiles in shared memory, their
// products. A block of 128 threads owns one tile of rows of one head.
#include <limits>

#include "tensor/cuda/team.cuh"
#include "tensor/cuda/values.cuh"

namespace burrow::cuda {

constexpr unsigned kAttentionThreads = 128;

// Rows [first, end) of one sequence; empty if the block has no work.
struct Tile {
  int64_t sequence, first, end;
};

// The tile with number `slot`. Tiles are numbered across sequences; each thread recomputes it (B is small).
template <int BT>
__device__ Tile find_tile(const int32_t* offsets, int64_t B, int64_t slot) {
  for (int64_t b = 0; b < B; ++b) {
    const int64_t begin = offsets[b], end = offsets[b + 1], tiles = (end - begin + BT - 1) / BT;
    if (slot < tiles) {
      const int64_t first = begin + slot * BT;
      return {b, first, first + BT < end ? first + BT : end};
    }
    slot -= tiles;
  }
  return {0, 0, 0};
}

// The arguments that forward and backward share.
template <class T>
struct AttentionInputs {
  const T *q, *k, *v;
  const int32_t *q_offsets, *k_offsets, *q_positions, *k_positions;
  int64_t B, H, Hkv, D;
  bool causal;
  float scale;

  __device__ bool sees(int64_t query, int64_t key) const {
    return !causal || k_positions[key] <= q_positions[query];
  }
  // Whether no query of the tile sees this key or a later one (positions ascend).
  __device__ bool none_seen(const Tile& queries, int64_t key) const {
    return causal && k_positions[key] > q_positions[queries.end - 1];
  }
  // The last key position that a query sees, and the first query position that sees a key.
  __device__ int32_t last_seen(int64_t query) const {
    return causal ? q_positions[query] : std::numeric_limits<int32_t>::max();
  }
  __device__ int32_t first_to_see(int64_t key) const {
    return causal ? k_positions[key] : std::numeric_limits<int32_t>::min();
  }
  // Whether all queries of the tile see this key and every earlier one.
  __device__ bool all_see(const Tile& queries, int64_t key) const {
    return !causal || k_positions[key] <= q_positions[queries.first];
  }
};

// to[i][d] = element d of the head in row first + i; 0 for rows >= end and for d >= D.
template <int BT, int DM, class T>
__device__ void load_rows(float (*to)[DM + 1], const T* from, int64_t first, int64_t end, int64_t heads,
                          int64_t head, int64_t D) {
  for (int t = static_cast<int>(threadIdx.x); t < BT * DM; t += static_cast<int>(kAttentionThreads)) {
    const int64_t n = first + t / DM, d = t % DM;
    to[t / DM][d] = n < end && d < D ? to_float(from[(n * heads + head) * D + d]) : 0.0f;
  }
}

// 128 threads as an 8 by 16 grid over a tile of BT rows: a thread owns BT/8 rows, every 16th column of the
// scores and every 16th channel of the results. The 16 threads of a row are adjacent lanes of one warp.
template <int BT, int DM>
struct AttentionTiles {
  static constexpr int kRows = BT / 8, kScores = BT / 16, kChannels = DM / 16;

  __device__ static int row(int i) { return static_cast<int>(threadIdx.x / 16) * kRows + i; }
  __device__ static int column(int j) { return static_cast<int>(threadIdx.x % 16) + 16 * j; }

  // sum[i][j] += a[row i] . b[column j]
  __device__ static void rows_dot_rows(float (&sum)[kRows][kScores], const float (*a)[DM + 1],
                                       const float (*b)[DM + 1], int64_t D) {
    for (int64_t d = 0; d < D; ++d) {
      for (int i = 0; i < kRows; ++i) {
        for (int j = 0; j < kScores; ++j) sum[i][j] += a[row(i)][d] * b[column(j)][d];
      }
    }
  }
  // sum[i][c] += sum_t w[row i][t] x[t][channel c]
  __device__ static void weights_times_rows(float (&sum)[kRows][kChannels], const float (*w)[BT + 1],
                                            const float (*x)[DM + 1]) {
    for (int t = 0; t < BT; ++t) {
      for (int i = 0; i < kRows; ++i) {
        for (int c = 0; c < kChannels; ++c) sum[i][c] += w[row(i)][t] * x[t][column(c)];
      }
    }
  }
  // Reduces over the 16 threads of a row.
  template <class Combine>
  __device__ static float row_reduce(float value, Combine combine) {
    for (int step = 8; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(kAllLanes, value, step));
    return value;
  }
};

// Stores a thread's results in the rows of a tile; does nothing if `to` is null.
template <class Tiles, class T, int Rows, int Channels>
__device__ void store_rows(T* to, const float (&sum)[Rows][Channels], const Tile& tile, int64_t heads,
                           int64_t head, int64_t D) {
  for (int i = 0; to && i < Rows; ++i) {
    const int64_t n = tile.first + Tiles::row(i);
    for (int c = 0; n < tile.end && c < Channels; ++c) {
      if (Tiles::column(c) < D) to[(n * heads + head) * D + Tiles::column(c)] = static_cast<T>(sum[i][c]);
    }
  }
}

// The largest head size of the tiled kernels; attention_wide.cuh has larger ones.
constexpr int64_t kMostTiled = 128;
// Calls f(std::integral_constant<int, DM>) with D rounded up to 32, 64 or 128.
template <class F>
void visit_head_size(int64_t D, F&& f) {
  if (D <= 32)
    f(std::integral_constant<int, 32>{});
  else if (D <= 64)
    f(std::integral_constant<int, 64>{});
  else
    f(std::integral_constant<int, 128>{});
}

}  // namespace burrow::cuda
