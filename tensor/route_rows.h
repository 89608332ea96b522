#pragma once
// What one thread does with a row of routing, on either device: see RouteRule. Rows are short.
#include "tensor/route_rule.h"
#include "tensor/row_ops.h"
#include "tensor/vector_math.h"

namespace burrow::row {

// x^q of x >= 0, q > 0.
template <class T>
BURROW_HD inline T power(T x, double q) {
  return x > T(0) ? vector_exp(static_cast<T>(q) * std::log(x)) : T(0);
}
// x ln x, and 0 at 0.
template <class T>
BURROW_HD inline T times_log(T x) {
  return x == T(0) ? T(0) : x * std::log(x);
}

// The entropy of a row of probabilities, see EntropyRule.
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
// Its slope along the probability p, `value` being the row's entropy. 0 where p + eps is 0: what a softmax
// multiplies it by is 0 faster.
template <class T>
BURROW_HD T entropy_slope(T p, T value, const EntropyRule& rule) {
  const T x = p + static_cast<T>(rule.eps);
  if (x == T(0)) return T(0);
  const double q = rule.index;
  if (q == 1) return static_cast<T>(-rule.unit) * (std::log(x) + T(1));
  const T slope = static_cast<T>(rule.unit * q) * power(x, q) / x;  // of unit * sum x^q
  if (!rule.renyi) return slope / static_cast<T>(1 - q);
  return slope / static_cast<T>(1 - q) * vector_exp(static_cast<T>((q - 1) / rule.unit) * value);
}

// choose(e, chosen) for every expert of a row of probabilities; `entropy` is the row's, for hybrid.
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

// What an expert weighs before the row's weights are divided by their sum.
template <class T>
BURROW_HD T raw_weight(T p, T chosen, const RouteRule& rule) {
  if (rule.soft) return p;
  return rule.gate == GateMode::scaled ? chosen * p : chosen;
}
// weights[e] of a row, from p[e] and chosen[e].
template <class T>
BURROW_HD void weigh_experts(T* weights, const T* p, const T* chosen, int64_t E, const RouteRule& rule) {
  T sum = 0;
  for (int64_t e = 0; e < E; ++e) sum += weights[e] = raw_weight(p[e], chosen[e], rule);
  if (!rule.normalise || sum == T(0)) return;
  const T inverse = T(1) / sum;
  for (int64_t e = 0; e < E; ++e) weights[e] *= inverse;
}

// What reached a row by each of its outputs; null where nothing did. A mean passes on `of_mean` of its own.
template <class T>
struct RouteGradients {
  const T *probs, *weights, *entropy, *mean_probs, *mean_weights;
  T of_mean;

  // Of row n, from those of all rows: it counts in mean `mean` of mean_rows rows, or in none where that is
  // -1.
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
// dlogits[e] of a row: of the weights through the gate (and their sum), then of all that reached p through
// the softmax, p_e (dp_e - sum_j p_j dp_j).
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
