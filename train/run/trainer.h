#pragma once
// The training loop: plan -> batch -> forward -> loss -> backward -> step.
#include "train/run/checkpoint.h"
#include "train/run/evaluate.h"
#include "train/run/step.h"

namespace burrow::train {

struct TrainResult {
  int64_t steps = 0;
  double seconds = 0;      // time of the steps that this process did
  int64_t tokens = 0;      // tokens of these steps, visual tokens included
  size_t peak_memory = 0;  // bytes of tensors
};

// Trains the model of a Setup, whose trainable parameters it moves into an arena.
class Trainer {
 public:
  // `say` receives messages for the user.
  Trainer(Setup& setup, std::function<void(const std::string&)> say);
  // Trains from the newest checkpoint, or from the start, to the end and writes trained.safetensors.
  TrainResult train(RunDirectory& run);

  // The functions below run single steps without writing files, for profiling.
  int64_t steps() const { return steps_; }
  const data::Plan& plan() const { return *plan_; }
  // Runs step i with the samples of `plan`; the result is that before its update.
  StepResult step(int64_t i, const data::StepPlan& plan);
  Var features_of(const data::Batch& batch) const;  // image features [images*P, Cv], or undefined

 private:
  StepResult gradients_of(int64_t i, const data::StepPlan& plan, bool statistics);
  void log(int64_t i, const data::StepPlan& plan, const StepResult& result, double factor);
  [[noreturn]] void report_divergence(int64_t i, const data::StepPlan& plan, const StepResult& result);

  Setup& setup_;
  std::function<void(const std::string&)> say_;
  std::vector<data::Dataset> sets_;
  std::unique_ptr<data::Plan> plan_;
  std::unique_ptr<FeatureCache> features_;  // null if the tower is trained
  nn::ParameterArena arena_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Learner> learner_;
  std::unique_ptr<LineLog> metrics_;  // null unless train() is running
  int64_t steps_ = 0;
};

}  // namespace burrow::train
