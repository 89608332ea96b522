#include "tensor/cuda/launch.cuh"
#include "tensor/kernels.h"

namespace burrow::cuda {
namespace {

template <class Op, class T>
__global__ void unary_kernel(T* y, const T* x, int64_t n) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    y[i] = Op::f(x[i]);
  }
}

template <class Op, class T>
__global__ void unary_backward_kernel(T* dx, const T* dy, const T* x, int64_t n) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    dx[i] = dy[i] * Op::df(x[i]);
  }
}

// Tensor::data is for the host; the seam has already established that the tensors are on the device.
template <class T>
T* device_data(const Tensor& t) {
  return reinterpret_cast<T*>(t.bytes());
}

void check_same(const char* op, const char* a_name, const Tensor& a, const char* b_name, const Tensor& b) {
  BURROW_CHECK(a.shape() == b.shape() && a.dtype() == b.dtype(), "[{}] {} {} {} and {} {} {} differ", op,
               a_name, a.dtype(), a.shape(), b_name, b.dtype(), b.shape());
}

}  // namespace

// y = f(x)
// in: x   out: y, written, same shape; y may be x
// A thread owns every (grid size)-th element; computed in the dtype.
void unary(Tensor& y, const Tensor& x, Unary op) {
  check_same("unary", "y", y, "x", x);
  visit_float("unary", x.dtype(), [&]<class T>(T) {
    visit_unary(op, [&]<class Op>(Op) {
      launch("unary", unary_kernel<Op, T>, elements(x.numel()), device_data<T>(y), device_data<T>(x),
             x.numel());
    });
  });
}

// dx = dy f'(x)
// in: dy x   out: dx, written, same shape; dx may be dy
// A thread owns every (grid size)-th element; computed in the dtype.
void unary_backward(Tensor& dx, const Tensor& dy, const Tensor& x, Unary op) {
  check_same("unary_backward", "dy", dy, "x", x);
  check_same("unary_backward", "dx", dx, "x", x);
  visit_float("unary_backward", x.dtype(), [&]<class T>(T) {
    visit_unary(op, [&]<class Op>(Op) {
      launch("unary_backward", unary_backward_kernel<Op, T>, elements(x.numel()), device_data<T>(dx),
             device_data<T>(dy), device_data<T>(x), x.numel());
    });
  });
}

}  // namespace burrow::cuda
