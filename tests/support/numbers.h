#pragma once
// Random tensors determined by names, norms and relative errors.
#include <map>
#include <string_view>

#include "tests/support/kernel_testing.h"

namespace burrow::testing {

// A tensor of N(0, 1) values determined by (name, shape).
inline Tensor normal(std::string_view name, const Shape& shape, DType dtype = DType::f64) {
  Tensor t = Tensor::empty(shape, DType::f64);
  Random random(random_key(1, 0, name));
  for (int64_t i = 0; i < t.numel(); ++i) t.data<double>()[i] = random.normal();
  return t.to(dtype);
}

inline double norm(const Tensor& t) {
  double sum = 0;
  for (const double x : values_of(t)) sum += x * x;
  return std::sqrt(sum);
}

inline double distance(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const Values va = values_of(a), vb = values_of(b);
  double sum = 0;
  for (size_t i = 0; i < va.size(); ++i) sum += (va[i] - vb[i]) * (va[i] - vb[i]);
  return std::sqrt(sum);
}

// ‖a − b‖ / max(‖b‖, floor). The floor handles references that are zero, exactly or by cancellation.
inline double relative_error(const Tensor& a, const Tensor& b, double floor = 1e-6) {
  return distance(a, b) / std::max(norm(b), floor);
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.defined() == b.defined() &&
         (!a.defined() || (a.shape() == b.shape() && a.dtype() == b.dtype() &&
                           (a.nbytes() == 0 || std::memcmp(a.bytes(), b.bytes(), a.nbytes()) == 0)));
}

// Records the largest error of each kind of comparison and where it occurred; printed at the end of a run.
class WorstErrors {
 public:
  void note(const std::string& kind, double error, const std::string& what) {
    auto& [worst, where] = worst_[kind];
    if (where.empty() || !(error <= worst)) {
      worst = error;
      where = what;
    }
  }
  void print() const {
    for (const auto& [kind, entry] : worst_) {
      fmt::print("worst error, {:<24} {:.1e}  {}\n", kind, entry.first, entry.second);
    }
  }

 private:
  std::map<std::string, std::pair<double, std::string>> worst_;
};
inline WorstErrors& worst_errors() {
  static WorstErrors errors;
  return errors;
}
// The main of tests that note errors.
inline int run_and_print_worst(int argc, char** argv) {
  doctest::Context context(argc, argv);
  const int result = context.run();
  if (!context.shouldExit()) worst_errors().print();
  return result;
}

// Fails unless `error` is below `bound`; a NaN fails.
inline void check_below(const std::string& kind, double error, double bound, const std::string& what) {
  worst_errors().note(kind, error, what);
  CHECK_MESSAGE(error < bound,
                fmt::format("{}: {} is off by {:.3e}, allowed {:.1e}", kind, what, error, bound));
}

}  // namespace burrow::testing
