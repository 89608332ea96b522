#pragma once
// Vector types by compiler extension (g++ and clang), as wide as the target allows, for loops that are not
// vectorised automatically; and reductions over contiguous memory, whose order of summation depends on the
// length alone.
#include <cstdint>
#include <cstring>
#include <utility>

#include "tensor/vector_math.h"

namespace burrow::cpu {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t mask __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef int64_t mask __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
using Mask = typename VecOf<T>::mask;  // integers of the same width; also the type of a comparison
template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));
template <class T>
constexpr int64_t whole_vectors(int64_t n) {  // n rounded up
  return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// The vector at p, at any alignment.
template <class T>
inline Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
// p[0..lanes) = v, at any alignment.
template <class T>
inline void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}
// e^x in every lane, the polynomial of vector_math.h.
template <class T>
inline Vec<T> exp_of(Vec<T> x) {
  return burrow::detail::exp_of<T, Mask<T>>(x);
}

namespace detail {

template <class T, int... I>
inline Mask<T> lane_numbers(std::integer_sequence<int, I...>) {
  return Mask<T>{I...};
}
template <int Step, class V, int... I>
inline V exchanged(V v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (I ^ Step)...);
}
template <int Offset, class V, int... I>
inline V interleaved(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (Offset + I / 2 + I % 2 * static_cast<int>(sizeof...(I)))...);
}

}  // namespace detail

template <class T>
using LaneIndices = std::make_integer_sequence<int, kLanes<T>>;

// True in the first n lanes (all of them for n >= kLanes).
template <class T>
inline Mask<T> first_lanes(int64_t n) {
  return detail::lane_numbers<T>(LaneIndices<T>{}) < (n < kLanes<T> ? static_cast<int>(n) : kLanes<T>);
}

// The sum and the maximum of the lanes, by halving.
template <class T, int Step = kLanes<T> / 2>
inline T sum_of(Vec<T> v) {
  v += detail::exchanged<Step>(v, LaneIndices<T>{});
  if constexpr (Step > 1)
    return sum_of<T, Step / 2>(v);
  else
    return v[0];
}
template <class T, int Step = kLanes<T> / 2>
inline T max_of(Vec<T> v) {
  const Vec<T> other = detail::exchanged<Step>(v, LaneIndices<T>{});
  v = other > v ? other : v;
  if constexpr (Step > 1)
    return max_of<T, Step / 2>(v);
  else
    return v[0];
}

// to[i * to_stride + j] = from[j * from_stride + i] for i, j < kLanes, by log2(kLanes) perfect shuffles of
// the rows.
template <class T>
inline void transpose_tile(T* to, int64_t to_stride, const T* from, int64_t from_stride) {
  constexpr int L = kLanes<T>;
  Vec<T> row[L], next[L];
  for (int i = 0; i < L; ++i) row[i] = load(from + i * from_stride);
#pragma GCC unroll 4
  for (int bit = 1; bit < L; bit *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < L / 2; ++i) {
      next[2 * i] = detail::interleaved<0>(row[i], row[i + L / 2], LaneIndices<T>{});
      next[2 * i + 1] = detail::interleaved<L / 2>(row[i], row[i + L / 2], LaneIndices<T>{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) row[i] = next[i];
  }
  for (int i = 0; i < L; ++i) store(to + i * to_stride, row[i]);
}
// The same for M rows of N elements into N rows of M.
template <class T>
inline void transpose(T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t M, int64_t N) {
  constexpr int L = kLanes<T>;
  const int64_t M0 = M / L * L, N0 = N / L * L;
  for (int64_t j = 0; j < M0; j += L) {
    for (int64_t i = 0; i < N0; i += L) {
      transpose_tile(to + i * to_stride + j, to_stride, from + j * from_stride + i, from_stride);
    }
    for (int64_t l = j; l < j + L; ++l) {
      for (int64_t i = N0; i < N; ++i) to[i * to_stride + l] = from[l * from_stride + i];
    }
  }
  for (int64_t j = M0; j < M; ++j) {
    for (int64_t i = 0; i < N; ++i) to[i * to_stride + j] = from[j * from_stride + i];
  }
}

// sum_i a[i] b[i]
template <class T>
inline T dot_run(const T* a, const T* b, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}
template <class T>
inline T sum_run(const T* a, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i];
  return sum;
}
// The maximum of a[0 .. n), n >= 1; a NaN may be ignored.
template <class T>
inline T max_run(const T* a, int64_t n) {
  constexpr int L = kLanes<T>;
  T most = a[0];
  int64_t i = 0;
  if (n >= L) {
    Vec<T> m = load(a);
    for (i = L; i + L <= n; i += L) {
      const Vec<T> v = load(a + i);
      m = v > m ? v : m;
    }
    most = max_of<T>(m);
  }
  for (; i < n; ++i) most = a[i] > most ? a[i] : most;
  return most;
}
// out[c] = e^(in[c] - shift), returning the sum; out may be in.
template <class T>
inline T exponentials(T* out, const T* in, T shift, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < n; ++c) {
    const T e = vector_exp(in[c] - shift);
    out[c] = e;
    sum += e;
  }
  return sum;
}
// out[c] = e^(in[c] - m) / sum_j e^(in[j] - m), m the largest; n >= 1; out may be in.
template <class T>
inline void softmax_run(T* out, const T* in, int64_t n) {
  const T inverse = T(1) / exponentials(out, in, max_run(in, n), n);
  for (int64_t c = 0; c < n; ++c) out[c] *= inverse;
}

}  // namespace burrow::cpu
