#pragma once
// Set-up shared by training, evaluation and `ask`: tokenizer, model with adapters, data sets of a split.
#include <memory>

#include "data/sets/dataset.h"
#include "moe/attach.h"
#include "train/config/options.h"

namespace burrow::train {

struct Setup {
  // Whether a data set consists of conversations; only then must the tokenizer support the chat template.
  bool converses() const;
  RunConfig config;
  data::Tokenizer tokenizer;
  std::unique_ptr<nn::Llava> model;
  moe::Attachment attachment;
  uint64_t weights_hash = 0;  // hash of the weights' files; 0 for random weights
};

// Loads tokenizer and model for a config; a vocabulary of 0 becomes the tokenizer's size. `shapes_only`, for
// --dry-run, builds the model without memory, and without a tokenizer if the config has none. Otherwise the
// model is moved to `device`.
Setup make_setup(const RunConfig& config, bool shapes_only = false, Device device = Device::cpu);

// Loads the trained model of a finished run, or that of a folder of `burrow factorize`.
Setup load_run(const std::string& run, Device device = Device::cpu);

// The splits of a data set, named as --split and eval.split name them.
BURROW_ENUM(Split, train, validation, test)
// The file of a set's split; empty if it has none.
const std::string& file_of(const DataSet& set, Split split);
// Loads the sets of `names` in that order, or if it is empty all that have the split, in the config's order.
std::vector<data::Dataset> load_sets(const Setup& setup, Split split, const std::vector<std::string>& names);

}  // namespace burrow::train
