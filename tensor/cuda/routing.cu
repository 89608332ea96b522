// Masks of chosen experts, and the scaling of their rank channels by the routing weights.
// A thread owns a row (masks) or elements (scaling); scale_experts_backward has a warp per (row, expert).
#include "tensor/cuda/team.cuh"
#include "tensor/cuda/values.cuh"
#include "tensor/row_ops.h"

namespace burrow::cuda {
namespace {

// Adapters for row_ops.h: a row of scores to read, and a row of a mask to write.
template <class T>
struct Scores {
  const T* p;
  __device__ float operator()(int64_t e) const { return to_float(p[e]); }
};
template <class T>
struct Mask {
  T* p;
  __device__ void operator()(int64_t e, bool chosen) const { p[e] = static_cast<T>(chosen ? 1.0f : 0.0f); }
};

// mask[n,e] = 1 where probs[n,e] is among the k largest of its row (the first of equals), else 0
// in: probs [N,E], 1 <= k <= E   out: mask [N,E], written
// A thread owns every (grid size)-th row and scans it k times, as E is small.
template <class T>
__global__ void top_k_kernel(T* mask, const T* probs, int64_t k, int64_t N, int64_t E) {
  for (int64_t n = first_element(); n < N; n += element_stride())
    row::top_k(Scores<T>{probs + n * E}, E, k, Mask<T>{mask + n * E});
}

// mask[n,e] = 1 for the k largest u of a row, k the last with 1 - lambda[n] + k u_k > sum_{j<=k} u_j, else 0
// in: scores u [N,E], lambda [N] < 1, f32 or bf16   out: mask [N,E], written
// A thread owns every (grid size)-th row; sums in f32.
// Source: sparsegen-lin (Laha et al. 2018, arXiv 1810.11975, section 3), as LD-MoLE uses it.
template <class T>
__global__ void sparsegen_kernel(T* mask, const T* scores, Floats lambda, int64_t N, int64_t E) {
  for (int64_t n = first_element(); n < N; n += element_stride())
    row::sparsegen<float>(Scores<T>{scores + n * E}, E, lambda[n], Mask<T>{mask + n * E});
}

// y[n, e*R + r] = alpha weights[n,e] h[n, e*R + r]
// in: h [N,E*R], weights [N,E] f32 or bf16   out: y [N,E*R], written; y may be h
// A thread owns every (grid size)-th element; computed in f32.
template <class T>
__global__ void scale_experts_kernel(T* y, const T* h, Floats weights, float alpha, int64_t n, int64_t R) {
  for (int64_t i = first_element(); i < n; i += element_stride())
    y[i] = static_cast<T>(alpha * weights[i / R] * to_float(h[i]));
}

// dh[n, e*R + r] = alpha weights[n,e] dy[n, e*R + r]
// dweights[n,e] = alpha sum_r dy[n, e*R + r] h[n, e*R + r]
// in: dy h [N,E*R], weights [N,E] f32 or bf16; h may be null where dweights is
// out: dh [N,E*R], dweights [N,E] f32 or bf16, written; each may be null; dh may be dy
// A warp owns one expert of a row; sums in f32.
template <class T>
__global__ void scale_experts_backward_kernel(T* dh, Floats dweights, const T* dy, const T* h, Floats weights,
                                              float alpha, int64_t pairs, int64_t R) {
  const int64_t i = team_row<32>();
  if (i >= pairs) return;
  const float w = weights[i];
  float sum = 0;
  for (int64_t r = team_rank<32>(); r < R; r += 32) {
    const float g = to_float(dy[i * R + r]);
    if (dweights.p) sum += g * to_float(h[i * R + r]);
    if (dh) dh[i * R + r] = static_cast<T>(alpha * w * g);
  }
  if (!dweights.p) return;
  sum = team_sum<32>(sum);
  if (team_rank<32>() == 0) dweights.set(i, alpha * sum);
}

// Checks h [N,E*R] against weights [N,E] and returns R.
int64_t rank_of(const char* op, const Tensor& h, const Tensor& weights) {
  const int64_t E = channels(weights);
  check_matrix(op, "weights", weights, weights.dtype(), leading(h), E);
  BURROW_CHECK(E > 0 && channels(h) % E == 0, "[{}] h {} does not split into equal parts for {} experts", op,
               h.shape(), E);
  return channels(h) / E;
}

}  // namespace

void top_k_mask(Tensor& mask, const Tensor& probs, int64_t k) {
  const int64_t E = channels(probs), N = leading(probs);
  check_same("top_k_mask", "mask", mask, "probs", probs);
  BURROW_CHECK(k >= 1 && k <= E, "[top_k_mask] k is {}, expected 1 <= k <= {} for probs {}", k, E,
               probs.shape());
  visit_device("top_k_mask", probs.dtype(), [&]<class T>(T) {
    launch("top_k_mask", top_k_kernel<T>, elements(N), device_data<T>(mask), device_data<T>(probs), k, N, E);
  });
}

void sparsegen_mask(Tensor& mask, const Tensor& scores, const Tensor& lambda) {
  const char* op = "sparsegen_mask";
  const int64_t E = channels(scores), N = leading(scores);
  check_same(op, "mask", mask, "scores", scores);
  const Floats l = floats_of(op, "lambda", lambda, N);
  visit_device(op, scores.dtype(), [&]<class T>(T) {
    launch(op, sparsegen_kernel<T>, elements(N), device_data<T>(mask), device_data<T>(scores), l, N, E);
  });
}

void scale_experts(Tensor& y, const Tensor& h, const Tensor& weights, double alpha) {
  const char* op = "scale_experts";
  const int64_t R = rank_of(op, h, weights);
  check_same(op, "y", y, "h", h);
  const Floats w = floats_of(op, "weights", weights, weights.numel());
  visit_device(op, h.dtype(), [&]<class T>(T) {
    launch(op, scale_experts_kernel<T>, elements(h.numel()), device_data<T>(y), device_data<T>(h), w,
           static_cast<float>(alpha), h.numel(), R);
  });
}

void scale_experts_backward(Tensor& dh, Tensor& dweights, const Tensor& dy, const Tensor& h,
                            const Tensor& weights, double alpha) {
  const char* op = "scale_experts_backward";
  const int64_t R = rank_of(op, dy, weights), pairs = weights.numel();
  if (dh.defined()) check_same(op, "dh", dh, "dy", dy);
  if (dweights.defined()) check_same(op, "h", h, "dy", dy);
  const Floats w = floats_of(op, "weights", weights, pairs),
               out_w = floats_of(op, "dweights", dweights, pairs);
  visit_device(op, dy.dtype(), [&]<class T>(T) {
    launch(op, scale_experts_backward_kernel<T>, teams<32>(pairs), device_data<T>(dh), out_w,
           device_data<T>(dy), dweights.defined() ? device_data<T>(h) : nullptr, w, static_cast<float>(alpha),
           pairs, R);
  });
}

}  // namespace burrow::cuda
