#pragma once
// Synthetic inputs of a training step, with given sequence lengths and random tokens and features, for
// `burrow plan` and `burrow bench train`.
#include <string>
#include <vector>

#include "train/run/step.h"

namespace burrow::train {

// Sequences that each consist of an image (if the model has a tower) and a text, `tokens` tokens in all. The
// text lengths `texts` are used cyclically; sequences are truncated to model.decoder.max_tokens and the last
// to fit. One that has no room for the image is text alone. The second half of each text is an answer.
Segments sequences_of(const nn::ModelConfig& sizes, const std::vector<int64_t>& texts, int64_t tokens);

// Random tokens and features for these sequences, on the model's device.
MicroInputs synthetic_inputs(const nn::Llava& model, Segments segments);
// The totals of a step that consists of this many equal micro-batches.
StepTotals totals_of(const MicroInputs& inputs, int64_t micro_batches);

}  // namespace burrow::train
