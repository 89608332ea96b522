// Which attention calls cuDNN may compute, and the rounded sizes of its plans, in builds without CUDA too.
// Nothing is launched here.
#include <algorithm>
#include <bit>

#include "tensor/checks.h"
#include "tensor/cuda/cudnn.h"

namespace burrow::cuda {

// cuDNN's causal mask compares indices within a sequence, ours compares positions; they agree if queries and
// keys are the same rows. cuDNN's result for a sequence without keys depends on the version, and it does not
// write rows outside of all sequences.
const char* why_own_attention(const Tensor& q, const Tensor& k, const AttentionRanges& ranges,
                              const AttentionShape& shape) {
  if (q.dtype() != DType::bf16 || k.dtype() != DType::bf16) return "activations are not bf16";
  if (shape.head_size != 64 && shape.head_size != 128) return "head size is not 64 or 128";
  if (leading(q) == 0 || leading(k) == 0) return "there are no rows";
  if (ranges.known.longest == 0) return "a sequence may be empty, or a row outside of all sequences";
  if (shape.causal && !ranges.known.aligned) return "the causal mask may differ from the order of rows";
  return nullptr;
}

namespace {

// Rounds n up to a multiple of max(least, 2^floor(log2 n) / 8).
int64_t rounded_up(int64_t n, int64_t least) {
  const auto eighth = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(n)) / 8);
  const int64_t step = std::max(least, eighth);
  return (n + step - 1) / step * step;
}

}  // namespace

// The backward's scratch memory grows with longest^2, so the length is rounded finely, to the library's tiles
// of 128; little depends on the number of rows, which is rounded to a power of two. Up to 16 sequences stay.
FusedSizes fused_sizes(int64_t batch, int64_t longest, int64_t q_rows, int64_t k_rows) {
  const auto power_of_two = [](int64_t n) {
    return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(n, 128))));
  };
  return {rounded_up(batch, 1), rounded_up(longest, 128), power_of_two(q_rows), power_of_two(k_rows)};
}

}  // namespace burrow::cuda
