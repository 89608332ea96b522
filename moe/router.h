#pragma once
// Routing: which experts the rows of a pass go to, and how much each counts.
#include <memory>
#include <string>
#include <vector>

#include "moe/config.h"
#include "nn/layers.h"

namespace burrow::moe {

// What was decided for N rows. Data only.
struct Routing {
  std::string site;   // the router's name
  int64_t layer = 0;  // of the decoder
  Var probs;          // [N,E] softmax of the router's logits
  Var weights;        // [N,E] what the experts are multiplied by; zero where unselected
  Tensor chosen;      // [N,E] 1 where an expert was selected (soft routing: at the most probable), else 0
  ExpertGroups groups = {};  // of `chosen`; undefined where the experts are to be masked
};

// A Linear on the router's input, softmax, selection rule, gate mode (LLaVA-MoLE, section 3; its released
// code for the details).
class Router {
 public:
  Router(std::string name, int64_t layer, int64_t width, int64_t experts, const RouterConfig& config,
         DType dtype, uint64_t seed, bool grouped);
  Routing route(const Var& x, const nn::Pass& pass) const;  // x [N,C]
  void parameters(const nn::ParameterVisit& visit);
  int64_t experts() const { return weight.dim(0); }

  std::string name;
  Var weight, bias;  // [E,C], [E] or undefined

 private:
  Var probabilities(const Var& x, const nn::Pass& pass) const;  // [N,E]
  int64_t layer_;
  RouterConfig config_;
  bool grouped_;  // whether to sort the rows by expert
};

// Uniform on [-bound, bound], a function of (seed, name) alone.
Tensor uniform_tensor(const std::string& name, const Shape& shape, double bound, uint64_t seed, DType dtype);

}  // namespace burrow::moe
