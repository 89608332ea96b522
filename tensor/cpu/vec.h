#pragma once
// Vectors of the compiler's own (g++ and clang), as wide as the target allows, for the loops that
// automatic vectorisation misses; and reductions over a run of memory whose order of summation is fixed
// by its length alone.
#include <cstdint>
#include <cstring>

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
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
inline Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
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
// The largest of a[0 .. n), n >= 1; a NaN is passed over.
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
    for (int l = 0; l < L; ++l) most = m[l] > most ? m[l] : most;
  }
  for (; i < n; ++i) most = a[i] > most ? a[i] : most;
  return most;
}

}  // namespace burrow::cpu
