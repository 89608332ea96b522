#pragma once
// AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) over a parameter arena, and the learning rate's course.
#include "nn/arena.h"
#include "train/config/options.h"

namespace burrow::train {

// The learning rate as a share of its peak: rises linearly over `warmup` of the steps, under a cosine that
// ends at final_lr. step in [0, steps).
double schedule(const TrainConfig& c, int64_t step, int64_t steps);

class Optimizer {
 public:
  Optimizer(nn::ParameterArena& arena, const TrainConfig& config);
  // The norm of the whole gradient; not finite when the gradient is not. Its square stays on the device.
  Tensor squared_norm() const;  // f64 [1]
  double gradient_norm() const;
  // One step with the arena's gradients, clipped to config.clip; factor = learning rate over its peak.
  void step(double gradient_norm, double factor);

  Tensor m, v;        // moments, like the arena
  int64_t steps = 0;  // taken

 private:
  nn::ParameterArena& arena_;
  TrainConfig config_;
};

}  // namespace burrow::train
