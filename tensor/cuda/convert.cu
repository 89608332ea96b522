// Conversion between f32 and bf16, as a kernel of the list and for cuda/matmul.cpp.
// A thread owns every (grid size)-th element.
#include "tensor/cuda/gemm.h"
#include "tensor/cuda/values.cuh"

namespace burrow::cuda {
namespace {

// to = from
// in: from f32 or bf16 [n]   out: to f32 or bf16 [n], written
// A thread owns every (grid size)-th element; rounds to nearest, ties to even.
__global__ void convert_kernel(Floats to, Floats from, int64_t n) {
  for (int64_t i = first_element(); i < n; i += element_stride()) to.set(i, from[i]);
}

}  // namespace

void convert_elements(void* to, DType to_type, const void* from, DType from_type, int64_t n) {
  launch("convert", convert_kernel, elements(n), Floats{to, to_type == DType::bf16},
         Floats{const_cast<void*>(from), from_type == DType::bf16}, n);
}

void convert(Tensor& y, const Tensor& x) {
  BURROW_CHECK(y.shape() == x.shape(), "[convert] y {} and x {} differ", y.shape(), x.shape());
  launch("convert", convert_kernel, elements(x.numel()), floats_of("convert", "y", y, x.numel()),
         floats_of("convert", "x", x, x.numel()), x.numel());
}

}  // namespace burrow::cuda
