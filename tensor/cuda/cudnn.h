#pragma once
// cuDNN's fused attention as an alternative to our own kernels, if options().attention requests it: which
// calls it computes (cudnn_rules.cpp), its description of packed rows (ragged.cu), and the library itself
// (cudnn.cpp with cudnn_graph.cpp, or cudnn_absent.cpp in a build without it).
#include <compare>

#include "tensor/kernels.h"
#include "tensor/storage.h"

namespace burrow::cuda {

// The reason why a call with these arguments must use our own kernel; null if cuDNN can compute it.
const char* why_own_attention(const Tensor& q, const Tensor& k, const AttentionRanges& ranges,
                              const AttentionShape& shape);

// The sizes of a plan: those of a call, rounded up so that few plans serve all steps.
struct FusedSizes {
  int64_t batch = 0, longest = 0, q_rows = 0, k_rows = 0;
  auto operator<=>(const FusedSizes&) const = default;  // NOLINT(modernize-use-nullptr): there is none
};
// The plan's sizes for a call's sizes.
FusedSizes fused_sizes(int64_t batch, int64_t longest, int64_t q_rows, int64_t k_rows);

// The first element of each sequence and its number of rows, for a batch padded with empty sequences at the
// end.
struct RaggedPointers {
  int64_t *q_begins = nullptr, *k_begins = nullptr, *lse_begins = nullptr;  // [batch+1]
  int32_t *q_lengths = nullptr, *k_lengths = nullptr;                       // [batch]
};
struct RaggedRows : RaggedPointers {
  // The device memory that the pointers point into.
  std::shared_ptr<Storage> block;
};
// Computed by a kernel on the device, without a copy of the offsets to the host.
RaggedRows ragged_rows(const AttentionRanges& ranges, const AttentionShape& shape, int64_t batch);

// cuda::attention and cuda::attention_backward by the library. Returns false, having done nothing, if the
// options do not request it or why_own_attention gives a reason; throws if the library does not support the
// call.
bool attention_by_cudnn(const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                        const AttentionRanges& ranges, const AttentionShape& shape);
bool attention_backward_by_cudnn(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dy,
                                 const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k,
                                 const Tensor& v, const AttentionRanges& ranges, const AttentionShape& shape);
// The number of calls that the library computed, for tests that must know which code ran.
int64_t attention_calls_by_cudnn();

// The arguments that determine a plan.
struct FusedProblem {
  FusedSizes sizes;
  int64_t heads = 1, kv_heads = 1, head_size = 1;
  bool causal = false, backward = false;
  float scale = 1;
  auto operator<=>(const FusedProblem&) const = default;  // NOLINT(modernize-use-nullptr): there is none
};
// The library's error for the graph of a problem on devices of a compute capability (90 is 9.0), as far as it
// can be found without a device; empty if there is none.
std::string cudnn_objections(const FusedProblem& problem, int capability);

}  // namespace burrow::cuda
