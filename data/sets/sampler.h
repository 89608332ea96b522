#pragma once
// The plan of a run: its samples, their order and their steps. It is a pure function of the seed, the
// datasets' names and lengths, and the options, so a resumed run and every rank compute the same plan.
#include <cstdint>
#include <vector>

#include "data/sets/dataset.h"

namespace burrow::data {

struct MixtureEntry {
  const Dataset* dataset = nullptr;
  double ratio = 1;  // share of the samples, relative to the other entries
};

// With the mixture, the input of a Plan.
struct PlanOptions {
  uint64_t seed = 0;
  int64_t samples = 0;          // S: drawn in the whole run
  int64_t tokens_per_step = 0;  // at most, visual tokens counted
  int64_t visual_tokens = 16;   // P, per image
  int accumulation = 1;         // micro-batches of a step
};

// One drawn sample. Its index in the sequence of draws is its ordinal, which keys randomness in the model.
struct Draw {
  int32_t dataset = 0;  // entry of the mixture
  int32_t sample = 0;   // of that dataset
};

// The part of a step that one forward and backward pass processes.
struct MicroBatch {
  int64_t begin = 0, end = 0;  // ordinals
  int64_t tokens = 0;          // visual ones counted
  int64_t supervised = 0;      // tokens
};

// The samples of one optimiser step.
struct StepPlan {
  int64_t begin = 0, end = 0;             // ordinals
  int64_t tokens = 0, supervised = 0;     // of the whole step, known before its first forward
  std::vector<MicroBatch> micro_batches;  // contiguous, none empty; at most one per sample
};

// All draws of a run and the beginning of each step; constant after construction.
class Plan {
 public:
  // Dataset d is drawn n_d times: S * ratio_d / sum of ratios, rounded by largest remainder. Its draws are
  // consecutive seeded permutations, so no sample repeats before all have been drawn. All draws are
  // interleaved by one seeded shuffle and fill steps greedily in that order; a sample above
  // tokens_per_step is a step of its own. Throws on ratios that are negative, not finite or all zero.
  Plan(std::vector<MixtureEntry> mixture, const PlanOptions& options);

  int64_t steps() const { return static_cast<int64_t>(first_.size()) - 1; }
  // Step i of steps(), cut into micro-batches of about equal size.
  StepPlan step(int64_t i) const;
  int64_t draws() const { return static_cast<int64_t>(draws_.size()); }  // S
  Draw draw(int64_t ordinal) const { return draws_.at(static_cast<size_t>(ordinal)); }
  Sample sample(int64_t ordinal) const;
  const std::vector<MixtureEntry>& mixture() const { return mixture_; }
  std::vector<int64_t> counts() const;  // draws of each entry

 private:
  int64_t length(int64_t ordinal) const { return sample(ordinal).length(options_.visual_tokens); }
  std::vector<MixtureEntry> mixture_;
  PlanOptions options_;
  std::vector<Draw> draws_;
  std::vector<int64_t> first_;  // [steps + 1] ordinal at which a step begins
};

// `total` split in proportion to `ratios`, rounded by largest remainder (ties to the earlier entry).
std::vector<int64_t> apportion(int64_t total, const std::vector<double>& ratios);

}  // namespace burrow::data
