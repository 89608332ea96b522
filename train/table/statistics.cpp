#include "train/table/statistics.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <functional>
#include <numeric>

namespace burrow::train {
namespace {

void check_values(const char* name, std::span<const double> values, size_t least) {
  BURROW_CHECK(values.size() >= least, "[{}] {} values; at least {} are needed", name, values.size(), least);
  for (const double v : values) BURROW_CHECK(std::isfinite(v), "[{}] one of the values is {}", name, v);
}

}  // namespace

double mean(std::span<const double> values) {
  check_values("mean", values, 1);
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double median(std::span<const double> values) {
  check_values("median", values, 1);
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const size_t n = sorted.size();
  return n % 2 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]);
}

double standard_deviation(std::span<const double> values) {
  check_values("standard_deviation", values, 2);
  const double middle = mean(values);
  // Two passes: the difference of sums of squares would cancel for metrics that barely vary.
  double squares = 0;
  for (const double v : values) squares += (v - middle) * (v - middle);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

double standard_error(std::span<const double> values) {
  return standard_deviation(values) / std::sqrt(static_cast<double>(values.size()));
}

double student_quantile(double probability, double degrees) {
  BURROW_CHECK(0 < probability && probability < 1, "[student_quantile] probability {}", probability);
  BURROW_CHECK(degrees > 0, "[student_quantile] {} degrees of freedom", degrees);
  return boost::math::quantile(boost::math::students_t(degrees), probability);
}

double student_p_value(double t, double degrees) {
  BURROW_CHECK(!std::isnan(t), "[student_p_value] t is NaN");
  BURROW_CHECK(degrees > 0, "[student_p_value] {} degrees of freedom", degrees);
  if (std::isinf(t)) return 0;
  // The lower tail keeps its precision where 1 - cdf would not.
  return std::min(1.0, 2 * boost::math::cdf(boost::math::students_t(degrees), -std::abs(t)));
}

PairedTest paired_test(std::span<const double> a, std::span<const double> b, double confidence) {
  BURROW_CHECK(a.size() == b.size(), "[paired_test] {} values against {}", a.size(), b.size());
  BURROW_CHECK(0 < confidence && confidence < 1, "[paired_test] confidence {}", confidence);
  check_values("paired_test", a, 2);
  check_values("paired_test", b, 2);
  std::vector<double> differences(a.size());
  std::transform(a.begin(), a.end(), b.begin(), differences.begin(), std::minus<>());
  const double degrees = static_cast<double>(a.size() - 1);
  PairedTest test;
  test.pairs = static_cast<int64_t>(a.size());
  test.difference = mean(differences);
  test.standard_error = standard_error(differences);
  const double half = student_quantile(0.5 + confidence / 2, degrees) * test.standard_error;
  test.low = test.difference - half;
  test.high = test.difference + half;
  // Infinite where the pairs differ by a constant; 0 where that constant is 0.
  test.t = test.difference == 0 ? 0 : test.difference / test.standard_error;
  test.p = student_p_value(test.t, degrees);
  return test;
}

std::vector<double> holm(std::span<const double> p_values) {
  for (const double p : p_values) BURROW_CHECK(0 <= p && p <= 1, "[holm] {} is not a p-value", p);
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return p_values[i] < p_values[j]; });
  std::vector<double> corrected(p_values.size());
  double highest = 0;  // a corrected value is never below that of a smaller p
  for (size_t k = 0; k < order.size(); ++k) {
    const double left = static_cast<double>(order.size() - k);
    highest = std::max(highest, std::min(1.0, left * p_values[order[k]]));
    corrected[order[k]] = highest;
  }
  return corrected;
}

}  // namespace burrow::train
