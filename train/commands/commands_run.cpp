// train, eval, ask, features: what works on a model.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "train/commands/commands.h"
#include "train/config/config.h"
#include "train/measure/profile.h"
#include "train/run/baselines.h"

namespace burrow::train {
namespace {

using Json = nlohmann::ordered_json;

// A line that the terminal or a full disk does not take must not end the run: fmt::print would throw.
void say(const std::string& line) { std::fputs((line + "\n").c_str(), stderr); }

double share(const std::pair<int64_t, int64_t>& of) {
  return static_cast<double>(of.first) / static_cast<double>(of.second);
}

const DataSet& set_of(const RunConfig& config, const std::string& set) {
  return *std::find_if(config.data.sets.begin(), config.data.sets.end(),
                       [&](const DataSet& d) { return d.name == set; });
}

// What a score means: how it was taken, and which tokens the model was trained on.
Json scoring_json(const RunConfig& config, const DataSet& set) {
  Json json = {{"score", scoring_of(config.eval, set)}};
  if (set.format == data::Format::choices) {
    json["protocol"] = data::name_of(config.eval.protocol);
    if (config.eval.protocol != Protocol::exact_match) json["labels"] = data::name_of(config.eval.labels);
  }
  json["loss"] = set.format == data::Format::text ? "all" : data::name_of(config.data.loss);
  return json;
}

// Chance and majority of the sets of choices that have a training file; `limit` as of the scores.
std::map<std::string, Baselines> baselines_of(const RunConfig& config, const std::string& split) {
  std::map<std::string, Baselines> found;
  const std::vector<std::string>& asked = config.eval.sets;
  for (const DataSet& d : config.data.sets) {
    if (!asked.empty() && std::find(asked.begin(), asked.end(), d.name) == asked.end()) continue;
    const std::string& file = file_of(d, split_named(split));
    if (d.format != data::Format::choices || file.empty() || d.train.empty()) continue;
    found[d.name] = baselines(d.format, d.train, file, config.eval.limit, d.circular);
  }
  return found;
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

template <class E>
E named(const char* option, const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [n, value] : enum_names(E{})) {
    if (n == name) return value;
    names.push_back(n);
  }
  fail("{} {}: one of {}", option, name, fmt::join(names, ", "));
}

std::vector<SetScore> score_split(const Setup& setup, const std::string& split) {
  const std::vector<data::Dataset> sets = load_sets(setup, split_named(split), setup.config.eval.sets);
  FeatureCache features(setup.model->tower, setup.config.method.full ? "" : setup.config.data.feature_cache,
                        say);
  for (const data::Dataset& set : sets) features.add(set);
  return evaluate(setup, sets, features);
}

Json run_provenance(const Setup& setup) {
  Json p = provenance();
  p["weights_hash"] = hash_hex(setup.weights_hash);
  p["data"][setup.config.data.tokenizer] =
      hash_hex(hash_bytes(MappedFile::open(setup.config.data.tokenizer)->bytes()));
  for (const DataSet& d : setup.config.data.sets) {
    for (const std::string& file : {d.train, d.validation, d.test}) {
      if (!file.empty()) p["data"][file] = hash_hex(hash_bytes(MappedFile::open(file)->bytes()));
    }
  }
  return p;
}

// A run goes on with the base and the data that it began with: on others it would be neither the old run nor
// a new one, and nothing in its directory would say so.
void check_unchanged(const RunDirectory& run, const Json& now) {
  const auto path = run.path() / "provenance.json";
  if (!run.begun() || !std::filesystem::exists(path)) return;
  const Json then = Json::parse(read_file(path.string()), nullptr, false);
  BURROW_CHECK(then.is_object(), "{}: not a JSON object", path.string());
  const auto same = [&](const Json& a, const Json& b, const char* key, const std::string& what) {
    BURROW_CHECK(a.contains(key) && a[key] == b[key],
                 "{}: {} changed since the run began; choose another --out", run.path().string(), what);
  };
  same(then, now, "weights_hash", "the file of model.weights");
  const Json before = then.contains("data") && then["data"].is_object() ? then["data"] : Json::object();
  for (const auto& [file, hash] : now["data"].items()) same(before, now["data"], file.c_str(), file);
}

}  // namespace

int run_train(const TrainCommand& command) {
  const RunConfig config = read_run_config(command.config, command.overrides);
  if (command.dry_run) {
    const Setup setup = make_setup(config, true);
    fmt::print("{}{}", write_run_config(setup.config), setup.attachment.report);
    return 0;
  }
  if (command.profile) {
    BURROW_CHECK(command.profile_seconds > 0 && command.profile_seconds <= 3600,
                 "--profile-seconds {}: must be positive, and 3600 at most", command.profile_seconds);
    Setup setup = make_setup(config, false, choose_device(command.device, say));
    say(setup.attachment.report);
    Trainer trainer(setup, say);
    profile(trainer, setup, {command.profile_seconds, command.profile_json, command.profile_batches});
    return 0;
  }
  const std::string out =
      command.out.empty() ? "runs/" + std::filesystem::path(command.config).stem().string() : command.out;
  const Device device = choose_device(command.device, say);  // before the directory is touched
  RunDirectory run(out, write_run_config(config), command.resume);
  if (run.finished()) {
    say(fmt::format("{}: finished already; nothing to do", out));
    return 0;
  }
  if (!run.abandoned_by().empty())
    say(fmt::format("{}: {} was killed here; going on from what it left", out, run.abandoned_by()));
  Setup setup = make_setup(config, false, device);
  Json origin = run_provenance(setup);
  origin["device"] = describe(device);
  check_unchanged(run, origin);
  run.write_json("provenance.json", origin);
  say(fmt::format("method {} on {}:\n{}", config.method.name, out, setup.attachment.report));
  Trainer trainer(setup, say);
  const TrainResult trained = trainer.train(run);
  const std::vector<SetScore> scores = score_split(setup, config.eval.split);
  print_scores(setup.config, scores, config.eval.split);
  run.write_json(
      "timings.json",
      {{"seconds", trained.seconds},
       {"tokens", trained.tokens},
       {"tokens_per_second", trained.seconds > 0 ? static_cast<double>(trained.tokens) / trained.seconds : 0},
       {"peak_memory_bytes", trained.peak_memory}});
  const moe::ParameterCounts& counts = setup.attachment.counts;
  Json result = {{"schema", kSchemaVersion}, {"method", config.method.name}, {"split", config.eval.split}};
  result.update(scores_json(setup.config, scores, config.eval.split));
  result["parameters"] = {
      {"total", counts.total}, {"trainable", counts.trainable}, {"active", counts.active}};
  result["steps"] = trained.steps;
  run.write_json("result.json", result);
  return 0;
}

int run_eval(const EvalCommand& command) {
  Setup setup = load_run(command.run, choose_device(command.device, say));
  EvalConfig& eval = setup.config.eval;
  eval.limit = command.limit;
  if (!command.protocol.empty()) eval.protocol = named<Protocol>("--protocol", command.protocol);
  if (!command.labels.empty()) eval.labels = named<LabelRange>("--labels", command.labels);
  if (!command.sets.empty()) eval.sets = command.sets;
  check(setup.config);
  const std::string chosen = command.split.empty() ? eval.split : command.split;
  print_scores(setup.config, score_split(setup, chosen), chosen);
  return 0;
}

int run_ask(const std::string& run, const std::string& image, const std::string& question,
            const DeviceChoice& device) {
  const Setup setup = load_run(run, choose_device(device, say));
  const std::vector<int32_t> words = setup.tokenizer.encode_plain(question);
  if (const auto unknown = std::count(words.begin(), words.end(), setup.tokenizer.unknown()); unknown > 0)
    say(fmt::format("{} of the question's {} words are not in the vocabulary", unknown, words.size()));
  if (image.empty()) {
    fmt::print("{}\n", answer(setup, nullptr, question));
  } else {
    const data::Image picture = data::read_png(image);
    fmt::print("{}\n", answer(setup, &picture, question));
  }
  return 0;
}

int run_features(const std::string& config, const std::vector<std::string>& overrides,
                 const DeviceChoice& device) {
  const Setup setup = make_setup(read_run_config(config, overrides), false, choose_device(device, say));
  BURROW_CHECK(setup.model->tower, "{}: a model without a vision tower has no features to compute", config);
  BURROW_CHECK(!setup.config.data.feature_cache.empty(), "data.feature_cache is not set in {}", config);
  FeatureCache features(setup.model->tower, setup.config.data.feature_cache, say);
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    const auto has_split = [&](const DataSet& d) { return !file_of(d, split).empty(); };
    if (std::none_of(setup.config.data.sets.begin(), setup.config.data.sets.end(), has_split)) continue;
    for (const data::Dataset& set : load_sets(setup, split, {})) features.add(set);
  }
  return 0;
}

int run_methods() {
  for (const moe::Method& m : moe::methods()) fmt::print("{:<9} {}\n", m.config.name, m.about);
  return 0;
}

int run_config_reference(bool markdown) {
  RunConfig config;
  const auto fields = fields_of(config);
  fmt::print("{}", markdown ? fields_to_markdown(fields) : fields_to_help(fields));
  return 0;
}

}  // namespace burrow::train
