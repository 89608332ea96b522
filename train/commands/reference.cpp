// device, methods, config: lists of what the machine and the program offer.
#include <fmt/format.h>

#include "tensor/device.h"
#include "train/commands/commands.h"
#include "train/config/options.h"

namespace burrow::train {
namespace {

// Prints the device that --device cuda takes, or why there is none; returns 1 then.
int run_device() {
  const cuda::DeviceInfo info = cuda::device_info();
  if (!info.absent.empty()) {
    fmt::print("no device for --device cuda: {}\n", info.absent);
    return 1;
  }
  const auto gib = [](size_t bytes) { return static_cast<double>(bytes) / (1 << 30); };
  fmt::print("{}: compute capability {}.{}, {} multiprocessors, {:.1f} GiB of memory, {:.1f} GiB free\n",
             info.name, info.major, info.minor, info.multiprocessors, gib(info.memory), gib(info.free));
  fmt::print("CUDA {}.{}, driver for {}.{}\n", info.runtime / 1000, info.runtime % 1000 / 10,
             info.driver / 1000, info.driver % 1000 / 10);
  const cuda::CudnnInfo cudnn = cuda::cudnn_info();
  if (cudnn.absent.empty())
    fmt::print("cuDNN {}.{}.{}\n", cudnn.version / 10000, cudnn.version / 100 % 100, cudnn.version % 100);
  else
    fmt::print("without cuDNN: {}\n", cudnn.absent);
  return 0;
}

int run_methods() {
  for (const moe::Method& m : moe::methods()) fmt::print("{:<9} {}\n", m.config.name, m.about);
  return 0;
}

int run_config(const bool& markdown) {
  RunConfig config;
  const auto fields = fields_of(config);
  fmt::print("{}", markdown ? fields_to_markdown(fields) : fields_to_help(fields));
  return 0;
}

}  // namespace

void add_device(Command& app) {
  app.command("device", "Print the device that --device cuda takes, or why there is none", run_device);
}

void add_methods(Command& app) { app.command("methods", "List the table of methods", run_methods); }

void add_config(Command& app) {
  auto [config, markdown] = app.command("config", "List every key of a run's config", run_config);
  config.flag("--markdown", markdown, "as Markdown tables");
}

}  // namespace burrow::train
