#pragma once
// AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) over a parameter arena, and the learning-rate schedule.
#include "nn/arena.h"
#include "train/config/options.h"

namespace burrow::train {

// The learning rate of step [0, steps) divided by its peak: the product of a linear rise over the first share
// `warmup` of the steps and a cosine decay to final_lr.
double schedule(const TrainConfig& c, int64_t step, int64_t steps);

class Optimizer {
 public:
  Optimizer(nn::ParameterArena& arena, const TrainConfig& config);
  // The squared norm of the whole gradient, on its device; not finite if the gradient is not.
  Tensor squared_norm() const;  // f64 [1]
  // One update with the arena's gradients, clipped to norm config.clip; `factor` is the value of schedule().
  void step(double gradient_norm, double factor);

  Tensor m, v;        // first and second moments, with the arena's layout
  int64_t steps = 0;  // updates done

 private:
  nn::ParameterArena& arena_;
  TrainConfig config_;
};

}  // namespace burrow::train
