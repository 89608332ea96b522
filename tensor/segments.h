#pragma once
// A batch without padding: sequences laid end to end. Activations are [N, C] with N tokens over all
// sequences; Segments says where each begins and what each token is.
#include <cstdint>
#include <vector>

#include "tensor/tensor.h"

namespace burrow {

enum class TokenKind : int32_t { visual = 0, prompt = 1, answer = 2 };

struct Segments {
  std::vector<int32_t> offsets{0};  // [B+1] row at which sequence b begins; the last entry is N
  std::vector<int32_t> position;    // [N] place of a token in its own sequence
  std::vector<int32_t> sequence;    // [N] b, the sequence of a token
  std::vector<TokenKind> kind;      // [N]
  std::vector<int64_t> ordinal;     // [B] global ordinal of the sample: the key of its randomness
  std::vector<int32_t> dataset;     // [B] index of the dataset that a sample came from

  int64_t count() const { return static_cast<int64_t>(offsets.size()) - 1; }  // B
  int64_t rows() const { return offsets.back(); }                             // N
};

}  // namespace burrow
