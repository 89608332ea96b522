#pragma once
// The commands of `burrow`. One function adds each, declared here and defined beside the code that it runs.
#include <string>

#include "train/commands/command_line.h"

namespace burrow::train {

struct DeviceChoice;

// train/commands/
void add_train(Command& app);
void add_eval(Command& app);
void add_ask(Command& app);
void add_data(Command& app);  // make, convert, check, show
void add_features(Command& app);
void add_routing(Command& app);
void add_factorize(Command& app);
void add_bench(Command& app);  // the two of train/measure/
void add_device(Command& app);
void add_methods(Command& app);
void add_config(Command& app);
void add_table(Command& app);  // train/table/
// train/measure/
void add_bench_infer(Command& bench);
void add_bench_train(Command& bench);
void add_plan(Command& app);

// Options that several commands have: --device, --fast and --attention.
void add_device_options(Command& command, DeviceChoice& device);
// Writes a line to stderr. Never throws, as fmt::print would on a closed terminal or a full disk.
void say(const std::string& line);

}  // namespace burrow::train
