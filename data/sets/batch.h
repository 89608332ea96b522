#pragma once
// A batch without padding, as the model reads it: the token rows of all samples end to end.
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

// A sample as it goes into a batch: its tokens, and what keys its randomness.
struct BatchSample {
  Sample sample;
  int32_t dataset = 0;  // entry of the mixture
  int64_t ordinal = 0;  // global
};

// What a forward pass and its loss read.
struct Batch {
  Segments segments;             // N rows, B samples
  Tensor ids;                    // i32 [N]: a token's id, or -1 - v for visual row v of the batch
  Tensor supervised;             // i32 [S]: rows whose next token is supervised
  Tensor targets;                // i32 [S]: those tokens
  std::vector<ImageRef> images;  // image i owns visual rows [i * P, (i + 1) * P)
};

// P = visual_tokens rows stand in place of a sample's image.
Batch make_batch(std::span<const BatchSample> samples, int64_t visual_tokens);
// The samples of one micro-batch of a plan.
Batch make_batch(const Plan& plan, const MicroBatch& micro_batch, int64_t visual_tokens);

}  // namespace burrow::data
