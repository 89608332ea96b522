#pragma once
// A training step without data: sequences of given lengths, random words, features that nothing was computed
// from. What `burrow plan` counts the memory of, and `burrow bench train` the time.
#include <string>
#include <vector>

#include "moe/attach.h"
#include "train/config/options.h"

namespace burrow::train {

// Sequences of an image (with a tower) and a text each. `texts` are taken in order and over again, each cut
// to model.decoder.max_tokens, until `tokens` are filled; the last is cut to fit. The second half of a text
// answers.
Segments sequences_of(const nn::ModelConfig& sizes, const std::vector<int64_t>& texts, int64_t tokens);

// A model with its method, and the tensors of one micro-batch on the model's device.
struct SyntheticBatch {
  Segments segments;
  Tensor ids, supervised, targets;
  Var features;  // undefined without a tower
};
SyntheticBatch synthetic_batch(const nn::Llava& model, Segments segments);
// Forward and backward, as Trainer::forward_backward: gradients are added to. Returns the loss, summed over
// rows.
Var synthetic_step(const RunConfig& config, nn::Llava& model, moe::Attachment& attachment,
                   const SyntheticBatch& batch, uint64_t step);

}  // namespace burrow::train
