#pragma once
// Helpers for tests of kernels: random inputs, outputs between guard bytes, comparison with an f64 reference.
#include <doctest/doctest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tensor/kernels.h"
#include "tensor/rng.h"
#include "tests/support/errors.h"

namespace burrow::testing {

using Values = std::vector<double>;

// The outputs of a kernel: views into larger blocks with a pattern at both ends, in which check() detects
// writes outside the views. Outputs are initialised with NaN, so that unwritten elements are detected.
class Outputs {
 public:
  Tensor make(Shape shape, DType dtype, double start = std::nan("")) {
    const auto bytes = static_cast<size_t>(shape.numel()) * size_of(dtype);
    auto storage = Storage::allocate(bytes + 2 * kGuard, Device::cpu, "guarded");
    std::memset(storage->bytes(), kPattern, bytes + 2 * kGuard);
    blocks_.push_back({storage, bytes});
    Tensor t = Tensor::view(storage, kGuard, std::move(shape), dtype);
    if (dtype != DType::i32) t.copy_from(Tensor::full(t.shape(), start, dtype));
    return t;
  }
  template <class T>
  Tensor make(Shape shape, double start = std::nan("")) {
    return make(std::move(shape), DTypeOf<T>::value, start);
  }
  Tensor copy(const Tensor& t) {
    Tensor out = make(t.shape(), t.dtype());
    out.copy_from(t);
    return out;
  }
  void check() const {
    for (const auto& [storage, bytes] : blocks_) {
      for (size_t i = 0; i < kGuard; ++i) {
        REQUIRE(storage->bytes()[i] == std::byte{kPattern});
        REQUIRE(storage->bytes()[kGuard + bytes + i] == std::byte{kPattern});
      }
    }
  }
  ~Outputs() { check(); }

 private:
  static constexpr size_t kGuard = 128;
  static constexpr unsigned char kPattern = 0xA5;
  struct Block {
    std::shared_ptr<Storage> storage;
    size_t bytes;
  };
  std::vector<Block> blocks_;
};

inline Random& source() {
  static Random random(20260101);
  return random;
}
template <class T>
Tensor random_tensor(Shape shape, double spread = 1) {
  Tensor t = Tensor::empty(std::move(shape), DTypeOf<T>::value);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<T>()[i] = static_cast<T>(spread * source().normal());
  return t;
}
inline Tensor random_index(int64_t n, int32_t low, int32_t high) {
  Tensor t = Tensor::empty({n}, DType::i32);
  for (int64_t i = 0; i < n; ++i) {
    t.data<int32_t>()[i] = low + static_cast<int32_t>(source().below(static_cast<uint32_t>(high - low)));
  }
  return t;
}
inline Tensor index_of(std::vector<int32_t> values) {
  const auto n = static_cast<int64_t>(values.size());
  return Tensor::of({n}, values);
}

inline Values values_of(const Tensor& t) {
  Values v;
  visit_any(t.dtype(), [&]<class T>(T) {
    for (int64_t i = 0; i < t.numel(); ++i) {
      if constexpr (std::is_same_v<T, bf16>)
        v.push_back(static_cast<float>(t.data<T>()[i]));
      else
        v.push_back(static_cast<double>(t.data<T>()[i]));
    }
  });
  return v;
}

// Checks that the largest error divided by the largest reference value is at most 1e-12 in f64, 1e-5 in f32.
// Sums of a few hundred terms have a tenth of that.
inline void check_near(const std::string& what, const Tensor& got, const Values& want, double factor = 1) {
  CAPTURE(what);
  CAPTURE(fmt::format("{}", got.shape()));
  REQUIRE(got.numel() == static_cast<int64_t>(want.size()));
  const Values v = values_of(got);
  double most = 0.01, error = 0;  // lower bound of the divisor, for references that are 0
  bool comparable = true;
  for (size_t i = 0; i < v.size(); ++i) {
    if (std::isinf(want[i])) {
      comparable = comparable && v[i] == want[i];
      continue;
    }
    most = std::max(most, std::abs(want[i]));
    error = std::max(error, std::abs(v[i] - want[i]));
    comparable = comparable && std::isfinite(v[i]);  // std::max would ignore a NaN
  }
  CHECK(comparable);
  CHECK(error / most <= factor * (got.dtype() == DType::f64 ? 1e-12 : 1e-5));
}
inline void check_same_bits(const Tensor& a, const Tensor& b) {
  REQUIRE(a.nbytes() == b.nbytes());
  CHECK((a.nbytes() == 0 || std::memcmp(a.bytes(), b.bytes(), a.nbytes()) == 0));
}

// Checks that the tensors returned by run() have the same bits for any number of threads.
template <class F>
void check_same_on_threads(F&& run) {
  const int before = omp_get_max_threads();
  const auto on = [&](int threads) {
    omp_set_num_threads(threads);
    return run();
  };
  const std::vector<Tensor> one = on(1), two = on(2), three = on(3);
  omp_set_num_threads(before);
  for (size_t i = 0; i < one.size(); ++i) {
    CAPTURE(i);
    check_same_bits(one[i], two[i]);
    check_same_bits(one[i], three[i]);
  }
}

}  // namespace burrow::testing
