#pragma once
// One training step: the forward, the losses and the backward of its micro-batches. The trainer, `burrow
// bench train`, `burrow plan` and the tests take the same one.
#include <cmath>
#include <map>

#include "moe/attach.h"
#include "train/run/optimizer.h"
#include "train/run/readback.h"

namespace burrow::train {

// What the forward and the loss of one micro-batch read.
struct MicroInputs {
  Segments segments;           // N rows, B samples
  Tensor ids;                  // i32 [N]: a token, or -1 - row of `features`
  Tensor supervised, targets;  // i32 [S]: rows whose next token is supervised, and those tokens
  Var features;                // of the images [M, Cv]; undefined without images
};

// Sizes of the whole step: losses are means over it, however it is cut into micro-batches.
struct StepTotals {
  int64_t samples = 1, tokens = 1, supervised = 1, micro_batches = 1;
};

// Of the pass, the same for every micro-batch.
struct StepOptions {
  uint64_t seed = 0, step = 0;  // of dropout
  int64_t recompute_layers = 0;
  int64_t datasets = 1;     // that the segments' indices run over
  bool statistics = false;  // whether the routing is counted
};

// A pass over the micro-batch that trains, on the model's device.
nn::Pass training_pass(const nn::Llava& model, const MicroInputs& inputs, const StepOptions& options);

// Of one micro-batch.
struct Losses {
  Var hidden;                             // [N,C]
  Var task;                               // [1] sum over the micro-batch / supervised tokens of the step
  std::vector<moe::AuxiliaryTerm> terms;  // unweighted
  Var total;                              // [1] task + each term by its weight and share
};
// The forward of one micro-batch; what the routers decided is then in `pass`.
Losses losses_of(const nn::Llava& model, const moe::MethodConfig& method, const MicroInputs& inputs,
                 const StepTotals& totals, int64_t datasets, nn::Pass& pass);

// What a step reads and writes.
struct Learner {
  const nn::Llava& model;
  const moe::MethodConfig& method;
  nn::ParameterArena& arena;
  Optimizer& optimizer;
  Readback readback = {};
};

// Of one step, before its update.
struct StepResult {
  double loss = 0, weighted = 0;            // the task's, and the auxiliary terms' with their weights
  std::map<std::string, double> auxiliary;  // without
  std::vector<moe::RouterStatistics> routing;
  double gradient_norm = 0;

  double total() const { return loss + weighted; }
  bool finite() const { return std::isfinite(loss) && std::isfinite(gradient_norm); }
};
// Sets the arena's gradients to those of a step's loss; `micro_batch` gives the inputs of its i-th part. The
// update is Optimizer::step. The host waits for the device once, at the end.
StepResult compute_gradients(Learner& learner, const StepTotals& totals, const StepOptions& options,
                             const std::function<MicroInputs(int64_t i)>& micro_batch);

}  // namespace burrow::train
