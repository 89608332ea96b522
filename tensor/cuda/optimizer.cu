// AdamW over the flat arenas of parameters, gradients and moments.
// A thread owns every (grid size)-th element.
#include <cmath>

#include "tensor/cuda/values.cuh"
#include "tensor/row_ops.h"

namespace burrow::cuda {
namespace {

// With g = grad_scale grad:  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
// value -= lr weight_decay value;  value -= lr (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps)
// in: grad [n]   out: value m v [n], updated in place; all f32
// A thread owns every (grid size)-th element; computed in f32, the bias corrections in f64 on the host.
// Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019.
__global__ void adamw_kernel(float* value, float* m, float* v, const float* grad, row::AdamWStep<float> step,
                             int64_t n) {
  for (int64_t i = first_element(); i < n; i += element_stride())
    row::adamw(value[i], m[i], v[i], grad[i], step);
}

}  // namespace

void adamw(Tensor& value, Tensor& m, Tensor& v, const Tensor& grad, const AdamW& options, int64_t step,
           double lr, double grad_scale) {
  const int64_t n = value.numel();
  check_vector("adamw", "value", value, DType::f32, n);
  check_vector("adamw", "m", m, DType::f32, n);
  check_vector("adamw", "v", v, DType::f32, n);
  check_vector("adamw", "grad", grad, DType::f32, n);
  BURROW_CHECK(step >= 1, "[adamw] step is {}, expected 1 or more", step);
  launch("adamw", adamw_kernel, elements(n), device_data<float>(value), device_data<float>(m),
         device_data<float>(v), device_data<float>(grad),
         row::adamw_step<float>(options.beta1, options.beta2, options.eps, options.weight_decay, step, lr,
                                grad_scale),
         n);
}

}  // namespace burrow::cuda
