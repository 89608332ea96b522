#include "train/options.h"

namespace burrow::train {

RunConfig read_run_config(const std::string& path, const std::vector<std::string>& overrides) {
  return read_run_config(Document::load(path), overrides);
}

RunConfig read_run_config(Document document, const std::vector<std::string>& overrides) {
  RunConfig config;
  for (const std::string& o : overrides) document.apply_override(o, fields_of(config));
  if (const auto name = document.string_at("method.name")) config.method = moe::method(*name);
  read_config(document, config);
  check(config);
  return config;
}

std::string write_run_config(const RunConfig& config) { return to_toml(config); }

void check(const RunConfig& c) {
  const auto at_least = [](const char* key, double value, double least) {
    BURROW_CHECK(value >= least, "{} = {}: must be at least {}", key, value, least);
  };
  nn::check(c.model.sizes);
  moe::check(c.method);
  BURROW_CHECK(c.model.dtype == "f32" || c.model.dtype == "f64", "model.dtype = '{}': f32 or f64",
               c.model.dtype);
  BURROW_CHECK(!c.data.tokenizer.empty(), "data.tokenizer is missing: the path of a tokenizer.json");
  BURROW_CHECK(!c.data.sets.empty(),
               "data.sets is missing: [[data.sets]] tables with name, train, test and images");
  BURROW_CHECK(c.eval.split == "test" || c.eval.split == "validation",
               "eval.split = '{}': test or validation", c.eval.split);
  at_least("train.seed", static_cast<double>(c.train.seed), 0);
  at_least("train.tokens_per_step", static_cast<double>(c.train.tokens_per_step), 1);
  at_least("train.accumulation", static_cast<double>(c.train.accumulation), 1);
  at_least("train.log_every", static_cast<double>(c.train.log_every), 1);
  at_least("train.checkpoint_every", static_cast<double>(c.train.checkpoint_every), 0);
  at_least("train.keep_checkpoints", static_cast<double>(c.train.keep_checkpoints), 1);
  at_least("train.lr", c.train.lr, 0);
  at_least("train.warmup", c.train.warmup, 0);
  at_least("data.samples", static_cast<double>(c.data.samples), 0);
  at_least("eval.max_new", static_cast<double>(c.eval.max_new), 1);
  at_least("eval.batch_tokens", static_cast<double>(c.eval.batch_tokens), 1);
}

}  // namespace burrow::train
