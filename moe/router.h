#pragma once
// Routing: which experts the rows of a pass go to, and how much each counts.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "moe/config.h"
#include "nn/layers.h"

namespace burrow::moe {

using nn::Routing;

// Of each row of a router the entry of the row of the pass that it stands for: x i32 [N] -> [rows of r]
Tensor at_rows(const Routing& r, const Tensor& x);

// Of the rows of p + eps, which do not sum to 1 (the authors' code; DynMoLE, arXiv 2504.00661). p [N,E] ->
// [N,1]
Var entropy_of(const Var& probs, const EntropyConfig& config);
// The same as route() computes it, for E experts; where p + eps is 0 that adds 0, and entropy_of NaN.
EntropyRule entropy_rule(const EntropyConfig& config, int64_t experts);

// Rows p of the simplex, zero outside of a support that shrinks as lambda < 1 grows (sparsegen-lin, Laha et
// al. 2018, arXiv 1810.11975, section 3): p = max(u - t, 0) / (1 - lambda), with t such that they sum to 1.
// u [N,E], lambda [N,1] -> [N,E]
Var sparsegen(const Var& u, const Var& lambda);

// lambda = log sigmoid(w2 relu(w1 x + b1) + b2) + 0.99 of a router's input, shared by all routers of one
// width (LD-MoLE: github.com/eshentw/LD-MoLE).
struct LambdaNetwork {
  LambdaNetwork(int64_t width, int64_t hidden, DType dtype, uint64_t seed);
  Var operator()(const Var& x) const;  // [N,C] -> [N,1]
  void parameters(const nn::ParameterVisit& visit);
  std::string name;
  Var w1, b1, w2, b2;  // [H,C], [H], [1,H], [1]
};

// A Linear on the router's input, softmax, selection rule, gate mode (LLaVA-MoLE, section 3; its released
// code for the details).
class Router {
 public:
  Router(std::string name, int64_t layer, int64_t width, int64_t experts, const MethodConfig& method,
         DType dtype, uint64_t seed);
  // x [N,C]. `rows` as in Routing, where x are not the rows of the pass.
  Routing route(const Var& x, const nn::Pass& pass, const Tensor& rows = {}) const;
  Var probs(const Var& x, const nn::Pass& pass) const;  // softmax of the logits: x [N,C] -> [N,E]
  void parameters(const nn::ParameterVisit& visit);
  int64_t experts() const { return weight.dim(0); }
  int64_t top_k() const { return config_.top_k; }  // at most the experts

  std::string name;
  Var weight, bias;                       // [E,C], [E] or undefined
  Var threshold_weight, threshold_bias;   // [1,C], [1], or undefined without a learned threshold
  std::shared_ptr<LambdaNetwork> lambda;  // of sparsegen
  bool owns_lambda = false;               // whether its parameters are visited here

 private:
  // f of what the router reads, a row for each row of x: of the row, or decided once for its sample.
  Var for_rows(const Var& x, const nn::Pass& pass, const char* what,
               const std::function<Var(const Var&)>& f) const;
  // The choice by a learned threshold, or by sparsegen.
  void select_by_threshold(Routing& r, const Var& x, const nn::Pass& pass) const;
  void select_by_sparsegen(Routing& r, const Var& x, const nn::Pass& pass) const;
  Var logits(const Var& x, const nn::Pass& pass) const;  // [N,E]
  int64_t layer_;
  RouterConfig config_;
  RouteRule rule_;                         // of the other selections
  bool one_mean_;                          // whether the balance loss pools the whole micro-batch
  bool grouped_on_cpu_, grouped_on_cuda_;  // whether to sort the rows by expert
};

// Whether E experts are computed grouped: a function of the config and the device alone, so that a run can be
// repeated.
bool executes_grouped(const MethodConfig& c, int64_t experts, Device device);

// Uniform on [-bound, bound], a function of (seed, name) alone.
Tensor uniform_tensor(const std::string& name, const Shape& shape, double bound, uint64_t seed, DType dtype);

}  // namespace burrow::moe
