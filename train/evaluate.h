#pragma once
// Exact match: the share of samples whose greedily decoded answer equals the reference, token by token.
#include <functional>

#include "train/features.h"
#include "train/setup.h"

namespace burrow::train {

struct SetScore {
  std::string name;
  int64_t correct = 0, count = 0;
  std::vector<std::pair<std::string, std::pair<int64_t, int64_t>>>
      by_type;  // type of question: correct, count
  double exact_match() const { return count ? static_cast<double>(correct) / static_cast<double>(count) : 0; }
};

// Decodes the first answer of every sample (of `limit` at most; 0: all) with the model's current weights.
std::vector<SetScore> evaluate(const Setup& setup, const std::vector<data::Dataset>& sets,
                               const FeatureCache& features);

// The decoded answer to one question about one image (undefined: none).
std::string answer(const Setup& setup, const data::Image* image, const std::string& question);

}  // namespace burrow::train
