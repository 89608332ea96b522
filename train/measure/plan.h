#pragma once
// burrow plan: the memory that a training step takes on a GPU, before there is one. The step itself runs, on
// a device whose allocations are counted and whose kernels do nothing, so that the figures are those of the
// code and not of a formula beside it.
#include <string>
#include <vector>

#include "tensor/storage.h"
#include "train/config/options.h"

namespace burrow::train {

struct PlanCommand {
  std::string config, memory, json;  // memory: "80GiB", or empty
  std::vector<std::string> overrides;
};
// All in bytes. The peak is that of tensors; what the driver and the libraries take is `reserved`.
struct MemoryPlan {
  int64_t total_parameters = 0, trainable_parameters = 0;
  size_t weights = 0;      // of the model, frozen ones and what the method adds
  size_t optimiser = 0;    // f32 values, gradients and two moments of what trains
  size_t activations = 0;  // what a micro-batch's forward and backward add to that, at the most
  size_t reserved = 0;
  int64_t tokens = 0, sequences = 0;  // of the micro-batch
  std::vector<MemoryReport::Line> at_peak;

  size_t peak() const { return weights + optimiser + activations + reserved; }
};
// Of one optimiser step with this config.
MemoryPlan plan_memory(const RunConfig& config);
// Prints the plan; with `memory`, fails where it does not fit, and says what would help.
int run_plan(const PlanCommand& command);

}  // namespace burrow::train
