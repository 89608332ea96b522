// A run can only be continued with the config, the base and the data that it began with.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "tests/support/playground.h"

namespace fs = std::filesystem;
using namespace burrow::testing;

TEST_CASE("a run is not continued with changed data or a changed base") {
  const Playground& p = playground();
  const fs::path records = p.folder / "records.json", base = p.folder / "base.safetensors";
  fs::copy_file(p.folder / "data/general/train.json", records);
  REQUIRE(p.run({"train", "run.toml", "--out", "whole-model", "--set", "method.name=full", "--set",
                 "method.lora_targets=[]", "--set", "train.max_steps=1"})
              .code == 0);
  fs::copy_file(p.folder / "whole-model/trained.safetensors", base);
  const std::vector<std::string> command{"train",
                                         "run.toml",
                                         "--out",
                                         "origin",
                                         "--resume",
                                         "--set",
                                         "data.sets[0].train=records.json",
                                         "--set",
                                         "model.weights=base.safetensors",
                                         "--set",
                                         "train.max_steps=2"};
  REQUIRE(p.run(command).code == 0);
  fs::remove(p.folder / "origin/result.json");
  const auto refused = [&](const fs::path& file, const std::string& text, const std::string& part) {
    const std::string sound = burrow::read_file(file.string());
    burrow::write_file_atomically(file.string(), text);
    const Outcome o = p.run(command);
    CHECK(o.code == 1);
    CHECK_MESSAGE(has(o.text, part), o.text);
    burrow::write_file_atomically(file.string(), sound);
  };
  refused(records, p.read("records.json") + "\n", "origin: records.json changed since the run began");
  std::string weights = p.read("base.safetensors");
  weights[weights.size() - 1] ^= 1;
  refused(base, weights, "origin: the file of model.weights changed since the run began");
  refused(p.folder / "origin/provenance.json", "[]", "origin/provenance.json: not a JSON object");
  CHECK(p.run(command).code == 0);
}

TEST_CASE("a run that failed before its first step does not keep its folder") {
  const Playground& p = playground();
  const std::vector<std::string> sound{"train", "run.toml", "--out", "slip", "--set", "train.max_steps=1"};
  std::vector<std::string> slip = sound;
  slip.insert(slip.end(), {"--set", "data.sets[0].images=data/generl"});
  CHECK(has(p.run(slip).text, "data/generl"));
  CHECK(p.run(sound).code == 0);
  CHECK(!has(p.read("slip/config.toml"), "data/generl"));
  CHECK(has(p.run(slip).text, "holds a run already"));
}
