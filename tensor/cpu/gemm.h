#pragma once
// The matrix product of the CPU library (oneDNN in f32 if it was found, else Eigen), for kernels that consist
// of products.
#include <cstdint>

namespace burrow::cpu {

// c[M,N] = (or +=) op(a) op(b) with inner size K, all row-major; op transposes if its flag is set. Rows are
// `*_stride` elements apart; 0 means contiguous.
template <class T>
struct Gemm {
  T* c;
  const T *a, *b;
  int64_t M, N, K;
  bool a_transposed, b_transposed, add;
  int64_t c_stride = 0, a_stride = 0, b_stride = 0;
};

// Runs on the library's own threads, or on the calling thread inside a parallel region.
void gemm(Gemm<float> g);
void gemm(Gemm<double> g);

}  // namespace burrow::cpu
