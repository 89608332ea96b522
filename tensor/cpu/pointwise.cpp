// Element-wise functions with their gradients, scaling, accumulation, conversion, and sums over rows.
// A thread owns a range of elements, vectorised; in sum_rows it owns channels.
#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/kernels.h"

namespace burrow::cpu {
namespace {

// Calls f(i) for every element, vectorised. `cost` is the number of elementary operations per element.
template <class F>
void for_each_element(int64_t n, int64_t cost, F f) {
  parallel_rows(n, n * cost, [f](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

}  // namespace

// y = f(x)
// in: x   out: y, written, same shape; y may be x
// A thread owns a range of elements; computed in the dtype.
void unary(Tensor& y, const Tensor& x, Unary op) {
  check_same("unary", "y", y, "x", x);
  visit_float("unary", x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    visit_unary(op, [&]<class Op>(Op) {
      for_each_element(x.numel(), 10, [=](int64_t i) { out[i] = Op::f(in[i]); });
    });
  });
}

// dx = dy f'(x)
// in: dy x   out: dx, written, same shape; dx may be dy
// A thread owns a range of elements; computed in the dtype.
void unary_backward(Tensor& dx, const Tensor& dy, const Tensor& x, Unary op) {
  check_same("unary_backward", "dy", dy, "x", x);
  check_same("unary_backward", "dx", dx, "x", x);
  visit_float("unary_backward", x.dtype(), [&]<class T>(T) {
    const T *in = x.data<T>(), *g = dy.data<T>();
    T* out = dx.data<T>();
    visit_unary(op, [&]<class Op>(Op) {
      for_each_element(x.numel(), 15, [=](int64_t i) { out[i] = g[i] * Op::df(in[i]); });
    });
  });
}

// y = a + b
// in: a b   out: y, written, same shape; y may be a or b
// A thread owns a range of elements.
void add(Tensor& y, const Tensor& a, const Tensor& b) {
  check_same("add", "a", a, "b", b);
  check_same("add", "y", y, "a", a);
  visit_float("add", a.dtype(), [&]<class T>(T) {
    const T *left = a.data<T>(), *right = b.data<T>();
    T* out = y.data<T>();
    for_each_element(a.numel(), 1, [=](int64_t i) { out[i] = left[i] + right[i]; });
  });
}

// y = alpha x
// in: x   out: y, written, same shape; y may be x
// A thread owns a range of elements.
void scale(Tensor& y, const Tensor& x, double alpha) {
  check_same("scale", "y", y, "x", x);
  visit_float("scale", x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    for_each_element(x.numel(), 1, [=, k = static_cast<T>(alpha)](int64_t i) { out[i] = k * in[i]; });
  });
}

// y = alpha s[0] x, or y += with `accumulate`
// in: x, s one element   out: y, same shape; y may be x
// A thread owns a range of elements.
void scale_by(Tensor& y, const Tensor& x, const Tensor& s, double alpha, bool accumulate) {
  check_same("scale_by", "y", y, "x", x);
  check_vector("scale_by", "s", s, x.dtype(), 1);
  visit_float("scale_by", x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    const T k = static_cast<T>(alpha * static_cast<double>(*s.data<T>()));
    if (accumulate)
      for_each_element(x.numel(), 1, [=](int64_t i) { out[i] += k * in[i]; });
    else
      for_each_element(x.numel(), 1, [=](int64_t i) { out[i] = k * in[i]; });
  });
}

// y = a b
// in: a b   out: y, written, same shape; y may be a or b
// A thread owns a range of elements.
void mul(Tensor& y, const Tensor& a, const Tensor& b) {
  check_same("mul", "a", a, "b", b);
  check_same("mul", "y", y, "a", a);
  visit_float("mul", a.dtype(), [&]<class T>(T) {
    const T *left = a.data<T>(), *right = b.data<T>();
    T* out = y.data<T>();
    for_each_element(a.numel(), 1, [=](int64_t i) { out[i] = left[i] * right[i]; });
  });
}

// y += alpha x
// in: x   out: y, added to, same shape
// A thread owns a range of elements.
void accumulate(Tensor& y, const Tensor& x, double alpha) {
  check_same("accumulate", "y", y, "x", x);
  visit_float("accumulate", x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    for_each_element(x.numel(), 1, [=, k = static_cast<T>(alpha)](int64_t i) { out[i] += k * in[i]; });
  });
}

