#include <algorithm>
#include <bit>

#include "tensor/checks.h"
#include "tensor/cuda/cudnn.h"

namespace burrow::cuda {

// cuDNN masks by a key's place in its sequence and ours by positions, which agree where queries and keys are
// the same rows. What it gives for a sequence without keys depends on its version, and rows outside of every
// sequence it leaves unwritten.
const char* why_own_attention(const Tensor& q, const Tensor& k, const AttentionRanges& ranges,
                              const AttentionShape& shape) {
  if (q.dtype() != DType::bf16 || k.dtype() != DType::bf16) return "activations are not bf16";
  if (shape.head_size != 64 && shape.head_size != 128) return "heads are not of 64 or 128";
  if (leading(q) == 0 || leading(k) == 0) return "there are no rows";
  if (ranges.known.longest == 0) return "a sequence may be empty, or a row in none";
  if (shape.causal && !ranges.known.aligned) return "the causal mask may not go by the order of rows";
  return nullptr;
}

namespace {

// To the next multiple of an eighth of its power of two, and of `least`.
int64_t rounded_up(int64_t n, int64_t least) {
  const auto eighth = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(n)) / 8);
  const int64_t step = std::max(least, eighth);
  return (n + step - 1) / step * step;
}

}  // namespace

// Up to 16 sequences are not filled up. The length, with whose square the backward's scratch memory grows, is
// rounded to the library's tiles; the rows, to which little is proportional, to a power of two.
FusedSizes fused_sizes(int64_t batch, int64_t longest, int64_t q_rows, int64_t k_rows) {
  const auto power_of_two = [](int64_t n) {
    return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(n, 128))));
  };
  return {rounded_up(batch, 1), rounded_up(longest, 128), power_of_two(q_rows), power_of_two(k_rows)};
}

}  // namespace burrow::cuda
