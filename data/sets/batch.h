#pragma once
// A batch without padding, as the model reads it: the token rows of all samples, concatenated.
#include <cstdint>
#include <span>
#include <vector>

#include "data/sets/dataset.h"
#include "data/sets/sampler.h"
#include "tensor/segments.h"

namespace burrow::data {

struct ImageRef {
  int32_t dataset = 0;  // entry of the mixture
  int32_t image = 0;    // index in that dataset's images()
  bool operator==(const ImageRef&) const = default;
};

// A sample of a batch: its tokens, and the keys of its randomness.
struct BatchSample {
  Sample sample;
  int32_t dataset = 0;  // entry of the mixture
  int64_t ordinal = 0;  // global
};

// Input of a forward pass and its loss.
struct Batch {
  Segments segments;             // N rows, B samples
  Tensor ids;                    // i32 [N]: a token's id, or -1 - v for visual row v of the batch
  Tensor supervised;             // i32 [S]: rows whose next token is supervised
  Tensor targets;                // i32 [S]: those tokens
  std::vector<ImageRef> images;  // image i owns visual rows [i * P, (i + 1) * P)
};

// Concatenates samples; a sample's image takes P = visual_tokens rows.
Batch make_batch(std::span<const BatchSample> samples, int64_t visual_tokens);
// The samples of one micro-batch of a plan.
Batch make_batch(const Plan& plan, const MicroBatch& micro_batch, int64_t visual_tokens);

}  // namespace burrow::data
