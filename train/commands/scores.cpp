#include "train/commands/scores.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "tensor/json.h"
#include "train/commands/commands.h"
#include "train/run/baselines.h"

namespace burrow::train {
namespace {

using Json = nlohmann::ordered_json;

double share(const std::pair<int64_t, int64_t>& of) {
  return static_cast<double>(of.first) / static_cast<double>(of.second);
}

const DataSet& set_of(const RunConfig& config, const std::string& set) {
  return *std::find_if(config.data.sets.begin(), config.data.sets.end(),
                       [&](const DataSet& d) { return d.name == set; });
}

// How a score was taken, and on which tokens the model was trained.
Json scoring_json(const RunConfig& config, const DataSet& set) {
  Json json = {{"score", scoring_of(config.eval, set)}};
  if (set.format == data::Format::choices) {
    json["protocol"] = name_of(config.eval.protocol);
    if (config.eval.protocol != Protocol::exact_match) json["labels"] = name_of(config.eval.labels);
  }
  json["loss"] = set.format == data::Format::text ? "all" : name_of(config.data.loss);
  return json;
}

// Baselines of the sets of choices that have a training file, over the same samples as the scores.
std::map<std::string, Baselines> baselines_of(const RunConfig& config, const std::string& split) {
  std::map<std::string, Baselines> found;
  const std::vector<std::string>& asked = config.eval.sets;
  for (const DataSet& d : config.data.sets) {
    if (!asked.empty() && std::find(asked.begin(), asked.end(), d.name) == asked.end()) continue;
    const std::string& file = file_of(d, value_named<Split>("--split", split));
    if (d.format != data::Format::choices || file.empty() || d.train.empty()) continue;
    found[d.name] = baselines(d.format, d.train, file, config.eval.limit, d.circular);
  }
  return found;
}

}  // namespace

std::vector<SetScore> score_split(const Setup& setup, const std::string& split) {
  const std::vector<data::Dataset> sets =
      load_sets(setup, value_named<Split>("--split", split), setup.config.eval.sets);
  FeatureCache features(setup.model->tower, setup.config.method.full ? "" : setup.config.data.feature_cache,
                        say);
  for (const data::Dataset& set : sets) features.add(set);
  return evaluate(setup, sets, features);
}

Json scores_json(const RunConfig& config, const std::vector<SetScore>& scores, const std::string& split) {
  Json all = {{"score", Json::object()}, {"count", Json::object()}, {"by_type", Json::object()}};
  double sum = 0;
  for (const SetScore& s : scores) {
    all["score"][s.name] = s.score();
    all["count"][s.name] = s.count;
    for (const auto& [type, c] : s.by_type) all["by_type"][s.name][type] = share(c);
    if (s.nats > 0) all["nats_per_token"][s.name] = s.nats / static_cast<double>(s.count);
    if (s.left_out > 0) all["left_out"][s.name] = s.left_out;
    all["scoring"][s.name] = scoring_json(config, set_of(config, s.name));
    sum += s.score();
  }
  all["score"]["mean"] = sum / static_cast<double>(scores.size());
  for (const auto& [set, b] : baselines_of(config, split))
    all["baselines"][set] = {{"chance", b.chance}, {"majority", b.majority}, {"blind", b.blind}};
  return all;
}

void print_scores(const RunConfig& config, const std::vector<SetScore>& scores, const std::string& split) {
  const auto floors = baselines_of(config, split);
  for (const SetScore& s : scores) {
    const DataSet& set = set_of(config, s.name);
    fmt::print("{:<14} {:6.2f} %  ({} of {}{})  {}\n", s.name, 100 * s.score(), s.correct, s.count,
               set.format == data::Format::text ? " tokens" : "", scoring_of(config.eval, set));
    if (s.nats > 0) fmt::print("  {:.4f} nats per token\n", s.nats / static_cast<double>(s.count));
    if (const auto floor = floors.find(s.name); floor != floors.end())
      fmt::print("  {:<12} {:6.2f} %\n  {:<12} {:6.2f} %\n", "chance", 100 * floor->second.chance, "majority",
                 100 * floor->second.majority);
    for (const auto& [type, c] : s.by_type)
      fmt::print("  {:<12} {:6.2f} %  ({} of {})\n", type, 100 * share(c), c.first, c.second);
    if (s.left_out > 0)
      fmt::print("  {} of the set left out: nothing to score within model.decoder.max_tokens\n", s.left_out);
  }
  if (std::any_of(scores.begin(), scores.end(),
                  [&](const SetScore& s) { return set_of(config, s.name).format == data::Format::choices; }))
    fmt::print("trained on: {}\n",
               config.data.loss == data::Supervision::all ? "all tokens, prompts too" : "the answers alone");
}

}  // namespace burrow::train
