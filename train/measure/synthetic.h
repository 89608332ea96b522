#pragma once
// A training step without data: sequences of given lengths, random words, features that nothing was computed
// from. What `burrow plan` counts the memory of, and `burrow bench train` the time.
#include <string>
#include <vector>

#include "train/run/step.h"

namespace burrow::train {

// Sequences of an image (with a tower) and a text each. `texts` are taken in order and over again, each cut
// to model.decoder.max_tokens, until `tokens` are filled; the last is cut to fit. The second half of a text
// answers.
Segments sequences_of(const nn::ModelConfig& sizes, const std::vector<int64_t>& texts, int64_t tokens);

// Random words for these sequences, and features; on the model's device.
MicroInputs synthetic_inputs(const nn::Llava& model, Segments segments);
// Of a step of so many equal micro-batches.
StepTotals totals_of(const MicroInputs& inputs, int64_t micro_batches);

}  // namespace burrow::train
