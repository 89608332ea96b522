#pragma once
// burrow plan: predicts the GPU memory of a training step without a GPU. It runs the step on a device that
// counts allocations and whose kernels do nothing, so that no separate formula can differ from the code.
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
  size_t activations = 0;  // peak of further tensors in a micro-batch's forward and backward
  size_t reserved = 0;
  int64_t tokens = 0, sequences = 0;  // per micro-batch
  std::vector<MemoryReport::Line> at_peak;

  size_t peak() const { return weights + optimiser + activations + reserved; }
};
// The memory plan of one optimiser step with this config.
MemoryPlan plan_memory(const RunConfig& config);
// Prints the plan. Throws if it exceeds `memory`; the Error lists config changes with which it fits.
int run_plan(const PlanCommand& command);

}  // namespace burrow::train
