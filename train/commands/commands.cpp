// What several commands share.
#include "train/commands/commands.h"

#include <cstdio>

#include "train/run/device.h"

namespace burrow::train {

void add_device_options(Command& command, DeviceChoice& device) {
  command.option("--device", device.name, "cpu or cuda", {.show_default = true});
  command.flag("--fast", device.fast,
               "cuda: f32 products in TF32, faster and less exact; it says what it gave up");
  command.option("--attention", device.attention,
                 "cuda: own, or cudnn for what NVIDIA's library can take of it", {.show_default = true});
}

void say(const std::string& line) { std::fputs((line + "\n").c_str(), stderr); }

void add_bench(Command& app) {
  Command bench = app.group("bench", "Measure speed");
  add_bench_infer(bench);
  add_bench_train(bench);
}

}  // namespace burrow::train
