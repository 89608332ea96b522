#pragma once
// The one matrix product of the CUDA side: cuBLASLt (cublaslt.cpp), or loops where the GPU is emulated.
#include <cstdint>

#include "tensor/tensor.h"

namespace burrow::cuda {

// c[M,N] (+)= op(a) op(b) + bias[N] with inner size K, all row-major and without gaps; op transposes where
// its flag says. a and b are of one dtype, f32 or bf16; c is of that or f32, and the bias, where it is not
// null, of c's. Sums in f32, the bias added to them before they are rounded.
struct Gemm {
  void* c = nullptr;
  const void *a = nullptr, *b = nullptr, *bias = nullptr;
  int64_t M = 0, N = 0, K = 0;
  bool a_transposed = false, b_transposed = false, add = false;
  DType inputs = DType::f32, output = DType::f32;
};
void gemm(const Gemm& g);  // by the library
// Whether the option may take this product to TF32. With a size of 1 (sums of rows, and what spreads them) a
// product is bound by memory: rounding would cost entropies their digits and save nothing.
inline bool may_round(const Gemm& g, bool tf32) {
  return tf32 && g.inputs == DType::f32 && g.M > 1 && g.N > 1 && g.K > 1;
}
// The same by a kernel of our own on the CUDA cores: for what cuBLASLt has no algorithm for.
void plain_gemm(const Gemm& g);

// to[i] = from[i] in another float type.
void convert_elements(void* to, DType to_type, const void* from, DType from_type, int64_t n);

// The elements of a parameter in the dtype of the activations. A copy lives until the caller's launch is
// queued: memory is freed in the order of the stream.
Tensor converted(const Tensor& t, DType dtype);

}  // namespace burrow::cuda
