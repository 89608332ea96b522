#pragma once
// exp and erf without branches and calls, so that the compiler vectorises loops over them, and so that the
// value of an element does not depend on its position in a vector or its address. On the device they are
// CUDA's own functions.
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "tensor/host_device.h"

// Always inlined, because a call prevents the vectorisation of a loop.
#define BURROW_INLINE inline __attribute__((always_inline))

namespace burrow {

namespace detail {

template <class T>
struct ExpTable;
template <>
struct ExpTable<float> {
  using Int = int32_t;
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float lowest = -87.336544f, highest = 89.0f;  // 0 below, infinity above
  static constexpr float to_integer = 0x1.8p23f;                 // adding it rounds to an integer
  static constexpr float ln2_high = 0.693359375f,
                         ln2_low = -2.12194440e-4f;  // high has few bits, so n * high is exact
  static constexpr float series[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1};
};
template <>
struct ExpTable<double> {
  using Int = int64_t;
  static constexpr int64_t mantissa = 52, bias = 1023;
  static constexpr double lowest = -708.39641853226408, highest = 710.0;
  static constexpr double to_integer = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double series[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1,           1};
};

// V is T, or a vector of T with Int a vector of equally many integers.
template <class T, class Int, class V>
BURROW_INLINE V exp_of(V x) {
  using Table = ExpTable<T>;
  const auto below = x < Table::lowest;
  x = below ? V{} + Table::lowest : x;
  x = x > Table::highest ? V{} + Table::highest : x;
  const V shifted = x * T(1.4426950408889634) + Table::to_integer;
  const V n = shifted - Table::to_integer;
  const Int exponent = std::bit_cast<Int>(shifted) - std::bit_cast<typename Table::Int>(Table::to_integer);
  const V r = (x - n * Table::ln2_high) - n * Table::ln2_low;
  V p = V{} + Table::series[0];
  for (unsigned i = 1; i < sizeof(Table::series) / sizeof(T); ++i) p = p * r + Table::series[i];
  const Int half = exponent >> 1;
  const V a = std::bit_cast<V>((half + Table::bias) << Table::mantissa);
  const V b = std::bit_cast<V>((exponent - half + Table::bias) << Table::mantissa);
  return below ? V{} : p * a * b;
}

}  // namespace detail

// e^x with an error of about 1 ulp; 0 instead of subnormal results, which cost a hundred cycles; NaN stays
// NaN. x = n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts, after Cody and Waite), e^r by its Taylor
// series, 2^n as two factors so that neither overflows before the product does.
template <class T>
BURROW_HD BURROW_INLINE T vector_exp(T x) {
#ifdef __CUDA_ARCH__
  return std::exp(x);
#else
  return detail::exp_of<T, typename detail::ExpTable<T>::Int>(x);
#endif
}

namespace detail {

// Chebyshev fits: erf(x)/x in x^2 on [0, 1] to 4e-11, and ln erfc(x) on [1, 4] to 8e-9.
constexpr float kErfSmall[] = {-9.667044571e-6f, 0.0001126595903f, -0.0008484080406f, 0.005221031808f,
                               -0.02686543073f,  0.112837825f,     -0.3761263847f,    1.128379167f};
constexpr float kErfLarge[] = {-7.58268197e-8f, 3.321684591e-6f, -6.229835325e-5f, 0.000685836683f,
                               -0.00506494692f, 0.02709952329f,  -0.1110550174f,   -0.6309530298f,
                               -1.130675144f,   0.0004163292177f};

}  // namespace detail

// erf(x): in f32 with an error of about 1 ulp by the fits above (1 from 4 on); in f64 that of the C++
// library.
template <class T>
BURROW_HD BURROW_INLINE T vector_erf(T x) {
#ifndef __CUDA_ARCH__
  if constexpr (std::is_same_v<T, float>) {
    const float sign = x < 0 ? -1.0f : 1.0f, positive = x * sign, a = positive > 4 ? 4.0f : positive;
    float small = detail::kErfSmall[0], large = detail::kErfLarge[0];
    for (int i = 1; i < 8; ++i) small = small * (x * x) + detail::kErfSmall[i];
    for (int i = 1; i < 10; ++i) large = large * a + detail::kErfLarge[i];
    const float near_one = sign * (1.0f - vector_exp(large));
    return positive < 1 ? small * x : near_one;
  }
#endif
  return std::erf(x);
}

}  // namespace burrow
