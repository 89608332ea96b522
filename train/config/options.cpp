#include "train/config/options.h"

#include <cmath>
#include <limits>
#include <set>

namespace burrow::train {

namespace {
void check_sizes(const RunConfig& c);
}

RunConfig read_run_config(const std::string& path, const std::vector<std::string>& overrides, DataKeys data) {
  return read_run_config(Document::load(path), overrides, data);
}

RunConfig read_run_config(Document document, const std::vector<std::string>& overrides, DataKeys data) {
  RunConfig config;
  for (const std::string& o : overrides) document.apply_override(o, fields_of(config));
  if (const auto name = document.string_at("method.name")) config.method = moe::method(*name);
  read_config(document, config);
  if (data == DataKeys::required || !config.data.sets.empty()) {
    check(config);
    return config;
  }
  check_sizes(config);
  BURROW_CHECK(config.model.sizes.decoder.vocabulary > 0 || !config.data.tokenizer.empty(),
               "model.decoder.vocabulary = 0: must be positive where there is no data.tokenizer");
  return config;
}

std::string write_run_config(const RunConfig& config) { return to_toml(config); }

namespace {

constexpr double kNoLimit = std::numeric_limits<double>::max();

// Fails for NaN.
void in_range(const char* key, double value, double least, double most) {
  const std::string range =
      most == kNoLimit ? fmt::format("at least {}, and finite", least) : fmt::format("{} to {}", least, most);
  BURROW_CHECK(value >= least && value <= most, "{} = {}: must be {}", key, value, range);
}
void in_range(const char* key, int64_t value, int64_t least, int64_t most = INT64_MAX) {
  const std::string range =
      most == INT64_MAX ? fmt::format("at least {}", least) : fmt::format("{} to {}", least, most);
  BURROW_CHECK(value >= least && value <= most, "{} = {}: must be {}", key, value, range);
}

void check_sets(const DataConfig& c, const std::vector<std::string>& evaluated) {
  BURROW_CHECK(!c.sets.empty(),
               "data.sets is missing: [[data.sets]] tables with name, train, test and images");
  std::set<std::string> names;
  for (const DataSet& d : c.sets) {
    BURROW_CHECK(!d.name.empty(), "data.sets[{}].name is missing", names.size());
    BURROW_CHECK(names.insert(d.name).second, "data.sets: two sets are named '{}'", d.name);
    BURROW_CHECK(d.format != data::Format::text || d.images.empty(),
                 "data.sets[{}].images: sets of the format text have no images ('{}')", names.size() - 1,
                 d.name);
    BURROW_CHECK(d.format == data::Format::choices || !d.circular,
                 "data.sets[{}].circular: only sets of the format choices have choices to rotate; '{}' has "
                 "the format {}",
                 names.size() - 1, d.name, name_of(d.format));
  }
  for (const auto& [key, listed] : {std::pair{"data.use", &c.use}, {"eval.sets", &evaluated}}) {
    std::set<std::string> used;
    for (const std::string& name : *listed) {
      BURROW_CHECK(names.contains(name), "{}: no set named '{}' among data.sets ({})", key, name,
                   fmt::join(names, ", "));
      BURROW_CHECK(used.insert(name).second, "{}: '{}' is listed twice", key, name);
    }
  }
}

void check_ratios(const std::vector<double>& ratios) {
  double sum = 0;
  for (const double r : ratios) {
    in_range("data.ratios", r, 0, kNoLimit);
    sum += r;
  }
  BURROW_CHECK(ratios.empty() || (sum > 0 && std::isfinite(sum)),
               "data.ratios: the sum is {}: must be positive and finite", sum);
}

void check_training(const TrainConfig& c) {
  in_range("train.seed", c.seed, 0);
  in_range("train.tokens_per_step", c.tokens_per_step, 1);
  in_range("train.accumulation", c.accumulation, 1, INT32_MAX);
  in_range("train.max_steps", c.max_steps, 0);
  in_range("train.log_every", c.log_every, 1);
  in_range("train.checkpoint_every", c.checkpoint_every, 0);
  in_range("train.keep_checkpoints", c.keep_checkpoints, 1);
  in_range("train.lr", c.lr, 0, kNoLimit);
  in_range("train.router_lr", c.router_lr, 0, kNoLimit);
  in_range("train.warmup", c.warmup, 0, 1);
  in_range("train.final_lr", c.final_lr, 0, 1);
  in_range("train.weight_decay", c.weight_decay, 0, kNoLimit);
  in_range("train.clip", c.clip, 0, kNoLimit);
  for (const auto& [key, beta] : {std::pair{"train.beta1", c.beta1}, {"train.beta2", c.beta2}})
    BURROW_CHECK(beta >= 0 && beta < 1, "{} = {}: must be in [0, 1)", key, beta);
  BURROW_CHECK(c.eps > 0 && std::isfinite(c.eps), "train.eps = {}: must be positive and finite", c.eps);
}

void check_sizes(const RunConfig& c) {
  nn::ModelConfig sizes = c.model.sizes;
  if (sizes.decoder.vocabulary == 0)
    sizes.decoder.vocabulary = 1;  // becomes the tokenizer's size, not yet known
  nn::check(sizes);
  moe::check(c.method);
  BURROW_CHECK(c.model.projector.empty() || sizes.vision.present(),
               "model.projector: model.vision.layers is 0: there is no projector");
  BURROW_CHECK(!c.method.train_projector || sizes.vision.present(),
               "method.train_projector: model.vision.layers is 0: there is no projector");
  BURROW_CHECK(c.model.dtype == "f32" || c.model.dtype == "f64" || c.model.dtype == "bf16",
               "model.dtype = '{}': f32, f64 or bf16", c.model.dtype);
  BURROW_CHECK(c.model.compute == "f32" || c.model.compute == "bf16", "model.compute = '{}': f32 or bf16",
               c.model.compute);
  BURROW_CHECK(c.model.compute != "bf16" || c.model.dtype != "f64",
               "model.compute = 'bf16' with model.dtype = 'f64'");
  check_training(c.train);
  in_range("train.recompute_layers", c.train.recompute_layers, 0, c.model.sizes.decoder.layers);
}

}  // namespace

void check(const RunConfig& c) {
  check_sizes(c);
  BURROW_CHECK(!c.data.tokenizer.empty(),
               "data.tokenizer is missing: the path of a tokenizer.json or tokenizer.model");
  check_sets(c.data, c.eval.sets);
  check_ratios(c.data.ratios);
  in_range("data.samples", c.data.samples, 0);
  BURROW_CHECK(c.eval.split == "test" || c.eval.split == "validation",
               "eval.split = '{}': test or validation", c.eval.split);
  in_range("eval.limit", c.eval.limit, 0);
  in_range("eval.max_new", c.eval.max_new, 1, INT32_MAX);
  in_range("eval.batch_tokens", c.eval.batch_tokens, 1);
}

}  // namespace burrow::train
