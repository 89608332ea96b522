#include "tensor/kernels.h"

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
