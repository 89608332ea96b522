#pragma once
// Pointwise functions f with their derivatives df, compiled for host and device. A new activation is a struct
// here and its name in BURROW_UNARY_OPS; both backends use it from there.
#include <utility>

#include "tensor/vector_math.h"

#define BURROW_UNARY_OPS(X) X(silu) X(gelu) X(quick_gelu) X(relu) X(exp) X(log) X(log_sigmoid) X(reciprocal)

namespace burrow {

// The pointwise functions by name; visit_unary maps a name to its struct.
enum class Unary {
#define X(name) name,
  BURROW_UNARY_OPS(X)
#undef X
};

namespace scalar {

struct silu {  // x sigmoid(x)
  template <class T>
  BURROW_HD static BURROW_INLINE T f(T x) {
    return x / (T(1) + vector_exp(-x));
  }
  template <class T>
  BURROW_HD static BURROW_INLINE T df(T x) {
    const T s = T(1) / (T(1) + vector_exp(-x));
    return s * (T(1) + x * (T(1) - s));
  }
};

struct gelu {  // x Phi(x), exact (erf)
  template <class T>
  BURROW_HD static BURROW_INLINE T f(T x) {
    return T(0.5) * x * (T(1) + vector_erf(x * T(0.70710678118654752)));
  }
  template <class T>
  BURROW_HD static BURROW_INLINE T df(T x) {
    return T(0.5) * (T(1) + vector_erf(x * T(0.70710678118654752))) +
           x * vector_exp(T(-0.5) * x * x) * T(0.39894228040143268);
  }
};

struct quick_gelu {  // x sigmoid(1.702 x), the activation of CLIP
  template <class T>
  BURROW_HD static BURROW_INLINE T f(T x) {
    return x / (T(1) + vector_exp(T(-1.702) * x));
  }
  template <class T>
  BURROW_HD static BURROW_INLINE T df(T x) {
    const T s = T(1) / (T(1) + vector_exp(T(-1.702) * x));
    return s * (T(1) + T(1.702) * x * (T(1) - s));
  }
};

struct relu {  // max(x, 0); at 0 the derivative is 0
  template <class T>
  BURROW_HD static BURROW_INLINE T f(T x) {
    return x > T(0) ? x : T(0);
  }
  template <class T>
  BURROW_HD static BURROW_INLINE T df(T x) {
    return x > T(0) ? T(1) : T(0);
  }
};

struct exp {  // e^x
  template <class T>
  BURROW_HD static BURROW_INLINE T f(T x) {
    return vector_exp(x);
  }
  template <class T>
  BURROW_HD static BURROW_INLINE T df(T x) {
    return vector_exp(x);
  }
};

struct log {  // x > 0
  template <class T>
  BURROW_HD static BURROW_INLINE T f(T x) {
    return std::log(x);
  }
  template <class T>
  BURROW_HD static BURROW_INLINE T df(T x) {
    return T(1) / x;
  }
};

struct log_sigmoid {  // -log(1 + e^-x), without overflow
  template <class T>
  BURROW_HD static BURROW_INLINE T f(T x) {
    return (x < T(0) ? x : T(0)) - std::log1p(vector_exp(x < T(0) ? x : -x));
  }
  template <class T>
  BURROW_HD static BURROW_INLINE T df(T x) {
    return T(1) / (T(1) + vector_exp(x));
  }
};

struct reciprocal {  // 1 / x, and 0 at 0, so that a row of zero weights stays 0
  template <class T>
  BURROW_HD static BURROW_INLINE T f(T x) {
    return x == T(0) ? T(0) : T(1) / x;
  }
  template <class T>
  BURROW_HD static BURROW_INLINE T df(T x) {
    return x == T(0) ? T(0) : T(-1) / (x * x);
  }
};

}  // namespace scalar

// Calls f(scalar::silu{}) and so on.
template <class F>
void visit_unary(Unary op, F&& f) {
  switch (op) {
#define X(name)     \
  case Unary::name: \
    return std::forward<F>(f)(scalar::name{});
    BURROW_UNARY_OPS(X)
#undef X
  }
}

}  // namespace burrow
