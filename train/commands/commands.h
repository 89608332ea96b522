#pragma once
// The subcommands of `burrow`. Each throws a burrow::Error for what main prints, and returns the exit code.
#include <cstdint>
#include <string>
#include <vector>

#include "data/published/convert.h"
#include "train/run/device.h"

namespace burrow::train {

struct TrainCommand {
  std::string config, out;
  std::vector<std::string> overrides;
  bool resume = false, dry_run = false, profile = false;
  double profile_seconds = 6;
  std::string profile_json, profile_batches;
  DeviceChoice device;
};
// Trains, evaluates and writes the run directory, or what dry_run and profile ask for.
int run_train(const TrainCommand& command);
// What is empty is the config's; limit 0 takes all samples.
struct EvalCommand {
  std::string run, split, protocol, labels;
  std::vector<std::string> sets;
  int64_t limit = 0;
  DeviceChoice device = {};
};
// Scores a finished run.
int run_eval(const EvalCommand& command);
// Prints the answer to one question; `image` is a PNG file or empty.
int run_ask(const std::string& run, const std::string& image, const std::string& question,
            const DeviceChoice& device);
// What is empty is the config's; limit 0 takes all samples.
struct RoutingCommand {
  std::string run, split, out;
  int64_t limit = 0;
  DeviceChoice device = {};
};
// Writes CSV: of each router and expert the mean weight, its standard deviation over rows and their number,
// by the language that records name, or else by data set.
int run_routing(const RoutingCommand& command);
// Computes the feature caches of every set and split of a config, so that runs beside each other find them.
int run_features(const std::string& config, const std::vector<std::string>& overrides,
                 const DeviceChoice& device);

// `model` is a run of method full, or a config with model.weights.
struct FactorizeCommand {
  std::string model, out, split = "contiguous";
  int64_t experts = 4, top_k = 1, seed = 0;
};
// Writes the folder `out`, whose model is that with its FFNs in blocks, and which train (its config.toml),
// eval and ask read.
int run_factorize(const FactorizeCommand& command);

// `config` has the sizes of a model; `variants` are named as in the paper, 1R4E1K.
struct BenchInferCommand {
  std::string config, json;
  std::vector<std::string> overrides, variants{"1R4E1K"};
  int64_t prompt = 512, new_tokens = 32, rounds = 5;
  DeviceChoice device = {};
};
// Prints tokens a second of the config's decoder, of its variants of FactorLLM and of dense FFNs as narrow.
int run_bench_infer(const BenchInferCommand& command);

// Counts are records of each domain; with `pretrain`, images and records_per_image of the stage-1 set.
struct DataMakeCommand {
  std::string folder;
  int64_t seed = 0, train = 32000, validation = 1500, test = 1500;
  bool pretrain = false;
  int64_t images = 60000, records_per_image = 8;
};
// Writes the folder, or says that it already holds exactly this.
int run_data_make(const DataMakeCommand& command);

// Counts are items of each family, and lines of the pretraining text.
struct DataMakeTasksCommand {
  std::string folder;
  int64_t seed = 0, train = 16000, validation = 1000, test = 2000, texts = 300000;
};
// The same for the reasoning tasks.
int run_data_make_tasks(const DataMakeTasksCommand& command);

// Counts are of each language; with `pretrain`, the lessons of a base model instead.
struct DataMakeLanguagesCommand {
  std::string folder;
  int64_t seed = 0, train = 8000, validation = 400, test = 400;
  bool pretrain = false;
};
// The same for the six artificial languages.
int run_data_make_languages(const DataMakeLanguagesCommand& command);

// A file of records and how to read it. Empty fields have defaults (main.cpp).
struct DataFile {
  std::string path, format, images, tokenizer, chat = "plain";
  int64_t max_tokens = 2048;
};
// Prints every fault of the file; 1 where there is one.
int run_data_check(const DataFile& file);
// Prints one sample's tokens, the supervised ones marked.
int run_data_show(const DataFile& file, int64_t sample);

// Writes multiple-choice items from a task's published file, and says how its answers are spread.
int run_data_convert(const data::ConvertOptions& options);

// Prints the table of methods.
int run_methods();
// Prints every key of a run's config, for a terminal or as Markdown.
int run_config_reference(bool markdown);

}  // namespace burrow::train
