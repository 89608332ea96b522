#pragma once
// Scores of a model on data sets: exact match of conversations, accuracy on multiple-choice items by one of
// three protocols, next tokens of texts.
#include <functional>
#include <map>

#include "train/run/features.h"
#include "train/run/setup.h"

namespace burrow::train {

struct SetScore {
  std::string name;
  int64_t correct = 0, count = 0;  // samples; of texts tokens
  std::vector<std::pair<std::string, std::pair<int64_t, int64_t>>>
      by_type;                     // type of question: correct, count
  double nats = 0;                 // of texts: the sum of -log p over tokens
  std::map<int64_t, bool> turned;  // circular sets, by record: whether all rotations so far were right
  int64_t left_out = 0;            // samples without a supervised token, which are not scored
  double score() const { return count ? static_cast<double>(correct) / static_cast<double>(count) : 0; }
};

// How a set is scored: "exact match", "accuracy by label logits, the item's labels, asked in a circle", "next
// token", ...
std::string scoring_of(const EvalConfig& config, const DataSet& set);

// Scores the first answer of every sample (of `limit` at most; 0: all) with the model's current weights.
// Conversations: greedily decoded, and equal to the reference token by token. Choices: eval.protocol; of
// equal logits the first label's counts, and of a circular set an item counts once, right when all its
// rotations are. Texts: the likeliest next token is the text's.
std::vector<SetScore> evaluate(const Setup& setup, const std::vector<data::Dataset>& sets,
                               const FeatureCache& features);

// The index of the label that stands first in a decoded answer, as a word of its own; -1 without one. A label
// of several letters (true, false) may be written in either case.
int64_t first_label(std::string_view text, const std::vector<std::string>& labels);

// The decoded answer to one question about one image (nullptr: none). A run without conversations continues
// the question as text.
std::string answer(const Setup& setup, const data::Image* image, const std::string& question);

}  // namespace burrow::train
