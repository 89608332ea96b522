#pragma once
// Evaluation of a model on data sets: exact match for conversations, accuracy on multiple-choice items by one
// of three protocols, next-token accuracy for texts.
#include <functional>
#include <map>

#include "train/run/features.h"
#include "train/run/setup.h"

namespace burrow::train {

struct SetScore {
  std::string name;
  int64_t correct = 0, count = 0;  // number of samples; of tokens for texts
  std::vector<std::pair<std::string, std::pair<int64_t, int64_t>>>
      by_type;                     // correct and count for each type of question
  double nats = 0;                 // sum of -log p over the tokens of texts
  std::map<int64_t, bool> turned;  // circular sets: for each record, whether all rotations so far are correct
  int64_t left_out = 0;            // number of unscored samples, which have no supervised token
  double score() const { return count ? static_cast<double>(correct) / static_cast<double>(count) : 0; }
};

// Description of how a set is scored, such as "exact match" or "accuracy by label logits, the item's labels".
std::string scoring_of(const EvalConfig& config, const DataSet& set);

// Scores the first answer of every sample (at most eval.limit per set) with the model's current weights.
// Conversations are correct if greedy decoding equals the reference token by token. Choices use
// eval.protocol; ties go to the first label, and an item of a circular set is one item, correct if all its
// rotations are. For texts, a token is correct if it is the most likely one.
std::vector<SetScore> evaluate(const Setup& setup, const std::vector<data::Dataset>& sets,
                               const FeatureCache& features);

// Index of the label that occurs first as a separate word in a decoded answer; -1 if none does. Case is
// ignored for labels of several letters (true, false).
int64_t first_label(std::string_view text, const std::vector<std::string>& labels);

// The model's answer to a question about an image (nullptr: none). A model trained without conversations
// continues the question as text.
std::string answer(const Setup& setup, const data::Image* image, const std::string& question);

}  // namespace burrow::train
