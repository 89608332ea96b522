#pragma once
// What training, evaluation and `ask` have in common: the tokenizer, the model with its adapters, and the
// data sets of a split.
#include <memory>

#include "data/sets/dataset.h"
#include "moe/attach.h"
#include "train/config/options.h"

namespace burrow::train {

struct Setup {
  // Whether a set of conversations is among the data: without one no chat template is asked of the tokenizer.
  bool converses() const;
  RunConfig config;
  data::Tokenizer tokenizer;
  std::unique_ptr<nn::Llava> model;
  moe::Attachment attachment;
  uint64_t weights_hash = 0;  // of the base's file; 0 for random weights
};

// Of the config's sizes, a vocabulary of 0 becomes the tokenizer's. `shapes_only`, for --dry-run, builds the
// model without memory, and without a tokenizer where the config names none. The model is on `device`.
Setup make_setup(const RunConfig& config, bool shapes_only = false, Device device = Device::cpu);

// A finished run with what it trained, or a folder of `burrow factorize`.
Setup load_run(const std::string& run, Device device = Device::cpu);

enum class Split { train, validation, test };
// The file of a set's split; empty where it has none.
const std::string& file_of(const DataSet& set, Split split);
// "train", "validation" or "test"; throws for another name.
Split split_named(const std::string& name);
// The sets that have this split: those of `names` in its order, or all (empty) in that of the config.
std::vector<data::Dataset> load_sets(const Setup& setup, Split split, const std::vector<std::string>& names);

}  // namespace burrow::train
