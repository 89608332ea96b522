// Replaces cuBLASLt if the GPU is emulated: our own kernel for small products, else plain loops on one
// thread; sums in f32. With TF32 always the loops, on factors rounded to TF32.
#include "tensor/cuda/gemm.h"

#include <bit>
#include <cmath>
#include <vector>

#include "tensor/device.h"

namespace burrow::cuda {
namespace {

float at(const void* p, DType type, int64_t i) {
  return type == DType::bf16 ? static_cast<float>(static_cast<const bf16*>(p)[i])
                             : static_cast<const float*>(p)[i];
}

// Rounds to 10 mantissa bits. NaN stays NaN, so that unwritten memory still shows.
float tf32(float x) {
  if (!std::isfinite(x)) return x;
  return std::bit_cast<float>((std::bit_cast<uint32_t>(x) + 0x1000u) & ~0x1fffu);
}

// op(x) as `rows` rows of `columns` f32 elements.
std::vector<float> plain(const void* x, DType type, int64_t rows, int64_t columns, bool transposed) {
  std::vector<float> out(static_cast<size_t>(rows * columns));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c)
      out[static_cast<size_t>(r * columns + c)] = at(x, type, transposed ? c * rows + r : r * columns + c);
  }
  return out;
}

}  // namespace

void gemm(const Gemm& g) {
  constexpr int64_t kQuick = 1 << 15;  // multiply-adds
  const bool rounded = may_round(g, options().tf32);
  if (g.M * g.N * g.K <= kQuick && !rounded) return plain_gemm(g);
  std::vector<float> a = plain(g.a, g.inputs, g.M, g.K, g.a_transposed),
                     b = plain(g.b, g.inputs, g.K, g.N, g.b_transposed);
  for (std::vector<float>* factor : {&a, &b}) {
    for (float& x : *factor) x = rounded ? tf32(x) : x;
  }
  std::vector<float> row(static_cast<size_t>(g.N));
  for (int64_t m = 0; m < g.M; ++m) {
    std::fill(row.begin(), row.end(), 0.0f);
    for (int64_t k = 0; k < g.K; ++k) {
      const float factor = a[static_cast<size_t>(m * g.K + k)];
      const float* from = b.data() + k * g.N;
      for (int64_t n = 0; n < g.N; ++n) row[static_cast<size_t>(n)] += factor * from[n];
    }
    for (int64_t n = 0; n < g.N; ++n) {
      const int64_t i = m * g.N + n;
      float value = row[static_cast<size_t>(n)];
      if (g.add) value += at(g.c, g.output, i);
      if (g.bias) value += at(g.bias, g.output, n);
      if (g.output == DType::bf16)
        static_cast<bf16*>(g.c)[i] = bf16(value);
      else
        static_cast<float*>(g.c)[i] = value;
    }
  }
}

}  // namespace burrow::cuda
