#pragma once
// cuDNN's fused attention beside our own kernels, where options().attention asks for it: which calls it gets
// (cudnn_rules.cpp, plain C++), what it must be told of packed rows (ragged.cu), and the library itself
// (cudnn.cpp with cudnn_graph.cpp, or cudnn_absent.cpp in a build without it).
#include <compare>

#include "tensor/kernels.h"
#include "tensor/storage.h"

namespace burrow::cuda {

// Why a call with these arguments is our own kernel's whatever the options say; null where cuDNN may have it.
const char* why_own_attention(const Tensor& q, const Tensor& k, const AttentionRanges& ranges,
                              const AttentionShape& shape);

// The sizes of a plan, each at least the call's: rounded up, so that a few plans serve every step.
struct FusedSizes {
  int64_t batch = 0, longest = 0, q_rows = 0, k_rows = 0;
  auto operator<=>(const FusedSizes&) const = default;  // NOLINT(modernize-use-nullptr): there is none
};
// From those of a call.
FusedSizes fused_sizes(int64_t batch, int64_t longest, int64_t q_rows, int64_t k_rows);

// Where each sequence begins, counted in elements, and its rows, for a batch that is filled up with empty
// sequences at the end.
struct RaggedPointers {
  int64_t *q_begins = nullptr, *k_begins = nullptr, *lse_begins = nullptr;  // [batch+1]
  int32_t *q_lengths = nullptr, *k_lengths = nullptr;                       // [batch]
};
struct RaggedRows : RaggedPointers {
  // The block on the device that they point into.
  std::shared_ptr<Storage> block;
};
// By a kernel, from offsets that are on the device and stay there.
RaggedRows ragged_rows(const AttentionRanges& ranges, const AttentionShape& shape, int64_t batch);

// cuda::attention and cuda::attention_backward by the library. False, and nothing done, where the options do
// not ask for it or the call is our own kernel's; an Error where the library does not take what it should.
bool attention_by_cudnn(const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                        const AttentionRanges& ranges, const AttentionShape& shape);
bool attention_backward_by_cudnn(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dy,
                                 const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k,
                                 const Tensor& v, const AttentionRanges& ranges, const AttentionShape& shape);
// How many calls of the two the library took. Tests prove with it what they tested.
int64_t attention_calls_by_cudnn();

// What a plan is made for.
struct FusedProblem {
  FusedSizes sizes;
  int64_t heads = 1, kv_heads = 1, head_size = 1;
  bool causal = false, backward = false;
  float scale = 1;
  auto operator<=>(const FusedProblem&) const = default;  // NOLINT(modernize-use-nullptr): there is none
};
// The library's objections to the graph of a problem on devices of a compute capability (90 is 9.0), as far
// as they show without a device; empty where it has none.
std::string cudnn_objections(const FusedProblem& problem, int capability);

}  // namespace burrow::cuda
