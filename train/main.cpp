// burrow: trains, evaluates and compares mixtures of LoRA experts. See docs/tour.md for a walk through one
// batch, from here to a kernel and back.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <system_error>

#include "train/commands/commands.h"

using namespace burrow::train;

namespace {

// In the order of --help.
std::vector<Command> add_commands(CLI::App& app) {
  std::vector<Command> commands;
  for (const auto add : {add_train, add_eval, add_ask, add_data, add_features, add_routing, add_table,
                         add_factorize, add_bench, add_plan, add_device, add_methods, add_config})
    add(app, commands);
  return commands;
}

// A full disk or a closed pipe shows only when the buffer of stdout is written.
void finish_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  throw std::system_error(errno, std::generic_category(), "standard output");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("burrow: mixtures of LoRA experts on multimodal transformers");
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "Help of every subcommand");
  const std::vector<Command> commands = add_commands(app);
  try {
    app.parse(argc, argv);
    const auto chosen =
        std::find_if(commands.begin(), commands.end(), [](const Command& c) { return c.app->parsed(); });
    const int code = chosen->run();
    finish_output();
    return code;
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  } catch (const std::exception& e) {
    // Not fmt::print, which throws when stderr is a file on a disk that is full.
    std::fprintf(stderr, "burrow: %s\n", e.what());
    return 1;
  }
}
