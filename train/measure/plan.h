#pragma once
// burrow plan: predicts the memory of a training step on a GPU, without a GPU. The step itself runs on a
// device that counts allocations and whose kernels do nothing, so the figures come from the code and not from
// a separate formula.
#include <string>
#include <vector>

#include "tensor/storage.h"
#include "train/config/options.h"

namespace burrow::train {

struct PlanCommand {
  std::string config, memory, json;  // memory: "80GiB", or empty
  std::vector<std::string> overrides;
};
// Sizes in bytes. `reserved` is the memory of the driver and the libraries.
struct MemoryPlan {
  int64_t total_parameters = 0, trainable_parameters = 0;
  size_t weights = 0;      // all weights that are not trained
  size_t optimiser = 0;    // f32 values, gradients and two moments of the trainable parameters
  size_t activations = 0;  // peak of what the forward and backward of a micro-batch add
  size_t reserved = 0;
  int64_t tokens = 0, sequences = 0;  // of the micro-batch
  std::vector<MemoryReport::Line> at_peak;

  size_t peak() const { return weights + optimiser + activations + reserved; }
};
// The plan of one optimiser step with this config.
MemoryPlan plan_memory(const RunConfig& config);
// Prints the plan. With `memory`, throws when it does not fit; the Error lists changes that would help.
int run_plan(const PlanCommand& command);

}  // namespace burrow::train
