#pragma once
// A small table and its cells, with the files that runs would write.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "tensor/files.h"
#include "tests/support/errors.h"
#include "tests/support/folder.h"
#include "train/table/table_report.h"

namespace burrow::train::testing {

namespace fs = std::filesystem;

// Writes a run config with two data sets, and their records.
constexpr const char* kRecord =
    R"({{"conversations": [{{"from": "human", "value": "{}"}}, {{"from": "gpt", "value": "{}"}}]}})";
inline std::string records(const std::vector<std::pair<std::string, std::string>>& turns) {
  std::vector<std::string> all;
  for (const auto& [question, answer] : turns) all.push_back(fmt::format(kRecord, question, answer));
  return fmt::format("[{}]", fmt::join(all, ",\n"));
}
inline void put_run(const Folder& folder) {
  const std::string train = records({{"q", "a"}, {"q", "b"}, {"q", "b"}, {"r", "c"}, {"r", "c"}, {"r", "c"}});
  folder.put("train.json", train);
  folder.put("test.json", records({{"q", "b"}, {"q", "a"}, {"r", "c"}, {"new", "b"}}));
  std::string text = fmt::format("base = \"{}/../configs/models/miniature.toml\"\n", BURROW_TEST_FILES);
  text += "[data]\ntokenizer = \"tokenizer.json\"\nsamples = 100\n";
  for (const char* name : {"cats", "dogs"}) {
    text += fmt::format("[[data.sets]]\nname = \"{0}\"\ntrain = \"{1}\"\ntest = \"{2}\"\n", name,
                        folder / "train.json", folder / "test.json");
  }
  folder.put("run.toml", text);
}

inline std::string table_text(const Folder& folder, const std::string& more) {
  return fmt::format("title = \"T\"\nrun = \"{}\"\nseeds = [1, 2, 3, 4]\nreference = \"mix\"\n{}",
                     folder / "run.toml", more);
}
constexpr const char* kRows = R"(
[[rows]]
name = "cats"
set = ['data.use=["cats"]', 'data.samples=50']
[[rows]]
name = "dogs"
set = ['data.use=["dogs"]', 'data.samples=50']
[[rows]]
name = "singles"
label = "each, alone"
assemble = ["cats", "dogs"]
[[rows]]
name = "mix"
group = "g"
[[rows]]
name = "mole"
group = "g"
set = ['method.name=mole']
)";

inline std::string result_text(double cats, double dogs, int64_t steps = 10) {
  return fmt::format(R"({{"score": {{"cats": {}, "dogs": {}, "mean": 9}}, "steps": {},
                          "parameters": {{"total": 1000, "trainable": 30, "active": 20}}}})",
                     cats, dogs, steps);
}
inline void finish(const Cell& cell, const std::string& result, double speed = 100) {
  fs::create_directories(cell.path);
  const auto put = [&](const char* name, const std::string& text) {
    write_file_atomically((cell.path / name).string(), text);
  };
  put("config.toml", cell.config);
  put("timings.json",
      fmt::format(R"({{"tokens_per_second": {}, "peak_memory_bytes": {}}})", speed, 1048576 * speed));
  put("metrics.jsonl", R"({"step": 1, "routing": [{"active": {"cats": 9}}]}
{"step": 2, "routing": [{"active": {"cats": 1, "dogs": 2}}, {"active": {"cats": 3}}]}
)");
  put("provenance.json", R"({"commit": "abc", "cpu": "some CPU", "threads": 1})");
  put("result.json", result);
}
inline const Cell& cell_of(const TablePlan& plan, const std::string& row, int64_t seed) {
  for (const Cell& cell : plan.cells) {
    if (plan.config.rows[cell.row].name == row && cell.seed == seed) return cell;
  }
  fail("no cell {} {}", row, seed);
}

inline void close(double value, double reference) {
  INFO("value " << value << ", reference " << reference);
  CHECK(std::abs(value - reference) <= 1e-9 * std::abs(reference) + 1e-12);
}

}  // namespace burrow::train::testing
