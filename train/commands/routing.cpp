// routing: the weights that a finished run's routers give their experts, by language or data set.
#include <fmt/format.h>

#include <cmath>
#include <map>

#include "tensor/files.h"
#include "train/commands/commands.h"
#include "train/run/device.h"
#include "train/run/evaluate.h"

namespace burrow::train {
namespace {

// Empty strings stand for the config's values; limit 0 takes all samples.
struct RoutingCommand {
  std::string run, split, out;
  int64_t limit = 0;
  DeviceChoice device = {};
};

// The weights of one router on the rows of one group.
struct Weights {
  std::vector<double> sum, squares;  // by expert
  int64_t rows = 0;
};
using ByGroup = std::map<std::pair<std::string, std::string>, Weights>;  // by group and router

// The group of a sample: the language that its record names, or else its data set.
std::string group_of(const data::Dataset& set, const data::Sample& sample) {
  return sample.language < 0 ? set.name() : set.languages()[static_cast<size_t>(sample.language)];
}

void add(ByGroup& groups, const nn::Routing& r, const nn::Pass& pass,
         const std::vector<std::string>& group_of_sample) {
  const Tensor w = r.weights.value().to(Device::cpu).to(DType::f64);
  const Tensor rows = r.rows.defined() ? r.rows.to(Device::cpu) : Tensor{};
  const int64_t E = w.dim(1);
  for (int64_t i = 0; i < w.dim(0); ++i) {
    const auto row = static_cast<size_t>(rows.defined() ? rows.data<int32_t>()[i] : i);
    const auto sample = static_cast<size_t>(pass.segments->sequence[row]);
    Weights& found = groups[{group_of_sample[sample], r.site}];
    found.sum.resize(static_cast<size_t>(E));
    found.squares.resize(static_cast<size_t>(E));
    found.rows += 1;
    for (int64_t e = 0; e < E; ++e) {
      const double x = w.data<double>()[i * E + e];
      found.sum[static_cast<size_t>(e)] += x;
      found.squares[static_cast<size_t>(e)] += x * x;
    }
  }
}

void add_set(ByGroup& groups, const Setup& setup, const data::Dataset& set, const FeatureCache& features,
             int32_t index, int64_t limit) {
  const int64_t P = setup.config.model.sizes.vision.visual_tokens();
  const int64_t count = limit > 0 ? std::min(limit, set.size()) : set.size();
  for (int64_t begin = 0; begin < count;) {
    std::vector<data::BatchSample> samples;
    std::vector<std::string> names;
    int64_t tokens = 0;
    while (begin < count && (samples.empty() || tokens < setup.config.eval.batch_tokens)) {
      samples.push_back({set.sample(begin), index, begin});
      names.push_back(group_of(set, samples.back().sample));
      tokens += samples.back().sample.length(P);
      ++begin;
    }
    const data::Batch batch = data::make_batch(samples, P);
    nn::Pass pass(batch.segments, setup.model->device());
    const Tensor visual = features.gather(batch.images);
    setup.model->hidden(batch.ids, visual.defined() ? Var(visual) : Var{}, pass);
    for (const nn::Routing& r : pass.routings) add(groups, r, pass, names);
  }
}

// Writes CSV: for each group, router and expert the mean weight, its standard deviation over rows, and the
// number of rows.
int run_routing(const RoutingCommand& c) {
  const NoGrad no_grad;
  const Setup setup = load_run(c.run, choose_device(c.device, say));
  const std::string split = c.split.empty() ? setup.config.eval.split : c.split;
  const auto sets = load_sets(setup, value_named<Split>("--split", split), setup.config.eval.sets);
  FeatureCache features(setup.model->tower, setup.config.data.feature_cache, say);
  for (const data::Dataset& set : sets) features.add(set);
  ByGroup groups;
  for (size_t d = 0; d < sets.size(); ++d)
    add_set(groups, setup, sets[d], features, static_cast<int32_t>(d), c.limit);
  BURROW_CHECK(!groups.empty(), "{}: method '{}' has no router", c.run, setup.config.method.name);
  std::string csv = "group,router,expert,weight,deviation,rows\n";
  for (const auto& [key, w] : groups) {
    const auto n = static_cast<double>(w.rows);
    for (size_t e = 0; e < w.sum.size(); ++e) {
      const double mean = w.sum[e] / n, variance = w.squares[e] / n - mean * mean;
      csv += fmt::format("{},{},{},{:.6f},{:.6f},{}\n", key.first, key.second, e, mean,
                         std::sqrt(std::max(variance, 0.0)), w.rows);
    }
  }
  if (c.out.empty())
    fmt::print("{}", csv);
  else
    write_file_atomically(c.out, csv);
  return 0;
}

}  // namespace

void add_routing(Command& app) {
  auto [routing, c] =
      app.command("routing", "How a finished run's routers weigh their experts: CSV, by language or data set",
                  run_routing);
  routing.option("run", c.run, "run directory");
  routing.option("--split", c.split, "train, validation or test (default: the config's eval.split)");
  routing.option("--limit", c.limit, "samples of each set (default: all)", {.range = kPositive});
  routing.option("--out", c.out, "file to write (default: printed)");
  add_device_options(routing, c.device);
}

}  // namespace burrow::train
