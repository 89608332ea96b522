#pragma once
// Time per kernel: the seam (kernels.h) times every call while a profile is running.
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace burrow {

struct AttentionRanges;
struct AttentionShape;
enum class KernelId : int;

struct KernelProfile {
  std::string name;
  int64_t calls = 0;
  double seconds = 0;
  double flops = 0;  // of matrix products and attention, two per multiply-add; 0 for other kernels
};
double seconds_now();                       // of a monotonic clock
void start_profile();                       // from zero
std::vector<KernelProfile> stop_profile();  // the kernels that were called, slowest first

namespace detail {

extern bool profiling;

// The arguments of a call from which its FLOPs are counted.
struct CallArguments {
  std::array<const Tensor*, 10> tensors{};
  size_t count = 0;
  const AttentionRanges* ranges = nullptr;
  const AttentionShape* shape = nullptr;

  void note(const Tensor& t) {
    if (count < tensors.size()) tensors[count++] = &t;
  }
  void note(const AttentionRanges& r) { ranges = &r; }
  void note(const AttentionShape& s) { shape = &s; }
  template <class A>
  void note(const A&) {}
};
void add_to_profile(KernelId id, double seconds, const CallArguments& arguments);

// Runs one kernel, timed while a profile is running.
template <class F, class... A>
void timed(KernelId id, F&& run, const A&... arguments) {
  if (!profiling) return run();
  const double begin = seconds_now();
  run();
  const double seconds = seconds_now() - begin;
  CallArguments noted;
  (noted.note(arguments), ...);
  add_to_profile(id, seconds, noted);
}

}  // namespace detail
}  // namespace burrow
