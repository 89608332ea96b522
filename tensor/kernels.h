#pragma once
// The seam between the library and its backends: kernel::f(...) calls cpu::f or cuda::f by the device of its
// tensors, which must all agree. The list is kernels.def; the definitions are in tensor/cpu/<topic>.cpp and
// tensor/cuda/<topic>.cu. What all kernels share is here: call counters, the profile and the optional finite
// check. Without CUDA, cuda::f throws (tensor/cuda/absent.cpp).
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tensor/device.h"
#include "tensor/profile.h"
#include "tensor/route_rule.h"
#include "tensor/scalar_ops.h"
#include "tensor/tensor.h"

namespace burrow {

// Properties of AttentionRanges, computed by the host before the ranges are copied to the device, because
// reading them back would wait for the device. Only cuDNN needs them (tensor/cuda/cudnn.h).
struct KnownRanges {
  // Rows of the longest sequence if no sequence is empty and every row is in one; else, or if unknown, 0.
  int64_t longest = 0;
  bool aligned = false;  // queries and keys are the same rows, at positions that ascend by 1
};
// The properties of ranges with these offsets and positions, the tensors of AttentionRanges.
KnownRanges known_ranges(std::span<const int32_t> q_offsets, std::span<const int32_t> k_offsets,
                         std::span<const int32_t> q_positions, std::span<const int32_t> k_positions);

// Which rows belong to which sequence, separately for queries and keys (with a KV cache there are more keys).
struct AttentionRanges {
  Tensor q_offsets, k_offsets;      // i32 [B+1]
  Tensor q_positions, k_positions;  // i32 [Nq], [Nk]
  KnownRanges known = {};
};
// Heads and their size; H is a multiple of Hkv, the key heads (grouped queries).
struct AttentionShape {
  int64_t heads = 1, kv_heads = 1, head_size = 1;
  bool causal = true;
  double scale = 1;  // of the logits, usually 1/sqrt(D)
};
// Rows sorted by the experts that they chose: expert e owns the places offsets[e] to offsets[e+1] - 1, and
// place j stands for row order[j]. Rows ascend within an expert. Counts stay on the device.
struct ExpertGroups {
  Tensor order;    // i32 [M], rows
  Tensor offsets;  // i32 [E+1]
};
// The outputs of route for logits of N rows in G groups (sequences). The means are over each group or, if
// they have one row, over all rows that have a group. Undefined means and sums are not computed.
struct RouteTensors {
  Tensor probs = {};                                            // [N,E] softmax
  Tensor chosen = {};                                           // [N,E] 1 if the expert was chosen, else 0
  Tensor weights = {};                                          // [N,E]
  Tensor entropy = {};                                          // [N,1] by the rule, or undefined
  Tensor mean_probs = {}, mean_weights = {}, mean_chosen = {};  // [G,E] or [1,E]
  Tensor mean_rows = {};                                        // [G] or [1]: the number of rows
  // [G,E+3], sums over the rows of a group: chosen; experts with weight not 0; entropy of probs in nats; 1.
  Tensor sums = {};
};
// Loshchilov and Hutter 2019; weight decay is decoupled from the gradient.
struct AdamW {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
};

namespace detail {

inline void note_device(const char* name, const Tensor& t, const Tensor*& first) {
  if (!t.defined()) return;  // an output that is not wanted
  if (!first) first = &t;
  BURROW_CHECK(t.device() == first->device(), "[{}] tensors are on {} and on {}", name, first->device(),
               t.device());
}
template <class A>
void note_device(const char*, const A&, const Tensor*&) {}
inline void note_device(const char* name, const AttentionRanges& r, const Tensor*& first) {
  note_device(name, r.q_offsets, first);
  note_device(name, r.k_offsets, first);
}
inline void note_device(const char* name, const ExpertGroups& g, const Tensor*& first) {
  note_device(name, g.order, first);
  note_device(name, g.offsets, first);
}
inline void note_device(const char* name, const RouteTensors& r, const Tensor*& first) {
  for (const Tensor* t : {&r.probs, &r.chosen, &r.weights, &r.entropy, &r.mean_probs, &r.mean_weights,
                          &r.mean_chosen, &r.mean_rows, &r.sums})
    note_device(name, *t, first);
}

template <class... A>
Device common_device(const char* name, const A&... args) {
  const Tensor* first = nullptr;
  (note_device(name, args, first), ...);
  BURROW_CHECK(first, "[{}] no defined tensor among the arguments", name);
  return first->device();
}

// The optional finite check (set_finite_check or BURROW_CHECK_FINITE=1): throws after the first kernel whose
// output holds NaN or infinity.
void check_finite(const char* name, const Tensor& output);
extern bool finite_check;
template <class First, class... Rest>
void check_first_output(const char* name, const First& first, const Rest&...) {
  if constexpr (std::is_same_v<First, Tensor>) check_finite(name, first);
  if constexpr (std::is_same_v<First, RouteTensors>) {
    for (const Tensor* t : {&first.probs, &first.weights, &first.entropy}) check_finite(name, *t);
  }
}

}  // namespace detail

// Turns the finite check of every kernel's first output on or off.
void set_finite_check(bool on);

// A number for each kernel of the list, in its order.
enum class KernelId : int {
#define KERNEL(backends, name, params, args) name,
#include "tensor/kernels.def"
#undef KERNEL
  count_
};
// How often each kernel ran since the last reset; tests prove with it that something was not computed.
int64_t kernel_calls(KernelId id);
std::vector<std::pair<std::string, int64_t>> kernel_calls();
void reset_kernel_calls();
void count_kernel_call(KernelId id);

#define BURROW_UNWRAP(...) __VA_ARGS__

namespace cpu {
#define KERNEL(backends, name, params, args) void name params;
#include "tensor/kernels.def"
#undef KERNEL
}  // namespace cpu

namespace cuda {
#define KERNEL(backends, name, params, args) void name params;
#include "tensor/kernels.def"
#undef KERNEL
}  // namespace cuda

#define BURROW_RUN_CPU(name, args) fail("[{}] has no CUDA kernel yet", #name)
#define BURROW_RUN_CPU_CUDA(name, args) cuda::name args

namespace kernel {
#define KERNEL(backends, name, params, args)                                             \
  inline void name params {                                                              \
    count_kernel_call(KernelId::name);                                                   \
    const bool on_cpu = detail::common_device(#name, BURROW_UNWRAP args) == Device::cpu; \
    const auto run = [&] {                                                               \
      if (on_cpu) {                                                                      \
        cpu::name args;                                                                  \
      } else if (!cuda::options().planned) {                                             \
        BURROW_RUN_##backends(name, args);                                               \
        if (detail::profiling) cuda::synchronise();                                      \
      }                                                                                  \
    };                                                                                   \
    detail::timed(KernelId::name, run, BURROW_UNWRAP args);                              \
    if (detail::finite_check) detail::check_first_output(#name, BURROW_UNWRAP args);     \
  }
#include "tensor/kernels.def"
#undef KERNEL
}  // namespace kernel

}  // namespace burrow
