#pragma once
// The matrix product of the CUDA backend: cuBLASLt (cublaslt.cpp), or loops if the GPU is emulated.
#include <cstdint>

#include "tensor/tensor.h"

namespace burrow::cuda {

// c[M,N] = (or +=) op(a) op(b) + bias[N] with inner size K, all row-major and contiguous; op transposes if
// its flag is set. a and b have one dtype, f32 or bf16; c has that dtype or f32; bias is null or has the
// dtype of c. Sums in f32; the bias is added before rounding.
struct Gemm {
  void* c = nullptr;
  const void *a = nullptr, *b = nullptr, *bias = nullptr;
  int64_t M = 0, N = 0, K = 0;
  bool a_transposed = false, b_transposed = false, add = false;
  DType inputs = DType::f32, output = DType::f32;
};
void gemm(const Gemm& g);  // computes the product
// Whether this product may be computed in TF32. Products with a size of 1 (sums over rows, and their
// gradients) are bound by memory, so TF32 would save nothing and cost accuracy, in entropies for example.
inline bool may_round(const Gemm& g, bool tf32) {
  return tf32 && g.inputs == DType::f32 && g.M > 1 && g.N > 1 && g.K > 1;
}
// The same product by our own kernel on the CUDA cores, for cases that cuBLASLt does not support.
void plain_gemm(const Gemm& g);

// to[i] = from[i], converted between f32 and bf16.
void convert_elements(void* to, DType to_type, const void* from, DType from_type, int64_t n);

// The tensor in the given dtype; a copy if it has another. A copy may be released once the launch that reads
// it is queued, because memory is freed in stream order.
Tensor converted(const Tensor& t, DType dtype);

}  // namespace burrow::cuda
