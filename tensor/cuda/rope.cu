#include "tensor/cuda/values.cuh"
#include "tensor/row_ops.h"

namespace burrow::cuda {
namespace {

// A thread owns pair i of all heads of a row: the angle costs more than the rotations.
template <class T>
__global__ void rope_kernel(T* y, const T* x, const int32_t* position, int64_t N, int64_t H, int64_t D,
                            double theta, bool inverse) {
  const int64_t pairs = D / 2;
  for (int64_t at = first_element(); at < N * pairs; at += element_stride()) {
    const int64_t n = at / pairs, i = at % pairs;
    const double angle = row::rotary_angle(position[n], i, theta, D);
    const auto cosine = static_cast<float>(std::cos(angle));
    const float sine = (inverse ? -1.0f : 1.0f) * static_cast<float>(std::sin(angle));
    for (int64_t h = 0; h < H; ++h) {
      const int64_t a = (n * H + h) * D + i, b = a + pairs;
      const float u = to_float(x[a]), v = to_float(x[b]);  // y may be x
      y[a] = static_cast<T>(u * cosine - v * sine);
      y[b] = static_cast<T>(v * cosine + u * sine);
    }
  }
}

}  // namespace

// (y[i], y[i + D/2]) = (x[i], x[i + D/2]) rotated by position * theta^(-2i/D), in each head, i < D/2: the
// halves of a head are the pairs, as in LLaMA's published weights. `inverse` rotates back (the backward).
// in: x [N,H*D], position i32 [N]   out: y [N,H*D], written; y may be x
// A thread owns one pair of all heads of a row; angles in f64, the rotation computed in f32.
// Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.
void rope(Tensor& y, const Tensor& x, const Tensor& position, int64_t heads, double theta, bool inverse) {
  const int64_t N = leading(x), C = channels(x), D = heads > 0 ? C / heads : 0;
  check_same("rope", "y", y, "x", x);
  check_vector("rope", "position", position, DType::i32, N);
  BURROW_CHECK(heads > 0 && D * heads == C && D % 2 == 0,
               "[rope] x {} does not split into {} heads of even size", x.shape(), heads);
  visit_device("rope", x.dtype(), [&]<class T>(T) {
    launch("rope", rope_kernel<T>, elements(N * (D / 2)), device_data<T>(y), device_data<T>(x),
           device_data<int32_t>(position), N, heads, D, theta, inverse);
  });
}

}  // namespace burrow::cuda
