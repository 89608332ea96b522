#pragma once
// Matrix products too small for a GEMM library, as in the blocks of attention. c[i, j] = sum_k a(i, k) b[k,
// j] with contiguous rows of b and c, and any two strides for a, so that a transposed a costs nothing. A tile
// of c (6 rows by 2 vectors) stays in registers for all k; each element is one sum in ascending k, whatever
// the tiling.
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vec.h"

namespace burrow::cpu {

template <class T>
struct Strided {
  const T* data;
  int64_t row, k;  // strides in elements
};

namespace detail {

constexpr int kTileRows = 6;  // x 2 vectors = 12 of 16 registers (a register block, Goto and van de Geijn)

template <class T, int M, int V>
inline void tile(int64_t K, Strided<T> a, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t width,
                 bool add) {
  constexpr int L = kLanes<T>;
  Vec<T> sum[M][V] = {};
  for (int64_t k = 0; k < K; ++k) {
    Vec<T> row[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) row[v] = load(b + k * ldb + v * L);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i) {
      const T factor = a.data[i * a.row + k * a.k];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[i][v] += factor * row[v];
    }
  }
  // Unrolled, because indices that are not constants would keep the sums in memory.
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i, c += ldc) {
    if (width < V * L) {  // the last columns of c
      T row[V * L];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) store(row + v * L, sum[i][v]);
      for (int l = 0; l < width; ++l) c[l] = add ? c[l] + row[l] : row[l];
    } else {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) store(c + v * L, add ? load(c + v * L) + sum[i][v] : sum[i][v]);
    }
  }
}

template <class T, int V>
void column_of_tiles(int64_t M, int64_t K, Strided<T> a, const T* b, int64_t ldb, T* c, int64_t ldc,
                     int64_t width, bool add) {
  int64_t i = 0;
  for (; i + kTileRows <= M; i += kTileRows) {
    tile<T, kTileRows, V>(K, {a.data + i * a.row, a.row, a.k}, b, ldb, c + i * ldc, ldc, width, add);
  }
  a.data += i * a.row;
  c += i * ldc;
  switch (M - i) {
    case 1:
      return tile<T, 1, V>(K, a, b, ldb, c, ldc, width, add);
    case 2:
      return tile<T, 2, V>(K, a, b, ldb, c, ldc, width, add);
    case 3:
      return tile<T, 3, V>(K, a, b, ldb, c, ldc, width, add);
    case 4:
      return tile<T, 4, V>(K, a, b, ldb, c, ldc, width, add);
    case 5:
      return tile<T, 5, V>(K, a, b, ldb, c, ldc, width, add);
    default:
      return;
  }
}

}  // namespace detail

// c[M, N] = a b, or c += a b; ldb and ldc are the strides of rows.
template <class T>
void small_matmul(int64_t M, int64_t N, int64_t K, Strided<T> a, const T* b, int64_t ldb, T* c, int64_t ldc,
                  bool add) {
  constexpr int64_t L = kLanes<T>;
  int64_t j = 0;
  for (; j + 2 * L <= N; j += 2 * L)
    detail::column_of_tiles<T, 2>(M, K, a, b + j, ldb, c + j, ldc, 2 * L, add);
  for (; j + L <= N; j += L) detail::column_of_tiles<T, 1>(M, K, a, b + j, ldb, c + j, ldc, L, add);
  if (j == N) return;
  // The last columns, fewer than a vector, are copied to rows of one vector, padded with 0.
  struct Tail;
  T* tail = scratch<T, Tail>(K * L);
  std::memset(tail, 0, static_cast<size_t>(K * L) * sizeof(T));
  for (int64_t k = 0; k < K; ++k) {
    for (int64_t l = 0; l < N - j; ++l) tail[k * L + l] = b[k * ldb + j + l];
  }
  detail::column_of_tiles<T, 1>(M, K, a, tail, L, c + j, ldc, N - j, add);
}

}  // namespace burrow::cpu
