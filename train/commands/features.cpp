// features: fills the feature caches of every set and split of a config, so that runs side by side find them.
#include <algorithm>

#include "train/commands/commands.h"
#include "train/run/device.h"
#include "train/run/features.h"
#include "train/run/setup.h"

namespace burrow::train {
namespace {

struct FeaturesCommand {
  std::string config;
  std::vector<std::string> overrides;
  DeviceChoice device = {};
};

int run_features(const FeaturesCommand& c) {
  const Setup setup = make_setup(read_run_config(c.config, c.overrides), false, choose_device(c.device, say));
  BURROW_CHECK(setup.model->tower, "{}: a model without a vision tower has no features to compute", c.config);
  BURROW_CHECK(!setup.config.data.feature_cache.empty(), "data.feature_cache is not set in {}", c.config);
  FeatureCache features(setup.model->tower, setup.config.data.feature_cache, say);
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    const auto has_split = [&](const DataSet& d) { return !file_of(d, split).empty(); };
    if (std::none_of(setup.config.data.sets.begin(), setup.config.data.sets.end(), has_split)) continue;
    for (const data::Dataset& set : load_sets(setup, split, {})) features.add(set);
  }
  return 0;
}

}  // namespace

void add_features(Command& app) {
  auto [features, c] =
      app.command("features", "Compute the cached visual features of every set of a config", run_features);
  features.option("config", c.config, "TOML file");
  features.option("--set", c.overrides, "key=value, over the file (repeatable)");
  add_device_options(features, c.device);
}

}  // namespace burrow::train
