#pragma once
// Attaching a method to a model: the named Linears are replaced by adapted ones, FFNs that share a router
// by routed ones, and everything else is frozen.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "moe/auxiliary.h"
#include "moe/experts.h"
#include "nn/llava.h"

namespace burrow::moe {

struct Teacher;

struct ParameterCounts {
  int64_t total = 0;  // of the model with its adapters
  int64_t trainable = 0;
  int64_t active = 0;  // trainable parameters that one token uses, at most where a rule says how many experts
};

// What attach did to a model, and what its routers decided in the current pass: the Routings are what its
// blocks give beside their stream. It must outlive the model's use.
class Attachment : public nn::SideOutputs {
 public:
  // The Routings of the passes since the last clear(), in the order of the layers.
  std::span<const Routing> routings() const { return *gathered_; }
  void clear() { gathered_->clear(); }
  size_t count() const override { return gathered_->size(); }
  std::vector<Var*> vars_from(size_t first) override;
  void drop_from(size_t first) override { gathered_->resize(first); }
  // Runs `forward`, the model on a batch, as the dense model that the FFNs' blocks were cut from, without a
  // graph; the next pass, on the same batch, then knows for the Prior-Approximate loss what that model did.
  // Nothing without that loss.
  void teach(const std::function<void()>& forward) const;

  // Trainable parameters by name, in the order of the model.
  const std::vector<std::pair<std::string, Var*>>& trainable() const { return trainable_; }
  const ParameterCounts& counts() const { return counts_; }
  std::string report() const;  // what matched, with parameter counts: one line each
  const MethodConfig& config() const { return config_; }

 private:
  friend Attachment attach(nn::Llava& model, const MethodConfig& config, uint64_t seed);
  MethodConfig config_;
  std::shared_ptr<std::vector<Routing>> gathered_ = std::make_shared<std::vector<Routing>>();
  std::vector<std::pair<std::string, Var*>> trainable_;
  std::vector<std::string> lines_;
  ParameterCounts counts_;
  std::shared_ptr<Teacher> teacher_;
};

// Freezes the model, replaces what the config's patterns name, and draws the adapters' initial values from
// (seed, name). A pattern that matches nothing is an error. The `full` row adapts nothing and leaves every
// weight trainable.
Attachment attach(nn::Llava& model, const MethodConfig& config, uint64_t seed);

}  // namespace burrow::moe
