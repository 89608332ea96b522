#pragma once
// Routing of one row by one thread, on either device; see RouteRule. Rows are short (E elements).
#include "tensor/route_rule.h"
#include "tensor/row_ops.h"
#include "tensor/vector_math.h"

namespace burrow::row {

// x^q for x >= 0, q > 0.
template <class T>
BURROW_HD inline T power(T x, double q) {
  return x > T(0) ? vector_exp(static_cast<T>(q) * std::log(x)) : T(0);
}
// x ln x, 0 at 0.
template <class T>
BURROW_HD inline T times_log(T x) {
  return x == T(0) ? T(0) : x * std::log(x);
}

// The entropy of a row of probabilities; see EntropyRule.
template <class T, class Score>
BURROW_HD T entropy(Score p, int64_t E, const EntropyRule& rule) {
  T sum = 0;
  const bool shannon = rule.index == 1;
  for (int64_t e = 0; e < E; ++e) {
    const T x = p(e) + static_cast<T>(rule.eps);
    sum += shannon ? times_log(x) : power(x, rule.index);
  }
  const double q = rule.index;
  if (shannon) return static_cast<T>(-rule.unit) * sum;
  if (rule.renyi) return static_cast<T>(rule.unit / (1 - q)) * std::log(sum);
  return static_cast<T>(rule.unit / (q - 1)) * (T(1) - sum);
}
// The derivative of entropy, whose value for the row is `value`, by the probability p. 0 if p + eps is 0: the
// gradient of softmax multiplies by p, and the product tends to 0.
template <class T>
BURROW_HD T entropy_slope(T p, T value, const EntropyRule& rule) {
  const T x = p + static_cast<T>(rule.eps);
  if (x == T(0)) return T(0);
  const double q = rule.index;
  if (q == 1) return static_cast<T>(-rule.unit) * (std::log(x) + T(1));
  const T slope = static_cast<T>(rule.unit * q) * power(x, q) / x;  // derivative of unit * sum x^q
  if (!rule.renyi) return slope / static_cast<T>(1 - q);
  return slope / static_cast<T>(1 - q) * vector_exp(static_cast<T>((q - 1) / rule.unit) * value);
}

// Calls choose(e, chosen) for every expert of a row of probabilities; `entropy` is the row's, used by hybrid.
template <class T, class Score, class Choose>
BURROW_HD void choose_experts(Score p, int64_t E, T entropy, const RouteRule& rule, Choose choose) {
  switch (rule.choice) {
    case RouteRule::Choice::top_k:
      return top_k(p, E, rule.k, choose);
    case RouteRule::Choice::first:
      for (int64_t e = 0; e < E; ++e) choose(e, e < rule.k);
      return;
    case RouteRule::Choice::hybrid:
      return hybrid<T>(p, E, static_cast<double>(entropy) > rule.entropy_threshold, rule.top_p, rule.k,
                       rule.crossing, choose);
  }
}

// The weight of an expert before normalisation.
template <class T>
BURROW_HD T raw_weight(T p, T chosen, const RouteRule& rule) {
  if (rule.soft) return p;
  return rule.gate == GateMode::scaled ? chosen * p : chosen;
}
// Computes the weights of a row from p and chosen.
template <class T>
BURROW_HD void weigh_experts(T* weights, const T* p, const T* chosen, int64_t E, const RouteRule& rule) {
  T sum = 0;
  for (int64_t e = 0; e < E; ++e) sum += weights[e] = raw_weight(p[e], chosen[e], rule);
  if (!rule.normalise || sum == T(0)) return;
  const T inverse = T(1) / sum;
  for (int64_t e = 0; e < E; ++e) weights[e] *= inverse;
}

// The gradients of the outputs for one row; null if there is none. A mean's gradient counts `of_mean`-fold.
template <class T>
struct RouteGradients {
  const T *probs, *weights, *entropy, *mean_probs, *mean_weights;
  T of_mean;

  // The gradients for row n, from those of all rows. The row is in mean number `mean`, over mean_rows[mean]
  // rows; -1 if in none.
  BURROW_HD RouteGradients row(int64_t n, int64_t mean, const T* mean_rows, int64_t E) const {
    const auto at = [](const T* x, int64_t i) -> const T* { return x && i >= 0 ? x + i : nullptr; };
    return {at(probs, n * E),         at(weights, n * E),         at(entropy, n),
            at(mean_probs, mean * E), at(mean_weights, mean * E), mean < 0 ? T(0) : T(1) / mean_rows[mean]};
  }
  BURROW_HD T weight(int64_t e) const {
    T d = weights ? weights[e] : T(0);
    if (mean_weights) d += mean_weights[e] * of_mean;
    return d;
  }
};
// dlogits[e] of a row: dp collects the gradients of probs, of the weights through gate and normalisation, and
// of the entropy; the softmax gives dlogits = p_e (dp_e - sum_j p_j dp_j).
template <class T>
BURROW_HD void route_backward(T* dlogits, const RouteGradients<T>& d, const T* p, const T* chosen,
                              const T* weights, T entropy, int64_t E, const RouteRule& rule) {
  T raw = 0, shared = 0;
  if (rule.normalise) {
    for (int64_t e = 0; e < E; ++e) {
      raw += raw_weight(p[e], chosen[e], rule);
      shared += d.weight(e) * weights[e];
    }
  }
  const T inverse = raw == T(0) ? T(1) : T(1) / raw;
  T sum = 0;
  for (int64_t e = 0; e < E; ++e) {
    T dp = d.probs ? d.probs[e] : T(0);
    if (d.mean_probs) dp += d.mean_probs[e] * d.of_mean;
    if (rule.soft || (rule.gate != GateMode::none && chosen[e] != T(0)))
      dp += (d.weight(e) - shared) * inverse;
    if (d.entropy) dp += *d.entropy * entropy_slope(p[e], entropy, rule.entropy);
    dlogits[e] = dp;
    sum += p[e] * dp;
  }
  for (int64_t e = 0; e < E; ++e) dlogits[e] = p[e] * (dlogits[e] - sum);
}

}  // namespace burrow::row
