#pragma once
// The scores of a split: evaluation, print-out, and their part of result.json.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "train/run/evaluate.h"

namespace burrow::train {

// Evaluates the sets of eval.sets that have this split.
std::vector<SetScore> score_split(const Setup& setup, const std::string& split);
// Prints the scores and the baselines.
void print_scores(const RunConfig& config, const std::vector<SetScore>& scores, const std::string& split);
// The keys of result.json that describe the scores.
nlohmann::ordered_json scores_json(const RunConfig& config, const std::vector<SetScore>& scores,
                                   const std::string& split);

}  // namespace burrow::train
