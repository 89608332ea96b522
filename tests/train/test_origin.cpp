// A run can only be continued with the config, the base and the data that it began with.
#include "tests/support/playground.h"

namespace fs = std::filesystem;
using namespace burrow;
using namespace burrow::testing;

TEST_CASE("a run is not continued with changed data or a changed base") {
  const Playground& p = playground();
  const fs::path records = p.folder / "records.json", base = p.folder / "base.safetensors";
  fs::copy_file(p.folder / "data/general/train.json", records);
  p.good(
      "train run.toml --out whole-model --set method.name=full --set method.lora_targets=[] --set "
      "train.max_steps=1");
  fs::copy_file(p.folder / "whole-model/trained.safetensors", base);
  const std::string command =
      "train run.toml --out origin --resume --set data.sets[0].train=records.json --set "
      "model.weights=base.safetensors --set train.max_steps=2";
  p.good(command);
  fs::remove(p.folder / "origin/result.json");
  const auto refused = [&](const fs::path& file, const std::string& text, const std::string& part) {
    const std::string sound = read_file(file.string());
    write_file_atomically(file.string(), text);
    p.refused(command, {part});
    write_file_atomically(file.string(), sound);
  };
  refused(records, p.read("records.json") + "\n", "origin: records.json changed since the run began");
  std::string weights = p.read("base.safetensors");
  weights[weights.size() - 1] ^= 1;
  refused(base, weights, "origin: the file of model.weights changed since the run began");
  refused(p.folder / "origin/provenance.json", "[]", "origin/provenance.json: not a JSON object");
  p.good(command);
}

TEST_CASE("a run that failed before its first step does not keep its folder") {
  const Playground& p = playground();
  const std::string sound = "train run.toml --out slip --set train.max_steps=1";
  const std::string slip = sound + " --set data.sets[0].images=data/generl";
  CHECK(contains(p.run(slip).text, "data/generl"));
  p.good(sound);
  CHECK(!contains(p.read("slip/config.toml"), "data/generl"));
  CHECK(contains(p.run(slip).text, "holds a run already"));
}
