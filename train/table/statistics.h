#pragma once
// The statistics that tables and timings need. Results have the unit of the values; p-values are two-sided.
// Every function throws on too few values and on values that are not finite.
#include <cstdint>
#include <span>
#include <vector>

#include "tensor/check.h"

namespace burrow::train {

double mean(std::span<const double> values);    // at least 1 value
double median(std::span<const double> values);  // at least 1; of an even number, the middle two's mean
double standard_deviation(std::span<const double> values);  // of a sample (n - 1); at least 2 values
double standard_error(std::span<const double> values);      // of the mean; at least 2 values

// Student's t with `degrees` > 0 degrees of freedom.
double student_quantile(double probability, double degrees);  // 0 < probability < 1
double student_p_value(double t, double degrees);             // P(|T| >= |t|)

// The mean difference of pairs, its t interval and the test of "no difference".
struct PairedTest {
  int64_t pairs = 0;
  double difference = 0;      // mean of a - b
  double standard_error = 0;  // of that mean
  double low = 0, high = 0;   // the two-sided interval at the given confidence
  double t = 0, p = 1;
};

// a[i] and b[i] are the same seed under two settings. Needs at least 2 pairs and 0 < confidence < 1. When all
// differences are equal, the standard error is 0, the interval is a point, and p is 1 when the point is 0,
// otherwise 0.
PairedTest paired_test(std::span<const double> a, std::span<const double> b, double confidence = 0.95);

// Holm's step-down correction (1979) of a family of p-values, in the given order. Rejecting the hypotheses
// with a corrected value <= alpha keeps the probability of any false rejection at most alpha. Throws on a
// value outside [0, 1].
std::vector<double> holm(std::span<const double> p_values);

}  // namespace burrow::train
