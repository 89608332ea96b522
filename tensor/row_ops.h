#pragma once
// Arithmetic of one thread, shared by both devices so that CPU tests cover the GPU's too: selecting experts
// in a short row (E is small), a step of AdamW, an angle of rope. A row is read by `score(e)`.
#include <cmath>
#include <cstdint>

#include "tensor/host_device.h"

namespace burrow::row {

// Whether value a at index i comes before b at j in descending order; NaN last, equal values by index.
template <class T>
BURROW_HD bool larger(T a, int64_t i, T b, int64_t j) {
  // NOLINTNEXTLINE(misc-redundant-expression): only NaN differs from itself, and both compilers know it
  const bool a_nan = a != a, b_nan = b != b;
  if (a_nan != b_nan) return b_nan;
  return a > b || (!(b > a) && i < j);
}

// The expert after `last` in descending order of score (see larger); the first if `last` is -1. -1 if there
// is none.
template <class Score>
BURROW_HD int64_t next_in_order(Score score, int64_t E, int64_t last) {
  int64_t best = -1;
  for (int64_t e = 0; e < E; ++e) {
    const bool after = last < 0 || (e != last && larger(score(last), last, score(e), e));
    if (after && (best < 0 || larger(score(e), e, score(best), best))) best = e;
  }
  return best;
}

// Calls choose(e, chosen) for every expert, true for the k largest.
template <class Score, class Choose>
BURROW_HD void top_k(Score score, int64_t E, int64_t k, Choose choose) {
  for (int64_t e = 0; e < E; ++e) choose(e, false);
  int64_t e = -1;
  for (int64_t round = 0; round < k; ++round) {
    e = next_in_order(score, E, e);
    choose(e, true);
  }
}

// RouteRule::Choice::hybrid for one row; sums in T.
template <class T, class Score, class Choose>
BURROW_HD void hybrid(Score score, int64_t E, bool all, double top_p, int64_t k, bool crossing,
                      Choose choose) {
  for (int64_t e = 0; e < E; ++e) choose(e, all);
  T before = 0;
  int64_t e = -1;
  for (int64_t r = 0; r < E; ++r) {
    e = next_in_order(score, E, e);
    const T sum = before + score(e);
    const auto reached = static_cast<double>(crossing ? before : sum);
    choose(e, all || r < k || (crossing ? reached < top_p : reached <= top_p));
    before = sum;
  }
}

// The support of sparsegen for one row; see sparsegen_mask.
template <class T, class Score, class Choose>
BURROW_HD void sparsegen(Score score, int64_t E, T lambda, Choose choose) {
  T sum = 0;
  int64_t support = E < 1 ? E : 1, e = -1;
  for (int64_t k = 1; k <= E; ++k) {
    e = next_in_order(score, E, e);
    sum += score(e);
    if (T(1) - lambda + static_cast<T>(k) * score(e) > sum) support = k;
  }
  top_k(score, E, support, choose);
}

// AdamW's constants for a step, computed in f64; see the kernel adamw.
template <class T>
struct AdamWStep {
  T b1, b2, rest1, rest2, rate, correction, keep, eps, gain;
};
// The constants for step `step` >= 1.
template <class T>
AdamWStep<T> adamw_step(double beta1, double beta2, double eps, double weight_decay, int64_t step, double lr,
                        double grad_scale) {
  const auto t = static_cast<double>(step);
  return {static_cast<T>(beta1),
          static_cast<T>(beta2),
          static_cast<T>(1 - beta1),
          static_cast<T>(1 - beta2),
          static_cast<T>(lr / (1 - std::pow(beta1, t))),
          static_cast<T>(1 / std::sqrt(1 - std::pow(beta2, t))),
          static_cast<T>(1 - lr * weight_decay),
          static_cast<T>(eps),
          static_cast<T>(grad_scale)};
}
// Updates one element.
template <class T>
BURROW_HD inline void adamw(T& value, T& m, T& v, T grad, const AdamWStep<T>& s) {
  const T d = grad * s.gain;
  m = s.b1 * m + s.rest1 * d;
  v = s.b2 * v + s.rest2 * d * d;
  value = s.keep * value - s.rate * m / (std::sqrt(v) * s.correction + s.eps);
}

// The angle position * theta^(-2i/D) by which rope rotates pair i.
BURROW_HD inline double rotary_angle(int64_t position, int64_t i, double theta, int64_t D) {
  return static_cast<double>(position) *
         std::pow(theta, -2 * static_cast<double>(i) / static_cast<double>(D));
}

}  // namespace burrow::row
