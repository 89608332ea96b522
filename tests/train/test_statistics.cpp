#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "train/table/statistics.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using namespace burrow;
using namespace burrow::train;
using Values = std::vector<double>;

namespace {

// The references have 15 digits; the distribution functions are accurate up to the last few.
void close(double value, double reference) {
  INFO("value " << value << ", reference " << reference);
  CHECK(std::abs(value - reference) <= 1e-11 * std::abs(reference) + 1e-300);
}

const Values kA{0.712, 0.705, 0.731, 0.698, 0.720}, kB{0.701, 0.699, 0.712, 0.700, 0.709};

}  // namespace

TEST_CASE("mean, deviation and error of a sample") {  // numpy and scipy.stats.sem
  close(mean(kA), 0.7132);
  close(standard_deviation(kA), 0.01287245120402483);
  close(standard_error(kA), 0.005756735185849707);
  CHECK(mean(Values{3}) == 3);
  CHECK(standard_error(Values{2, 2, 2}) == 0);
  // A large offset does not lose the variation.
  CHECK(standard_deviation(Values{1e9 + 1, 1e9 + 2, 1e9 + 3}) == 1);
}

TEST_CASE("Student's t") {  // scipy.stats.t.ppf and 2 * scipy.stats.t.sf; the first rows are in every table
  close(student_quantile(0.975, 1), 12.706204736174694);
  close(student_quantile(0.975, 2), 4.302652729749462);
  close(student_quantile(0.975, 4), 2.7764451051977934);
  close(student_quantile(0.975, 9), 2.262157162798205);
  close(student_quantile(0.995, 4), 4.604094871349992);
  close(student_quantile(0.95, 30), 1.697260886593957);
  close(student_quantile(0.975, 1e6), 1.959966356814107);
  close(student_quantile(0.025, 4), -2.7764451051977943);
  CHECK(student_quantile(0.5, 3) == 0);
  close(student_p_value(2, 4), 0.11611652351681556);
  close(student_p_value(-2, 4), 0.11611652351681556);
  close(student_p_value(50, 3), 1.761715204127197e-05);
  close(student_p_value(1e-3, 7), 0.9992300172449988);
  close(student_p_value(300, 10), 4.1654975234292345e-21);
  CHECK(student_p_value(0, 5) == 1);
  CHECK(student_p_value(std::numeric_limits<double>::infinity(), 5) == 0);
}

TEST_CASE("paired differences") {  // scipy.stats.ttest_rel
  PairedTest test = paired_test(kA, kB);
  CHECK(test.pairs == 5);
  close(test.difference, 0.009);
  close(test.standard_error, 0.003449637662132071);
  close(test.t, 2.608969660436018);
  close(test.p, 0.05948435641627081);
  close(test.low, -0.0005777296017325396);
  close(test.high, 0.018577729601732554);
  test = paired_test(kA, kB, 0.9);
  close(test.low, 0.0016459010359923714);
  close(test.high, 0.016354098964007642);
  // Student's own data (1908): extra sleep under two drugs.
  const Values first{0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0};
  const Values second{1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4};
  test = paired_test(first, second);
  close(test.t, -4.062127683382037);
  close(test.p, 0.002832890197384273);
  close(test.low, -2.459885763276983);
  close(test.high, -0.7001142367230175);
}

TEST_CASE("pairs that differ by a constant") {
  PairedTest test = paired_test(Values{1, 2, 3}, Values{1, 2, 3});
  CHECK(test.difference == 0);
  CHECK(test.p == 1);
  CHECK(test.low == 0);
  CHECK(test.high == 0);
  test = paired_test(Values{2, 3, 4}, Values{1, 2, 3});
  CHECK(test.p == 0);
  CHECK(test.low == 1);
  CHECK(test.high == 1);
}

TEST_CASE("Holm's correction") {  // statsmodels' multipletests(method="holm"), R's p.adjust
  const auto check = [](const Values& p, const Values& reference) {
    const Values corrected = holm(p);
    REQUIRE(corrected.size() == reference.size());
    for (size_t i = 0; i < p.size(); ++i) close(corrected[i], reference[i]);
  };
  check({0.01, 0.04, 0.03, 0.005}, {0.03, 0.06, 0.06, 0.02});
  check(
      {0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216, 0.222, 0.251, 0.269, 0.275, 0.34},
      {0.015, 0.112, 0.507, 0.507, 0.507, 0.6, 0.666, 1, 1, 1, 1, 1, 1, 1, 1});
  check({0.5, 0.5}, {1, 1});
  check({0.05}, {0.05});
  check({0, 1}, {0, 1});
  check({}, {});
}

TEST_CASE("median: the middle value, or the mean of the middle two") {
  CHECK(median(Values{3}) == 3);
  CHECK(median(Values{9, 1, 4}) == 4);
  CHECK(median(Values{9, 1, 4, 2}) == 3);
  CHECK_THROWS_WITH(median(Values{}), "[median] 0 values; at least 1 are needed");
}

TEST_CASE("invalid input is refused") {
  const double nan = std::nan("");
  CHECK_THROWS_WITH(mean(Values{}), "[mean] 0 values; at least 1 are needed");
  CHECK_THROWS_WITH(standard_error(Values{1}), "[standard_deviation] 1 values; at least 2 are needed");
  CHECK_THROWS_WITH(mean(Values{1, nan}), "[mean] one of the values is nan");
  CHECK_THROWS_WITH(paired_test(Values{1, 2}, Values{1}), "[paired_test] 2 values against 1");
  CHECK_THROWS_WITH(paired_test(Values{1}, Values{1}), "[paired_test] 1 values; at least 2 are needed");
  CHECK_THROWS_WITH(paired_test(kA, kB, 95), "[paired_test] confidence 95");
  CHECK_THROWS_WITH(student_quantile(1, 3), "[student_quantile] probability 1");
  CHECK_THROWS_WITH(student_quantile(0.5, 0), "[student_quantile] 0 degrees of freedom");
  CHECK_THROWS_WITH(student_p_value(nan, 3), "[student_p_value] t is NaN");
  CHECK_THROWS_WITH(holm(Values{0.5, nan}), "[holm] nan is not a p-value");
  CHECK_THROWS_WITH(holm(Values{-0.1}), "[holm] -0.1 is not a p-value");
}
