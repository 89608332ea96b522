#pragma once
// Routing: which experts each row of a pass uses, and with which weights.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "moe/config.h"
#include "nn/layers.h"

namespace burrow::moe {

using nn::Routing;

// Entries of x, one per row of the pass, for the M rows that the router decided on (r.rows): i32 [N] -> [M]
Tensor at_rows(const Routing& r, const Tensor& x);

// The entropy of each row of p + eps, not renormalised, as in DynMoLE's code (arXiv 2504.00661):
// p [N,E] -> [N,1]
Var entropy_of(const Var& probs, const EntropyConfig& config);
// The parameters with which route() computes the same entropy for E experts. For p + eps = 0 route() adds 0,
// where entropy_of is NaN.
EntropyRule entropy_rule(const EntropyConfig& config, int64_t experts);

// Projects logits u onto sparse probabilities p = max(u - t, 0) / (1 - lambda), with t such that each row
// sums to 1; fewer are non-zero as lambda < 1 grows (sparsegen-lin, Laha et al. 2018, arXiv 1810.11975,
// section 3). u [N,E], lambda [N,1] -> [N,E]
Var sparsegen(const Var& u, const Var& lambda);

// Predicts sparsegen's lambda = log sigmoid(w2 relu(w1 x + b1) + b2) + 0.99 from a router's input x; shared
// by all routers of one input width (LD-MoLE: github.com/eshentw/LD-MoLE).
struct LambdaNetwork {
  LambdaNetwork(int64_t width, int64_t hidden, DType dtype, uint64_t seed);
  Var operator()(const Var& x) const;  // [N,C] -> [N,1]
  void parameters(const nn::ParameterVisit& visit);
  std::string name;
  Var w1, b1, w2, b2;  // [H,C], [H], [1,H], [1]
};

// A router: Linear, softmax, selection rule and gate mode (LLaVA-MoLE, section 3, and its released code).
class Router {
 public:
  Router(std::string name, int64_t layer, int64_t width, int64_t experts, const MethodConfig& method,
         DType dtype, uint64_t seed);
  // x [N,C]; `rows` as in Routing, needed if the rows of x are not those of the pass.
  Routing route(const Var& x, const nn::Pass& pass, const Tensor& rows = {}) const;
  Var probs(const Var& x, const nn::Pass& pass) const;  // softmax of the logits: x [N,C] -> [N,E]
  void parameters(const nn::ParameterVisit& visit);
  int64_t experts() const { return weight.dim(0); }
  int64_t top_k() const { return config_.top_k; }  // at most experts()

  std::string name;
  Var weight, bias;                       // [E,C], [E] or undefined
  Var threshold_weight, threshold_bias;   // [1,C], [1], or undefined without a learned threshold
  std::shared_ptr<LambdaNetwork> lambda;  // null unless the selection is sparsegen
  bool owns_lambda = false;               // whether parameters() visits lambda's

 private:
  // f applied to each row of x, or with granularity 'sample' to the mean of each sample's readable rows and
  // then copied to all rows of the sample.
  Var for_rows(const Var& x, const nn::Pass& pass, const char* what,
               const std::function<Var(const Var&)>& f) const;
  // Select experts by a learned threshold, or by sparsegen.
  void select_by_threshold(Routing& r, const Var& x, const nn::Pass& pass) const;
  void select_by_sparsegen(Routing& r, const Var& x, const nn::Pass& pass) const;
  Var logits(const Var& x, const nn::Pass& pass) const;  // [N,E]
  int64_t layer_;
  RouterConfig config_;
  RouteRule rule_;                         // for selections other than threshold and sparsegen
  bool one_mean_;                          // whether the balance loss averages over the whole micro-batch
  bool grouped_on_cpu_, grouped_on_cuda_;  // whether to sort the rows by expert
};

// Whether experts are computed grouped. Depends on the arguments alone, so that a run is reproducible.
bool executes_grouped(const MethodConfig& c, int64_t experts, Device device);

// Random values uniform on [-bound, bound], determined by (seed, name).
Tensor uniform_tensor(const std::string& name, const Shape& shape, double bound, uint64_t seed, DType dtype);

}  // namespace burrow::moe
