// Masks of chosen experts, and the scaling of their rank channels by the routing weights.
// A thread owns rows.
#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/kernels.h"
#include "tensor/row_ops.h"

namespace burrow::cpu {
namespace {

// Adapters for row_ops.h: a row of scores to read, and a row of a mask to write.
template <class T>
struct Scores {
  const T* p;
  T operator()(int64_t e) const { return p[e]; }
};
template <class T>
struct Mask {
  T* p;
  void operator()(int64_t e, bool chosen) const { p[e] = chosen ? T(1) : T(0); }
};

}  // namespace

// mask[n,e] = 1 where probs[n,e] is among the k largest of its row (the first of equals), else 0
// in: probs [N,E], 1 <= k <= E   out: mask [N,E], written
// A thread owns rows and scans each k times, as E is small.
void top_k_mask(Tensor& mask, const Tensor& probs, int64_t k) {
  const int64_t E = channels(probs), N = leading(probs);
  check_same("top_k_mask", "mask", mask, "probs", probs);
  BURROW_CHECK(k >= 1 && k <= E, "[top_k_mask] k is {}, expected 1 <= k <= {} for probs {}", k, E,
               probs.shape());
  visit_float("top_k_mask", probs.dtype(), [&]<class T>(T) {
    const T* p = probs.data<T>();
    T* out = mask.data<T>();
    parallel_rows(N, N * E * k, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        row::top_k(Scores<T>{p + n * E}, E, k, Mask<T>{out + n * E});
      }
    });
  });
}

// mask[n,e] = 1 for the k largest u of a row, k the last with 1 - lambda[n] + k u_k > sum_{j<=k} u_j, else 0
// in: scores u [N,E], lambda [N] < 1   out: mask [N,E], written
// A thread owns rows; sums in the dtype.
// Source: sparsegen-lin (Laha et al. 2018, arXiv 1810.11975, section 3), as LD-MoLE uses it.
void sparsegen_mask(Tensor& mask, const Tensor& scores, const Tensor& lambda) {
  const int64_t E = channels(scores), N = leading(scores);
  check_same("sparsegen_mask", "mask", mask, "scores", scores);
  check_vector("sparsegen_mask", "lambda", lambda, scores.dtype(), N);
  visit_float("sparsegen_mask", scores.dtype(), [&]<class T>(T) {
    const T *u = scores.data<T>(), *l = lambda.data<T>();
    T* out = mask.data<T>();
    parallel_rows(N, 20 * N * E, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        row::sparsegen<T>(Scores<T>{u + n * E}, E, l[n], Mask<T>{out + n * E});
    });
  });
}

namespace {

// Checks h [N,E*R] against weights [N,E] and returns R.
int64_t rank_of(const char* op, const Tensor& h, const Tensor& weights) {
  const int64_t E = channels(weights);
  check_matrix(op, "weights", weights, h.dtype(), leading(h), E);
  BURROW_CHECK(E > 0 && channels(h) % E == 0, "[{}] h {} does not split into equal parts for {} experts", op,
               h.shape(), E);
  return channels(h) / E;
}

}  // namespace

// y[n, e*R + r] = alpha weights[n,e] h[n, e*R + r]
// in: h [N,E*R], weights [N,E]   out: y [N,E*R], written; y may be h
// A thread owns rows.
void scale_experts(Tensor& y, const Tensor& h, const Tensor& weights, double alpha) {
  const int64_t R = rank_of("scale_experts", h, weights), N = leading(h), E = channels(weights);
  check_same("scale_experts", "y", y, "h", h);
  visit_float("scale_experts", h.dtype(), [&]<class T>(T) {
    const T *in = h.data<T>(), *w = weights.data<T>();
    T* out = y.data<T>();
    parallel_rows(N * E, N * E * R, [=, a = static_cast<T>(alpha)](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const T factor = a * w[i];
        for (int64_t r = 0; r < R; ++r) out[i * R + r] = factor * in[i * R + r];
      }
    });
  });
}

// dh[n, e*R + r] = alpha weights[n,e] dy[n, e*R + r]
// dweights[n,e] = alpha sum_r dy[n, e*R + r] h[n, e*R + r]
// in: dy h [N,E*R], weights [N,E]; h may be undefined where dweights is
// out: dh [N,E*R], dweights [N,E], written; each or undefined; dh may be dy
// A thread owns rows; sums in the dtype.
void scale_experts_backward(Tensor& dh, Tensor& dweights, const Tensor& dy, const Tensor& h,
                            const Tensor& weights, double alpha) {
  const char* op = "scale_experts_backward";
  const int64_t R = rank_of(op, dy, weights), N = leading(dy), E = channels(weights);
  if (dh.defined()) check_same(op, "dh", dh, "dy", dy);
  if (dweights.defined()) {
    check_same(op, "dweights", dweights, "weights", weights);
    check_same(op, "h", h, "dy", dy);
  }
  visit_float(op, dy.dtype(), [&]<class T>(T) {
    const T *g = dy.data<T>(), *w = weights.data<T>();
    const T* in = dweights.defined() ? h.data<T>() : nullptr;
    T* out = dh.defined() ? dh.data<T>() : nullptr;
    T* out_w = dweights.defined() ? dweights.data<T>() : nullptr;
    parallel_rows(N * E, 2 * N * E * R, [=, a = static_cast<T>(alpha)](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        T sum = 0;
        for (int64_t r = 0; out_w && r < R; ++r) sum += g[i * R + r] * in[i * R + r];
        if (out_w) out_w[i] = a * sum;
        for (int64_t r = 0; out && r < R; ++r) out[i * R + r] = a * w[i] * g[i * R + r];
      }
    });
  });
}

}  // namespace burrow::cpu
