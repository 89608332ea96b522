#pragma once
// One training step: forward, losses and backward of its micro-batches. The trainer, `burrow bench train` and
// the tests use compute_gradients; `burrow plan` runs a pass of it on shapes.
#include <cmath>
#include <map>

#include "moe/attach.h"
#include "train/run/optimizer.h"
#include "train/run/readback.h"

namespace burrow::train {

// Inputs of the forward and the loss of one micro-batch.
struct MicroInputs {
  Segments segments;           // N rows, B samples
  Tensor ids;                  // i32 [N]: a token, or -1 - row of `features`
  Tensor supervised, targets;  // i32 [S]: rows whose next token is supervised, and those tokens
  Var features;                // [M, Cv] image features; undefined without images
};

// Sizes of the whole step. Losses are means over the step, not over its micro-batches.
struct StepTotals {
  int64_t samples = 1, tokens = 1, supervised = 1, micro_batches = 1;
};

// Options of the pass, the same for every micro-batch.
struct StepOptions {
  uint64_t seed = 0, step = 0;  // determine the dropout
  int64_t recompute_layers = 0;
  int64_t datasets = 1;     // number of data sets
  bool statistics = false;  // whether to compute StepResult::routing
};

// The nn::Pass of a training forward of the micro-batch, with dropout, on the model's device.
nn::Pass training_pass(const nn::Llava& model, const MicroInputs& inputs, const StepOptions& options);

// Losses of one micro-batch.
struct Losses {
  Var hidden;                             // [N,C]
  Var task;                               // [1] micro-batch's sum / number of supervised tokens in the step
  std::vector<moe::AuxiliaryTerm> terms;  // auxiliary losses, unweighted
  Var total;                              // [1] task + sum of weight * share * value of the terms
};
// The forward of one micro-batch; stores the routings in `pass`.
Losses losses_of(const nn::Llava& model, const moe::MethodConfig& method, const MicroInputs& inputs,
                 const StepTotals& totals, int64_t datasets, nn::Pass& pass);

// The model and optimiser state that a step reads and writes.
struct Learner {
  const nn::Llava& model;
  const moe::MethodConfig& method;
  nn::ParameterArena& arena;
  Optimizer& optimizer;
  Readback readback = {};
};

// Losses and statistics of one step before its update.
struct StepResult {
  double loss = 0, weighted = 0;            // task loss; weighted sum of the auxiliary losses
  std::map<std::string, double> auxiliary;  // auxiliary losses by name, unweighted
  std::vector<moe::RouterStatistics> routing;
  double gradient_norm = 0;

  double total() const { return loss + weighted; }
  bool finite() const { return std::isfinite(loss) && std::isfinite(gradient_norm); }
};
// Computes the gradients of a step's loss into the arena; `micro_batch` returns the inputs of micro-batch i.
// Optimizer::step does the update. The host waits for the device once, at the end, and for the routing's sums
// if statistics are requested.
StepResult compute_gradients(Learner& learner, const StepTotals& totals, const StepOptions& options,
                             const std::function<MicroInputs(int64_t i)>& micro_batch);

}  // namespace burrow::train
