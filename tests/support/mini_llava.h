#pragma once
// The miniature LLaVA of the golden values, with a method attached; its batch of five sequences, in any
// selection and order; losses and training steps.
#include <array>
#include <map>
#include <memory>

#include "nn/arena.h"
#include "tests/support/errors.h"
#include "tests/support/golden_data.h"
#include "tests/support/golden_methods.h"
#include "train/run/step.h"

namespace burrow::testing {

constexpr int64_t kPatches = 16;  // visual tokens per image

struct Sample {
  std::vector<int32_t> ids;  // a token, or -1 - p for patch p of its image
  std::vector<TokenKind> kinds;
  std::vector<int32_t> targets;  // the token that a row predicts, -1 where unsupervised
  int32_t image = -1;            // index in batch.images; -1: none
  int64_t ordinal = 0;
};
std::vector<Sample> golden_samples();
// Segments of one sequence with this many prompt rows, for tests of single modules.
Segments one_sequence(int64_t rows);

struct Batch {
  explicit Batch(const std::vector<Sample>& samples, DType dtype);
  Segments segments;
  Tensor ids;            // i32 [N]
  Tensor images;         // [images,3,S,S], undefined without images
  Tensor rows, targets;  // i32 [S] supervised rows and their target tokens
};
// The golden batch; its samples 0 and 1, and the other three.
const Batch& batch(DType dtype = DType::f64);
const std::array<Batch, 2>& batch_halves();

// A model with a method attached and its trainable parameters in an arena.
struct Mini {
  std::unique_ptr<nn::Llava> model;
  moe::Attachment attachment;
  nn::ParameterArena arena;
  bool training = false;         // enables dropout and recompute_layers
  int64_t recompute_layers = 0;  // as in nn::Pass
};
// A model whose parameters are all generated from their names.
Mini generated_mini(const moe::MethodConfig& method, DType dtype,
                    const nn::ModelConfig& config = mini_config());
// A model as at the start of training: seeded random weights, B = 0.
Mini random_mini(const moe::MethodConfig& method, DType dtype, uint64_t seed = 1);
// Moves the parameters of an adapted model into an arena.
Mini assemble(std::unique_ptr<nn::Llava> model, moe::Attachment attachment);
// The hidden state of a model without a method, random_mini's weights and the golden batch. [N,C]
Tensor frozen_hidden(DType dtype);
// The hidden state that a model gives the golden batch. [N,C]
Tensor hidden_of(const nn::Llava& model, DType dtype = DType::f64);
bool is_router(const std::string& parameter);
void zero_routers(Mini& mini);
// The message of attach's error, or "no error".
std::string attach_error(const moe::MethodConfig& method, const nn::ModelConfig& config = mini_config());

// The message of moe::check's error on a row of the table that `set` has changed.
template <class F>
std::string check_error(const char* row, F set) {
  moe::MethodConfig method = moe::method(row);
  set(method);
  return error_of([&] { moe::check(method); });
}

// Inputs of a micro-batch; the model's tower computes the image features.
train::MicroInputs inputs_of(const Mini& mini, const Batch& batch);
// A pass over the batch with the Mini's `training` and `recompute_layers`.
nn::Pass pass_of(const Mini& mini, const Batch& batch);
// The routings of a forward without a graph.
std::vector<nn::Routing> routings_of(const Mini& mini, const Batch& batch);

struct Losses {
  Var task;     // mean over the supervised rows [1]
  Var balance;  // undefined without a router [1]
  Var hidden;   // [N,C]
  Var total;    // task + weight * balance
  std::vector<nn::Routing> routings;
};
Losses evaluate(Mini& mini, const Batch& batch, double balance_weight = 0,
                const moe::BalanceConfig& balance = {});
// Losses with the method's own auxiliary terms. `totals` are those of the step to which the batch belongs;
// none: the batch is the whole step.
struct OwnLosses {
  Var task, hidden, total;
  std::map<std::string, Var> terms;
  std::vector<nn::Routing> routings;
};
OwnLosses evaluate_own(Mini& mini, const Batch& batch, const train::StepTotals& totals = {.samples = 0});
// The gradients of a loss alone, as a copy of the arena's.
Tensor gradients_of(Mini& mini, const Var& loss);
// The cross entropy of each supervised row: f64 values.
std::vector<double> row_losses(Mini& mini, const Batch& batch);

// Training on one batch at a constant learning rate, with the gradient clipped to norm 1.
class TrainingSteps {
 public:
  TrainingSteps(Mini& mini, double lr);
  double step(const Batch& batch, double balance_weight = 0);  // returns the loss before the update

 private:
  Mini& mini_;
  train::Optimizer optimizer_;
};

}  // namespace burrow::testing
