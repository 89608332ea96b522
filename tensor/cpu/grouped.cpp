// Sorting rows by the experts that they chose, and applying expert weights to the sorted rows.
// A thread owns rows of the weights and processes their places; the sort itself runs on one thread.
#include "tensor/cpu/groups.h"
#include "tensor/cpu/parallel.h"
#include "tensor/scalar_ops.h"
#include "tensor/vector_math.h"

namespace burrow::cpu {

// order = the rows n of all (n, e) with chosen[n,e] != 0, by e, then by n; offsets[e] = the first place of e
// in: chosen [N,E]   out: order i32 [M], offsets i32 [E+1], written; throws unless M are chosen
// One thread makes two passes over the mask.
void group_by_expert(Tensor& order, Tensor& offsets, const Tensor& chosen) {
  const int64_t N = leading(chosen), E = channels(chosen), M = order.numel();
  check_vector("group_by_expert", "order", order, DType::i32, M);
  check_vector("group_by_expert", "offsets", offsets, DType::i32, E + 1);
  int32_t *rows = order.data<int32_t>(), *begin = offsets.data<int32_t>();
  visit_float("group_by_expert", chosen.dtype(), [&]<class T>(T) {
    const T* mask = chosen.data<T>();
    std::fill_n(begin, E + 1, 0);
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t e = 0; e < E; ++e) begin[e + 1] += mask[n * E + e] != T(0);
    }
    for (int64_t e = 0; e < E; ++e) begin[e + 1] += begin[e];
    BURROW_CHECK(begin[E] == M, "[group_by_expert] chosen {} holds {} choices, order has {} places",
                 chosen.shape(), begin[E], M);
    struct Next;
    int32_t* next = scratch<int32_t, Next>(E);
    std::copy_n(begin, E, next);
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t e = 0; e < E; ++e) {
        if (mask[n * E + e] != T(0)) rows[next[e]++] = static_cast<int32_t>(n);
      }
    }
  });
}

// y[j] = alpha weights[order[j], e] h[j], e the expert of place j
// in: h [M,R], weights [N,E]   out: y [M,R], written; y may be h
// A thread owns rows of weights.
void grouped_scale(Tensor& y, const Tensor& h, const Tensor& weights, const ExpertGroups& groups,
                   double alpha) {
  const char* op = "grouped_scale";
  const int64_t N = leading(weights), E = channels(weights), M = leading(h), R = channels(h);
  const Groups g = checked(op, groups, N);
  rank_of(op, h, g.experts, groups.order.numel(), E * R);
  check_matrix(op, "weights", weights, h.dtype(), N, E);
  check_same(op, "y", y, "h", h);
  visit_float(op, h.dtype(), [&]<class T>(T) {
    const T *in = h.data<T>(), *w = weights.data<T>();
    T* out = y.data<T>();
    parallel_rows(N, M * R, [=, a = static_cast<T>(alpha)](int64_t first, int64_t last) {
      rows_of(g, first, last, [&](int64_t e, int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) {
          const T factor = a * w[g.order[j] * E + e];
          for (int64_t r = 0; r < R; ++r) out[j * R + r] = factor * in[j * R + r];
        }
      });
    });
  });
}

// dh[j] = alpha weights[order[j], e] dy[j]
// dweights[order[j], e] = alpha sum_r dy[j, r] h[j, r], 0 where no place has (n, e)
// in: dy h [M,R], weights [N,E]; h may be undefined where dweights is
// out: dh [M,R], dweights [N,E], written; each or undefined; dh may be dy
// A thread owns rows of weights; sums in the dtype.
void grouped_scale_backward(Tensor& dh, Tensor& dweights, const Tensor& dy, const Tensor& h,
                            const Tensor& weights, const ExpertGroups& groups, double alpha) {
  const char* op = "grouped_scale_backward";
  const int64_t N = leading(weights), E = channels(weights), M = leading(dy), R = channels(dy);
  const Groups g = checked(op, groups, N);
  rank_of(op, dy, g.experts, groups.order.numel(), E * R);
  check_matrix(op, "weights", weights, dy.dtype(), N, E);
  if (dh.defined()) check_same(op, "dh", dh, "dy", dy);
  if (dweights.defined()) {
    check_same(op, "dweights", dweights, "weights", weights);
    check_same(op, "h", h, "dy", dy);
  }
  visit_float(op, dy.dtype(), [&]<class T>(T) {
    const T *d = dy.data<T>(), *w = weights.data<T>();
    const T* in = dweights.defined() ? h.data<T>() : nullptr;
    T* out = dh.defined() ? dh.data<T>() : nullptr;
    T* out_w = dweights.defined() ? dweights.data<T>() : nullptr;
    parallel_rows(N, N * E + 2 * M * R, [=, a = static_cast<T>(alpha)](int64_t first, int64_t last) {
      if (out_w) std::fill(out_w + first * E, out_w + last * E, T(0));
      rows_of(g, first, last, [&](int64_t e, int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) {
          const int64_t at = g.order[j] * E + e;
          const T* g_row = d + j * R;
          if (out_w) {
            const T* h_row = in + j * R;
            T sum = 0;
#pragma omp simd reduction(+ : sum)  // R is the width of an FFN where whole FFNs are experts
            for (int64_t r = 0; r < R; ++r) sum += g_row[r] * h_row[r];
            out_w[at] = a * sum;
          }
          for (int64_t r = 0; out && r < R; ++r) out[j * R + r] = a * w[at] * g_row[r];
        }
      });
    });
  });
}

