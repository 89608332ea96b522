// train: one run, its dry run and its profile.
#include <fmt/format.h>

#include "tensor/json.h"
#include "train/commands/commands.h"
#include "train/commands/scores.h"
#include "train/measure/profile.h"
#include "train/run/device.h"

namespace burrow::train {
namespace {

using Json = nlohmann::ordered_json;

struct TrainCommand {
  std::string config, out;
  std::vector<std::string> overrides;
  bool resume = false, dry_run = false, profile = false;
  double profile_seconds = 6;
  std::string profile_json, profile_batches;
  DeviceChoice device = {};
};

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

// A run may only be continued with the base and the data that it began with: nothing in its directory would
// record a change.
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

int run_train(const TrainCommand& command) {
  const RunConfig config = read_run_config(command.config, command.overrides,
                                           command.dry_run ? DataKeys::optional : DataKeys::required);
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
  const Device device = choose_device(command.device, say);  // before the directory is created
  RunDirectory run(out, write_run_config(config), command.resume);
  if (run.finished()) {
    say(fmt::format("{}: finished already; nothing to do", out));
    return 0;
  }
  if (!run.abandoned_by().empty())
    say(fmt::format("{}: {} was killed here; continuing from what it left", out, run.abandoned_by()));
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

}  // namespace

void add_train(Command& app) {
  auto [train, c] = app.command("train",
                                "Train one run, then evaluate it. A run is a directory (--out); it can be "
                                "killed at any time and continued with --resume, to the same bytes.",
                                run_train);
  train.option("config", c.config, "TOML file; `burrow config` lists the keys");
  train.option("--set", c.overrides, "key=value, over the file (repeatable), e.g. --set train.lr=5e-3");
  train.option("--out", c.out, "run directory (default: runs/<name of the config>)");
  train.flag("--resume", c.resume, "continue the run in the directory, or start it");
  train.flag("--dry-run", c.dry_run, "print the resolved config and the parameter counts, and stop");
  train.flag("--profile", c.profile,
             "train a few steps in memory only, print where their time goes, and stop");
  train.option("--profile-seconds", c.profile_seconds, "how long to measure (default: 6)",
               {.needs = "--profile"});
  train.option("--profile-json", c.profile_json, "write the profile's figures to this file",
               {.needs = "--profile"});
  train.option("--profile-batches", c.profile_batches,
               "write the model and the profiled batches, as safetensors, for other programs",
               {.needs = "--profile"});
  add_device_options(train, c.device);
}

}  // namespace burrow::train
