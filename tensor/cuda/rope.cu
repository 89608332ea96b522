// Rotary position embedding. A thread computes an angle once for all heads, in f64; in a second launch a
// thread owns pairs of a head, in f32.
#include "tensor/cuda/values.cuh"
#include "tensor/row_ops.h"

namespace burrow::cuda {
namespace {

struct Turn {
  float cosine, sine;
};

// turns[n,i] = (cos a, sin a),  a = position[n] theta^(-2i/D),  i < D/2; sin negated if `inverse`
// in: position i32 [N]   out: turns [N,D/2], written
// A thread owns every (grid size)-th angle, in f64, as a large position times a frequency needs.
__global__ void turns_kernel(Turn* turns, const int32_t* position, int64_t N, int64_t D, double theta,
                             bool inverse) {
  const int64_t pairs = D / 2;
  for (int64_t at = first_element(); at < N * pairs; at += element_stride()) {
    const double angle = row::rotary_angle(position[at / pairs], at % pairs, theta, D);
    turns[at] = {static_cast<float>(std::cos(angle)),
                 (inverse ? -1.0f : 1.0f) * static_cast<float>(std::sin(angle))};
  }
}

// (y[i], y[i + D/2]) = (x[i], x[i + D/2]) rotated by turns[n,i], in each head, i < D/2: the halves of a head
// are the pairs, as in LLaMA's published weights. The inverse rotation is the backward.
// in: x [N,H*D], turns [N,D/2]   out: y [N,H*D], written; y may be x
// A thread owns V adjacent pairs of a head of a row; computed in f32.
// Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.
template <int V, class T>
__global__ void rope_kernel(T* y, const T* x, const Turn* turns, int64_t N, int64_t H, int64_t D) {
  const int64_t pairs = D / 2, runs = pairs / V;
  for (int64_t at = first_element(); at < N * H * runs; at += element_stride()) {
    const int64_t head = at / runs, i = at % runs * V, a = head * D + i, b = a + pairs;
    const auto u = load_run<V>(x + a), v = load_run<V>(x + b);  // y may be x
    Run<T, V> first, second;
    for (int k = 0; k < V; ++k) {
      const Turn t = turns[head / H * pairs + i + k];
      first.v[k] = static_cast<T>(to_float(u.v[k]) * t.cosine - to_float(v.v[k]) * t.sine);
      second.v[k] = static_cast<T>(to_float(v.v[k]) * t.cosine + to_float(u.v[k]) * t.sine);
    }
    store_run(y + a, first);
    store_run(y + b, second);
  }
}

}  // namespace

void rope(Tensor& y, const Tensor& x, const Tensor& position, int64_t heads, double theta, bool inverse) {
  const int64_t N = leading(x), C = channels(x), D = heads > 0 ? C / heads : 0;
  check_same("rope", "y", y, "x", x);
  check_vector("rope", "position", position, DType::i32, N);
  BURROW_CHECK(heads > 0 && D * heads == C && D % 2 == 0,
               "[rope] x {} does not split into {} heads of even size", x.shape(), heads);
  const Scratch<float> turns(N * D);
  const auto* angles = reinterpret_cast<Turn*>(turns.data());
  launch("rope", turns_kernel, elements(N * (D / 2)), reinterpret_cast<Turn*>(turns.data()),
         device_data<int32_t>(position), N, D, theta, inverse);
  visit_device("rope", x.dtype(), [&]<class T>(T) {
    visit_runs<T>(
        D / 2,
        [&]<int V>(std::integral_constant<int, V>) {
          launch("rope", rope_kernel<V, T>, elements(N * heads * (D / 2) / V), device_data<T>(y),
                 device_data<T>(x), angles, N, heads, D);
        },
        y, x);
  });
}

}  // namespace burrow::cuda
