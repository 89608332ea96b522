#include "tensor/kernels.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <string_view>

namespace burrow {
namespace {

constexpr int kKernels = static_cast<int>(KernelId::count_);
std::array<std::atomic<int64_t>, kKernels> calls{};

constexpr std::array<const char*, kKernels> kNames = {
#define KERNEL(backends, name, params, args) #name,
#include "tensor/kernels.def"
#undef KERNEL
};

}  // namespace

KnownRanges known_ranges(std::span<const int32_t> q_offsets, std::span<const int32_t> k_offsets,
                         std::span<const int32_t> q_positions, std::span<const int32_t> k_positions) {
  KnownRanges known;
  for (const auto& [offsets, positions] : {std::pair{q_offsets, q_positions}, {k_offsets, k_positions}}) {
    if (offsets.empty() || offsets.front() != 0 || offsets.back() != static_cast<int64_t>(positions.size()))
      return {};  // rows outside of all sequences
    for (size_t b = 0; b + 1 < offsets.size(); ++b) {
      if (offsets[b + 1] <= offsets[b]) return {};  // a sequence without rows
      known.longest = std::max<int64_t>(known.longest, offsets[b + 1] - offsets[b]);
    }
  }
  if (q_offsets.size() != k_offsets.size()) return {};
  known.aligned = std::ranges::equal(q_offsets, k_offsets) && std::ranges::equal(q_positions, k_positions);
  for (size_t b = 0; known.aligned && b + 1 < q_offsets.size(); ++b) {
    for (auto n = static_cast<size_t>(q_offsets[b]) + 1; n < static_cast<size_t>(q_offsets[b + 1]); ++n)
      known.aligned = known.aligned && q_positions[n] == q_positions[n - 1] + 1;
  }
  return known;
}

void count_kernel_call(KernelId id) {
  calls[static_cast<size_t>(id)].fetch_add(1, std::memory_order_relaxed);
}
int64_t kernel_calls(KernelId id) { return calls[static_cast<size_t>(id)]; }

std::vector<std::pair<std::string, int64_t>> kernel_calls() {
  std::vector<std::pair<std::string, int64_t>> all;
  for (size_t i = 0; i < kKernels; ++i) all.emplace_back(kNames[i], calls[i]);
  return all;
}
void reset_kernel_calls() {
  for (auto& c : calls) c = 0;
}

namespace detail {

bool finite_check = [] {
  const char* set = std::getenv("BURROW_CHECK_FINITE");
  return set && std::string_view(set) == "1";
}();

void check_finite(const char* name, const Tensor& output) {
  if (!output.defined() || (output.dtype() != DType::f32 && output.dtype() != DType::f64)) return;
  const Tensor host = output.to(Device::cpu);
  visit_float(name, output.dtype(), [&]<class T>(T) {
    for (int64_t i = 0; i < host.numel(); ++i) {
      const T value = host.data<T>()[i];
      BURROW_CHECK(std::isfinite(value), "[{}] output {} holds {} at element {}", name, output.shape(), value,
                   i);
    }
  });
}

}  // namespace detail

void set_finite_check(bool on) { detail::finite_check = on; }

}  // namespace burrow
