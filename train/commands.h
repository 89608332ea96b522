#pragma once
// The subcommands of `burrow`. Each throws a burrow::Error for what main prints, and returns the exit code.
#include <cstdint>
#include <string>
#include <vector>

namespace burrow::train {

struct TrainCommand {
  std::string config, out;
  std::vector<std::string> overrides;
  bool resume = false, dry_run = false, profile = false;
  double profile_seconds = 6;
  std::string profile_json, profile_batches;
};
int run_train(const TrainCommand& command);
int run_eval(const std::string& run, const std::string& split, int64_t limit);
int run_ask(const std::string& run, const std::string& image, const std::string& question);
// Computes the feature caches of every set and split of a config, so that runs beside each other find them.
int run_features(const std::string& config, const std::vector<std::string>& overrides);

struct DataMakeCommand {
  std::string folder;
  int64_t seed = 0, train = 32000, validation = 1500, test = 1500;
  bool pretrain = false;
  int64_t images = 60000, records_per_image = 8;
};
int run_data_make(const DataMakeCommand& command);
int run_data_check(const std::string& path, const std::string& images, const std::string& tokenizer,
                   const std::string& chat);
int run_data_show(const std::string& path, const std::string& images, const std::string& tokenizer,
                  const std::string& chat, int64_t sample);

int run_methods();
int run_config_reference(bool markdown);

}  // namespace burrow::train
