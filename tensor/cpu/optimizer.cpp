// AdamW over the flat arenas of parameters, gradients and moments.
// A thread owns a range of elements.
#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/kernels.h"
#include "tensor/row_ops.h"

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
    const auto constants = row::adamw_step<T>(options.beta1, options.beta2, options.eps, options.weight_decay,
                                              step, lr, grad_scale);
    parallel_rows(n, 10 * n, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) row::adamw(p[i], first[i], second[i], g[i], constants);
    });
  });
}

}  // namespace burrow::cpu
