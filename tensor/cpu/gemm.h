#pragma once
// The matrix product of the CPU's library (oneDNN in f32 where it was found, else Eigen), for the kernels
// that are made of products.
#include <cstdint>

namespace burrow::cpu {

// One problem: c[M,N] (+)= op(a) op(b) with inner size K, all row-major; op transposes where its flag says.
// A row of c, a or b begins `*_stride` elements after the one before; 0: where that one ends.
template <class T>
struct Gemm {
  T* c;
  const T *a, *b;
  int64_t M, N, K;
  bool a_transposed, b_transposed, add;
  int64_t c_stride = 0, a_stride = 0, b_stride = 0;
};

// On the library's own threads, or on the caller's where it is one of a team.
void gemm(Gemm<float> g);
void gemm(Gemm<double> g);

}  // namespace burrow::cpu
