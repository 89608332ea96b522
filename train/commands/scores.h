#pragma once
// The scores of a split: taken, printed, and written to result.json.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "train/run/evaluate.h"

namespace burrow::train {

// Of the sets of eval.sets that have this split.
std::vector<SetScore> score_split(const Setup& setup, const std::string& split);
// Prints them beside the baselines.
void print_scores(const RunConfig& config, const std::vector<SetScore>& scores, const std::string& split);
// The part of result.json that they make up.
nlohmann::ordered_json scores_json(const RunConfig& config, const std::vector<SetScore>& scores,
                                   const std::string& split);

}  // namespace burrow::train
