#include <cmath>

#include "tensor/cpu/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/kernels.h"

namespace burrow::cpu {

// With g = grad_scale grad:  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
// value -= lr weight_decay value;  value -= lr (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps)
// in: grad, flat   out: value m v, updated in place; all of one dtype and length
// A thread owns a range of elements; computed in the dtype, the corrections in f64.
// Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019.
void adamw(Tensor& value, Tensor& m, Tensor& v, const Tensor& grad, const AdamW& options, int64_t step,
           double lr, double grad_scale) {
  const int64_t n = value.numel();
  check_vector("adamw", "m", m, value.dtype(), n);
  check_vector("adamw", "v", v, value.dtype(), n);
  check_vector("adamw", "grad", grad, value.dtype(), n);
  BURROW_CHECK(step >= 1, "[adamw] step is {}, expected 1 or more", step);
  visit_float("adamw", value.dtype(), [&]<class T>(T) {
    T *p = value.data<T>(), *first = m.data<T>(), *second = v.data<T>();
    const T* g = grad.data<T>();
    const double t = static_cast<double>(step);
    const T b1 = static_cast<T>(options.beta1), b2 = static_cast<T>(options.beta2);
    const T rest1 = static_cast<T>(1 - options.beta1), rest2 = static_cast<T>(1 - options.beta2);
    const T rate = static_cast<T>(lr / (1 - std::pow(options.beta1, t)));
    const T correction = static_cast<T>(1 / std::sqrt(1 - std::pow(options.beta2, t)));
    const T keep = static_cast<T>(1 - lr * options.weight_decay), eps = static_cast<T>(options.eps);
    const T gain = static_cast<T>(grad_scale);
    parallel_rows(n, 10 * n, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        const T d = g[i] * gain;
        first[i] = b1 * first[i] + rest1 * d;
        second[i] = b2 * second[i] + rest2 * d * d;
        p[i] = keep * p[i] - rate * first[i] / (std::sqrt(second[i]) * correction + eps);
      }
    });
  });
}

}  // namespace burrow::cpu
