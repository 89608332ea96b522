#pragma once
// Matrix products with a thin factor, such as LoRA's with few ranks. Register tiles read and write rows in
// place, wherever they are, so that nothing is gathered or packed first. `at(j)` is the row of place j: j
// itself (EveryRow), or a row that chose an expert. An element is one sum in a fixed order, whatever the tile
// or the thread.
#include <algorithm>
#include <type_traits>

#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vec.h"

namespace burrow::cpu {

// The size of a register tile: 16 sums and 5 operands in 32 registers (AVX-512), half as many sums in 16.
constexpr int kTile = 4, kTileVectors = kVectorBytes == 64 ? 4 : 2;

// Up to this many rows (decoding) a product is bound by reading the wide matrix; tiles read it in place.
constexpr int64_t kFewRows = kTile;

struct EveryRow {
  int64_t operator()(int64_t j) const { return j; }
};

// Calls f(size, i) on blocks that tile [0, n): of size `Most` while they fit, then half of it, ...
template <int Most, class F>
void in_blocks(int64_t n, F f, int64_t i = 0) {
  for (; i + Most <= n; i += Most) f(std::integral_constant<int, Most>{}, i);
  if constexpr (Most > 1) in_blocks<Most / 2>(n, f, i);
}

// h[j, r] = (or +=) sum_c x[at(j), c] a[r, c] for j in [begin, end) and the rows r of one expert's a: all R,
// or the first `ranks`.
template <class T, class Rows>
void dot_rows(T* h, const T* x, const T* a, Rows at, int64_t begin, int64_t end, int64_t R, int64_t C,
              bool add = false, int64_t ranks = -1) {
  constexpr int64_t L = kLanes<T>;
  in_blocks<kTile>(end - begin, [&]<int M>(std::integral_constant<int, M>, int64_t i0) {
    const T* row[M];
    for (int i = 0; i < M; ++i) row[i] = x + at(begin + i0 + i) * C;
    in_blocks<kTileVectors>(ranks < 0 ? R : ranks,
                            [&]<int Ranks>(std::integral_constant<int, Ranks>, int64_t r0) {
                              Vec<T> sum[M][Ranks] = {};
                              const T* side = a + r0 * C;
                              int64_t c = 0;
                              for (; c + L <= C; c += L) {
                                Vec<T> factor[Ranks];
#pragma GCC unroll 4
                                for (int r = 0; r < Ranks; ++r) factor[r] = load(side + r * C + c);
#pragma GCC unroll 4
                                for (int i = 0; i < M; ++i) {
                                  const Vec<T> value = load(row[i] + c);
#pragma GCC unroll 4
                                  for (int r = 0; r < Ranks; ++r) sum[i][r] += value * factor[r];
                                }
                              }
#pragma GCC unroll 4
                              for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
                                for (int r = 0; r < Ranks; ++r) {
                                  T total = sum_of<T>(sum[i][r]);
                                  for (int64_t k = c; k < C; ++k) total += row[i][k] * side[r * C + k];
                                  T& out = h[(begin + i0 + i) * R + r0 + r];
                                  out = add ? out + total : total;
                                }
                              }
                            });
  });
}

// y[at(j), c] = base[from(j), c] + sum_r h[j, r] a[r, c] for j in [begin, end); a [R,C] is one expert's.
template <class T, class Rows, class BaseRows>
void add_to_rows(T* y, Rows at, const T* base, BaseRows from, const T* h, const T* a, int64_t begin,
                 int64_t end, int64_t R, int64_t C) {
  constexpr int64_t L = kLanes<T>;
  in_blocks<kTileVectors>(C / L, [&]<int Vectors>(std::integral_constant<int, Vectors>, int64_t v0) {
    in_blocks<kTile>(end - begin, [&]<int M>(std::integral_constant<int, M>, int64_t i0) {
      Vec<T> sum[M][Vectors] = {};
      const T* factor = h + (begin + i0) * R;
      for (int64_t r = 0; r < R; ++r) {
        Vec<T> value[Vectors];
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) value[v] = load(a + r * C + (v0 + v) * L);
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
          for (int v = 0; v < Vectors; ++v) sum[i][v] += factor[i * R + r] * value[v];
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        T* out = y + at(begin + i0 + i) * C + v0 * L;
        const T* in = base + from(begin + i0 + i) * C + v0 * L;
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) store(out + v * L, load(in + v * L) + sum[i][v]);
      }
    });
  });
  for (int64_t j = begin; j < end; ++j) {
    for (int64_t c = C / L * L; c < C; ++c) {
      T sum = 0;
      for (int64_t r = 0; r < R; ++r) sum += h[j * R + r] * a[r * C + c];
      y[at(j) * C + c] = base[from(j) * C + c] + sum;
    }
  }
}

// a[r, c] = (or +=) sum_j h[j, r] x[at(j), c] over the places [begin, end) of one expert, for the columns
// [first, last).
template <class T, class Rows>
void sum_over_rows(T* a, const T* h, const T* x, Rows at, int64_t begin, int64_t end, int64_t R, int64_t C,
                   int64_t first, int64_t last, bool add) {
  constexpr int64_t L = kLanes<T>;
  in_blocks<kTileVectors>(
      (last - first) / L, [&]<int Vectors>(std::integral_constant<int, Vectors>, int64_t v0) {
        const int64_t column = first + v0 * L;
        in_blocks<kTile>(R, [&]<int Ranks>(std::integral_constant<int, Ranks>, int64_t r0) {
          Vec<T> sum[Ranks][Vectors] = {};
          for (int64_t j = begin; j < end; ++j) {
            const T* row = x + at(j) * C + column;
            Vec<T> value[Vectors];
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) value[v] = load(row + v * L);
#pragma GCC unroll 4
            for (int r = 0; r < Ranks; ++r) {
#pragma GCC unroll 4
              for (int v = 0; v < Vectors; ++v) sum[r][v] += h[j * R + r0 + r] * value[v];
            }
          }
#pragma GCC unroll 4
          for (int r = 0; r < Ranks; ++r) {
            T* out = a + (r0 + r) * C + column;
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v)
              store(out + v * L, add ? load(out + v * L) + sum[r][v] : sum[r][v]);
          }
        });
      });
  for (int64_t c = first + (last - first) / L * L; c < last; ++c) {
    for (int64_t r = 0; r < R; ++r) {
      T sum = add ? a[r * C + c] : T(0);
      for (int64_t j = begin; j < end; ++j) sum += h[j * R + r] * x[at(j) * C + c];
      a[r * C + c] = sum;
    }
  }
}

// Calls f(first, last) on ranges of columns that tile [0, C), one per thread, cut between tiles.
template <class T, class F>
void own_columns(int64_t C, int64_t work, F f) {
  constexpr int64_t kUnit = kTileVectors * kLanes<T>;
  parallel_rows((C + kUnit - 1) / kUnit, work,
                [=](int64_t begin, int64_t end) { f(begin * kUnit, std::min(C, end * kUnit)); });
}

}  // namespace burrow::cpu
