// What several commands share.
#include "train/commands/commands.h"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>

#include "train/run/device.h"

namespace burrow::train {

void add_device_options(CLI::App& command, DeviceChoice& device) {
  command.add_option("--device", device.name, "cpu or cuda")->capture_default_str();
  command.add_flag("--fast", device.fast,
                   "cuda: f32 products in TF32, faster and less exact; it says what it gave up");
  command
      .add_option("--attention", device.attention,
                  "cuda: own, or cudnn for what NVIDIA's library can take of it")
      ->capture_default_str();
}

// CLI::PositiveNumber's help would print all 309 digits of the largest double.
CLI::Option* positive(CLI::Option* option) {
  return option->check(CLI::Range(int64_t{1}, int64_t{INT32_MAX}));
}

void say(const std::string& line) { std::fputs((line + "\n").c_str(), stderr); }

void add_bench(CLI::App& app, std::vector<Command>& commands) {
  CLI::App* bench = app.add_subcommand("bench", "Measure speed")->require_subcommand(1);
  add_bench_infer(*bench, commands);
  add_bench_train(*bench, commands);
}

}  // namespace burrow::train
