// burrow: trains, evaluates and compares mixtures of LoRA experts. See docs/tour.md for a walk through one
// batch, from here to a kernel and back.
#include "train/commands/commands.h"

using namespace burrow::train;

int main(int argc, char** argv) {
  return run_command_line(argc, argv, "burrow: mixtures of LoRA experts on multimodal transformers",
                          {// In the order of --help.
                           add_train, add_eval, add_ask, add_data, add_features, add_routing, add_table,
                           add_factorize, add_bench, add_plan, add_device, add_methods, add_config});
}
