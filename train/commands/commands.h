#pragma once
// The subcommands of `burrow`. One function adds each, declared here and defined beside the code that it
// runs. CLI11 slows every file that includes it, so no header does.
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace burrow::train {

struct DeviceChoice;

// A subcommand with its options. `run` is called when they are parsed: it returns the exit code, or throws an
// Error whose text main prints.
struct Command {
  CLI::App* app;
  std::function<int()> run;
};

// train/commands/
void add_train(CLI::App& app, std::vector<Command>& commands);
void add_eval(CLI::App& app, std::vector<Command>& commands);
void add_ask(CLI::App& app, std::vector<Command>& commands);
void add_data(CLI::App& app, std::vector<Command>& commands);  // make, convert, check, show
void add_features(CLI::App& app, std::vector<Command>& commands);
void add_routing(CLI::App& app, std::vector<Command>& commands);
void add_factorize(CLI::App& app, std::vector<Command>& commands);
void add_bench(CLI::App& app, std::vector<Command>& commands);  // the two of train/measure/
void add_device(CLI::App& app, std::vector<Command>& commands);
void add_methods(CLI::App& app, std::vector<Command>& commands);
void add_config(CLI::App& app, std::vector<Command>& commands);
// train/table/
void add_table(CLI::App& app, std::vector<Command>& commands);
// train/measure/
void add_bench_infer(CLI::App& bench, std::vector<Command>& commands);
void add_bench_train(CLI::App& bench, std::vector<Command>& commands);
void add_plan(CLI::App& app, std::vector<Command>& commands);

// Options that several commands have: --device, --fast and --attention.
void add_device_options(CLI::App& command, DeviceChoice& device);
// Accepts 1 to 2^31 - 1.
CLI::Option* positive(CLI::Option* option);
// Writes a line to stderr. Never throws, as fmt::print would on a closed terminal or a full disk.
void say(const std::string& line);

}  // namespace burrow::train
