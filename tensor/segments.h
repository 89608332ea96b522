#pragma once
// A batch without padding: sequences are concatenated. Activations are [N,C] with the N tokens of all
// sequences; Segments holds where each sequence begins and what each token is.
#include <cstdint>
#include <vector>

#include "tensor/tensor.h"

namespace burrow {

enum class TokenKind : int32_t { visual = 0, prompt = 1, answer = 2 };

struct Segments {
  std::vector<int32_t> offsets{0};  // [B+1] first row of sequence b; the last entry is N
  std::vector<int32_t> position;    // [N] index of a token in its sequence
  std::vector<int32_t> sequence;    // [N] b, the sequence of a token
  std::vector<TokenKind> kind;      // [N]
  std::vector<int64_t> ordinal;     // [B] global ordinal of the sample, which seeds its randomness
  std::vector<int32_t> dataset;     // [B] index of the sample's dataset

  int64_t count() const { return static_cast<int64_t>(offsets.size()) - 1; }  // B
  int64_t rows() const { return offsets.back(); }                             // N
};

}  // namespace burrow
