// train, eval, ask, features: what works on a model.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "train/commands.h"
#include "train/config.h"
#include "train/profile.h"

namespace burrow::train {
namespace {

using Json = nlohmann::ordered_json;

// A line that the terminal or a full disk does not take must not end the run: fmt::print would throw.
void say(const std::string& line) { std::fputs((line + "\n").c_str(), stderr); }

Json scores_json(const std::vector<SetScore>& scores) {
  Json all = {{"exact_match", Json::object()}, {"count", Json::object()}, {"by_type", Json::object()}};
  double sum = 0;
  for (const SetScore& s : scores) {
    all["exact_match"][s.name] = s.exact_match();
    all["count"][s.name] = s.count;
    for (const auto& [type, c] : s.by_type) {
      all["by_type"][s.name][type] = static_cast<double>(c.first) / static_cast<double>(c.second);
    }
    sum += s.exact_match();
  }
  all["exact_match"]["mean"] = sum / static_cast<double>(scores.size());
  return all;
}

void print_scores(const std::vector<SetScore>& scores) {
  for (const SetScore& s : scores) {
    fmt::print("{:<14} {:6.2f} %  ({} of {})\n", s.name, 100 * s.exact_match(), s.correct, s.count);
    for (const auto& [type, c] : s.by_type) {
      fmt::print("  {:<12} {:6.2f} %  ({} of {})\n", type,
                 100.0 * static_cast<double>(c.first) / static_cast<double>(c.second), c.first, c.second);
    }
  }
}

std::vector<SetScore> score_split(const Setup& setup, const std::string& split) {
  const std::vector<data::Dataset> sets = load_sets(setup, split_named(split), {});
  FeatureCache features(setup.model->tower,
                        setup.config.method.name == "full" ? "" : setup.config.data.feature_cache, say);
  for (const data::Dataset& set : sets) features.add(set);
  return evaluate(setup, sets, features);
}

Setup load_run(const std::string& run) {
  const auto folder = std::filesystem::path(run);
  BURROW_CHECK(std::filesystem::exists(folder / "trained.safetensors"),
               "{}: no trained.safetensors: not a run, or not finished", run);
  Setup setup = make_setup(read_run_config((folder / "config.toml").string(), {}));
  load_trained((folder / "trained.safetensors").string(), setup.attachment.trainable());
  return setup;
}

Json run_provenance(const Setup& setup) {
  Json p = provenance();
  p["weights_hash"] = hash_hex(setup.weights_hash);
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
    fmt::print("{}{}", write_run_config(config), setup.attachment.report());
    return 0;
  }
  if (command.profile) {
    BURROW_CHECK(command.profile_seconds > 0 && command.profile_seconds <= 3600,
                 "--profile-seconds {}: must be positive, and 3600 at most", command.profile_seconds);
    Setup setup = make_setup(config);
    say(setup.attachment.report());
    Trainer trainer(setup, say);
    profile(trainer, setup, {command.profile_seconds, command.profile_json, command.profile_batches});
    return 0;
  }
  const std::string out =
      command.out.empty() ? "runs/" + std::filesystem::path(command.config).stem().string() : command.out;
  RunDirectory run(out, write_run_config(config), command.resume);
  if (run.finished()) {
    say(fmt::format("{}: finished already; nothing to do", out));
    return 0;
  }
  if (!run.abandoned_by().empty())
    say(fmt::format("{}: {} was killed here; going on from what it left", out, run.abandoned_by()));
  Setup setup = make_setup(config);
  const Json origin = run_provenance(setup);
  check_unchanged(run, origin);
  run.write_json("provenance.json", origin);
  say(fmt::format("method {} on {}:\n{}", config.method.name, out, setup.attachment.report()));
  Trainer trainer(setup, say);
  const TrainResult trained = trainer.train(run);
  const std::vector<SetScore> scores = score_split(setup, config.eval.split);
  print_scores(scores);
  run.write_json(
      "timings.json",
      {{"seconds", trained.seconds},
       {"tokens", trained.tokens},
       {"tokens_per_second", trained.seconds > 0 ? static_cast<double>(trained.tokens) / trained.seconds : 0},
       {"peak_memory_bytes", trained.peak_memory}});
  const moe::ParameterCounts& counts = setup.attachment.counts();
  Json result = {{"schema", kSchemaVersion}, {"method", config.method.name}, {"split", config.eval.split}};
  result.update(scores_json(scores));
  result["parameters"] = {
      {"total", counts.total}, {"trainable", counts.trainable}, {"active", counts.active}};
  result["steps"] = trained.steps;
  run.write_json("result.json", result);
  return 0;
}

int run_eval(const std::string& run, const std::string& split, int64_t limit) {
  Setup setup = load_run(run);
  setup.config.eval.limit = limit;
  print_scores(score_split(setup, split.empty() ? setup.config.eval.split : split));
  return 0;
}

int run_ask(const std::string& run, const std::string& image, const std::string& question) {
  const Setup setup = load_run(run);
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

int run_features(const std::string& config, const std::vector<std::string>& overrides) {
  const Setup setup = make_setup(read_run_config(config, overrides));
  BURROW_CHECK(!setup.config.data.feature_cache.empty(), "data.feature_cache is not set in {}", config);
  FeatureCache features(setup.model->tower, setup.config.data.feature_cache, say);
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    for (const data::Dataset& set : load_sets(setup, split, {})) features.add(set);
  }
  return 0;
}

int run_methods() {
  for (const moe::Method& m : moe::methods()) fmt::print("{:<8} {}\n", m.config.name, m.about);
  return 0;
}

int run_config_reference(bool markdown) {
  RunConfig config;
  const auto fields = fields_of(config);
  fmt::print("{}", markdown ? fields_to_markdown(fields) : fields_to_help(fields));
  return 0;
}

}  // namespace burrow::train
