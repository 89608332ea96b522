#pragma once
// The training loop: plan -> batch -> forward -> loss -> backward -> step.
#include "train/run/checkpoint.h"
#include "train/run/evaluate.h"
#include "train/run/step.h"

namespace burrow::train {

struct TrainResult {
  int64_t steps = 0;
  double seconds = 0;      // in the steps of this process
  int64_t tokens = 0;      // trained on in this process, visual ones counted
  size_t peak_memory = 0;  // bytes in tensors
};

// Trains a Setup. Its model's trained values move into an arena here.
class Trainer {
 public:
  // `say` receives lines for the user.
  Trainer(Setup& setup, std::function<void(const std::string&)> say);
  // Trains from the newest checkpoint (or from the start) to the end, and saves what was trained.
  TrainResult train(RunDirectory& run);

  // For the profile: one step at a time, in memory only.
  int64_t steps() const { return steps_; }
  const data::Plan& plan() const { return *plan_; }
  // Takes the step of `plan`, and says what it was before its update.
  StepResult step(int64_t i, const data::StepPlan& plan);
  Var features_of(const data::Batch& batch) const;  // of its images [images*P, Cv]; undefined without images

 private:
  StepResult gradients_of(int64_t i, const data::StepPlan& plan, bool statistics);
  void log(int64_t i, const data::StepPlan& plan, const StepResult& result, double factor);
  [[noreturn]] void report_divergence(int64_t i, const data::StepPlan& plan, const StepResult& result);

  Setup& setup_;
  std::function<void(const std::string&)> say_;
  std::vector<data::Dataset> sets_;
  std::unique_ptr<data::Plan> plan_;
  std::unique_ptr<FeatureCache> features_;  // none when the tower trains
  nn::ParameterArena arena_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Learner> learner_;
  std::unique_ptr<LineLog> metrics_;  // while train() runs
  int64_t steps_ = 0;
};

}  // namespace burrow::train