namespace {

// Checks gate and up [M,F] against groups and weights [N,E].
Groups checked_swiglu(const char* op, const Tensor& gate, const Tensor& up, const Tensor& weights,
                      const ExpertGroups& groups) {
  const int64_t N = leading(weights), E = channels(weights);
  const Groups g = checked(op, groups, N);
  rank_of(op, gate, g.experts, groups.order.numel(), E * channels(gate));
  check_same(op, "up", up, "gate", gate);
  check_matrix(op, "weights", weights, gate.dtype(), N, E);
  return g;
}

// The gradients of one place with weight w; dgate and dup may be null. Returns sum_f dy silu(gate) up.
template <class T>
T swiglu_gradients(T* dgate, T* dup, const T* dy, const T* gate, const T* up, T w, int64_t F) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t f = 0; f < F; ++f) {
    const T s = T(1) / (T(1) + vector_exp(-gate[f])), silu = gate[f] * s, d = w * dy[f];
    sum += dy[f] * silu * up[f];
    if (dgate) dgate[f] = d * up[f] * (s + silu * (T(1) - s));
    if (dup) dup[f] = d * silu;
  }
  return sum;
}

}  // namespace

// y[j] = weights[order[j], e] silu(gate[j]) up[j], e the expert of place j
// in: gate up [M,F], weights [N,E]   out: y [M,F], written; y may be either
// A thread owns rows of weights.
// Source: Shazeer, GLU Variants Improve Transformer, 2020; the weights: MixLoRA, arXiv 2404.15159, section 3.
void grouped_swiglu(Tensor& y, const Tensor& gate, const Tensor& up, const Tensor& weights,
                    const ExpertGroups& groups) {
  const char* op = "grouped_swiglu";
  const int64_t N = leading(weights), E = channels(weights), F = channels(gate);
  const Groups g = checked_swiglu(op, gate, up, weights, groups);
  check_same(op, "y", y, "gate", gate);
  visit_float(op, gate.dtype(), [&]<class T>(T) {
    const T *a = gate.data<T>(), *b = up.data<T>(), *w = weights.data<T>();
    T* out = y.data<T>();
    parallel_rows(N, 10 * gate.numel(), [=](int64_t first, int64_t last) {
      rows_of(g, first, last, [&](int64_t e, int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) {
          const T factor = w[g.order[j] * E + e];
#pragma omp simd
          for (int64_t i = j * F; i < (j + 1) * F; ++i) out[i] = factor * (scalar::silu::f(a[i]) * b[i]);
        }
      });
    });
  });
}

// With w = weights[order[j], e]:  dgate[j] = w dy[j] up[j] silu'(gate[j]),  dup[j] = w dy[j] silu(gate[j]),
// dweights[order[j], e] = sum_f dy[j,f] silu(gate[j,f]) up[j,f], 0 where no place has (n, e)
// in: dy gate up [M,F], weights [N,E]
// out: dgate dup [M,F], dweights [N,E], written; each or undefined
// A thread owns rows of weights; sums in the dtype.
void grouped_swiglu_backward(Tensor& dgate, Tensor& dup, Tensor& dweights, const Tensor& dy,
                             const Tensor& gate, const Tensor& up, const Tensor& weights,
                             const ExpertGroups& groups) {
  const char* op = "grouped_swiglu_backward";
  const int64_t N = leading(weights), E = channels(weights), F = channels(gate);
  const Groups g = checked_swiglu(op, gate, up, weights, groups);
  check_same(op, "dy", dy, "gate", gate);
  if (dgate.defined()) check_same(op, "dgate", dgate, "gate", gate);
  if (dup.defined()) check_same(op, "dup", dup, "gate", gate);
  if (dweights.defined()) check_same(op, "dweights", dweights, "weights", weights);
  visit_float(op, gate.dtype(), [&]<class T>(T) {
    const T *d = dy.data<T>(), *a = gate.data<T>(), *b = up.data<T>(), *w = weights.data<T>();
    T *to_gate = dgate.defined() ? dgate.data<T>() : nullptr,
      *to_up = dup.defined() ? dup.data<T>() : nullptr,
      *to_w = dweights.defined() ? dweights.data<T>() : nullptr;
    parallel_rows(N, N * E + 15 * gate.numel(), [=](int64_t first, int64_t last) {
      if (to_w) std::fill(to_w + first * E, to_w + last * E, T(0));
      rows_of(g, first, last, [&](int64_t e, int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) {
          const int64_t at = g.order[j] * E + e, row = j * F;
          const T sum = swiglu_gradients(to_gate ? to_gate + row : nullptr, to_up ? to_up + row : nullptr,
                                         d + row, a + row, b + row, w[at], F);
          if (to_w) to_w[at] = sum;
        }
      });
    });
  });
}

}  // namespace burrow::cpu