// y = silu(gate) up
// in: gate up   out: y, written, same shape; y may be either
// A thread owns a range of elements; computed in the dtype.
// Source: Shazeer, GLU Variants Improve Transformer, 2020.
void swiglu(Tensor& y, const Tensor& gate, const Tensor& up) {
  check_same("swiglu", "gate", gate, "up", up);
  check_same("swiglu", "y", y, "gate", gate);
  visit_float("swiglu", gate.dtype(), [&]<class T>(T) {
    const T *g = gate.data<T>(), *u = up.data<T>();
    T* out = y.data<T>();
    for_each_element(gate.numel(), 10, [=](int64_t i) { out[i] = scalar::silu::f(g[i]) * u[i]; });
  });
}

// dgate = dy up silu'(gate),  dup = dy silu(gate)
// in: dy gate up   out: dgate dup, written, same shape; each or undefined
// A thread owns a range of elements; computed in the dtype.
void swiglu_backward(Tensor& dgate, Tensor& dup, const Tensor& dy, const Tensor& gate, const Tensor& up) {
  check_same("swiglu_backward", "gate", gate, "up", up);
  check_same("swiglu_backward", "dy", dy, "gate", gate);
  if (dgate.defined()) check_same("swiglu_backward", "dgate", dgate, "gate", gate);
  if (dup.defined()) check_same("swiglu_backward", "dup", dup, "up", up);
  visit_float("swiglu_backward", gate.dtype(), [&]<class T>(T) {
    const T *d = dy.data<T>(), *g = gate.data<T>(), *u = up.data<T>();
    if (dgate.defined() && dup.defined()) {
      T *dg = dgate.data<T>(), *du = dup.data<T>();
      for_each_element(gate.numel(), 15, [=](int64_t i) {
        const T s = T(1) / (T(1) + vector_exp(-g[i])), silu = g[i] * s;
        const T both = d[i] * u[i], other = d[i] * silu;  // read before either output is written
        dg[i] = both * (s + silu * (T(1) - s));
        du[i] = other;
      });
    } else if (dgate.defined()) {
      T* dg = dgate.data<T>();
      for_each_element(gate.numel(), 15, [=](int64_t i) { dg[i] = d[i] * u[i] * scalar::silu::df(g[i]); });
    } else if (dup.defined()) {
      T* du = dup.data<T>();
      for_each_element(gate.numel(), 10, [=](int64_t i) { du[i] = d[i] * scalar::silu::f(g[i]); });
    }
  });
}

// y = x
// in: x f32, f64 or bf16   out: y, written, same shape, of any of these
// A thread owns a range of elements; rounds to nearest, ties to even.
void convert(Tensor& y, const Tensor& x) {
  BURROW_CHECK(y.shape() == x.shape() && x.dtype() != DType::i32 && y.dtype() != DType::i32,
               "[convert] y {} {} and x {} {}", y.dtype(), y.shape(), x.dtype(), x.shape());
  visit_any(x.dtype(), [&]<class From>(From) {
    visit_any(y.dtype(), [&]<class To>(To) {
      const From* in = x.data<From>();
      To* out = y.data<To>();
      for_each_element(x.numel(), 2, [=](int64_t i) {
        if constexpr (std::is_same_v<From, To>)
          out[i] = in[i];
        else if constexpr (std::is_same_v<From, bf16> || std::is_same_v<To, bf16>)
          out[i] = static_cast<To>(static_cast<float>(in[i]));
        else
          out[i] = static_cast<To>(in[i]);
      });
    });
  });
}

// y[c] = sum_n x[n,c], or y[c] += with `accumulate`
// in: x [N,C]   out: y [C]
// A thread owns channels and adds the rows in order; sums in the dtype.
void sum_rows(Tensor& y, const Tensor& x, bool accumulate) {
  const int64_t C = channels(x), N = leading(x);
  check_vector("sum_rows", "y", y, x.dtype(), C);
  visit_float("sum_rows", x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_rows(C, x.numel(), [=](int64_t begin, int64_t end) {
      struct Sums;
      T* sum = scratch<T, Sums>(end - begin);
      std::fill_n(sum, end - begin, T(0));
      for (int64_t n = 0; n < N; ++n) {
#pragma omp simd
        for (int64_t c = begin; c < end; ++c) sum[c - begin] += in[n * C + c];
      }
      for (int64_t c = begin; c < end; ++c) out[c] = accumulate ? out[c] + sum[c - begin] : sum[c - begin];
    });
  });
}

}  // namespace burrow::cpu
