#pragma once
// The modules of which models consist. A module holds parameters, which `parameters` visits, and is called on
// its input. Projections and FeedForward are virtual because moe/ derives versions with experts from them.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nn/pass.h"
#include "nn/weights.h"

namespace burrow::nn {

// The role of a parameter decides whether it is trained and at which learning rate. teacher: a frozen dense
// FFN that only a loss reads; it is not counted among the model's parameters.
enum class Role { tower, projector, base, adapter_a, adapter_b, router, block, visual, teacher };

struct Parameter {
  std::string name;
  Role role;
  Var* var;
};
using ParameterVisit = std::function<void(const Parameter&)>;

// y = x Wᵀ + b
struct Linear {
  Linear(std::string name, int64_t in, int64_t out, bool bias, WeightSource& source, Init init = Init::linear,
         int64_t layers = 1);
  Var operator()(const Var& x) const { return linear(x, weight, bias); }  // [N,in] -> [N,out]
  void parameters(const ParameterVisit& visit, Role role = Role::base);

  int64_t in() const { return weight.dim(1); }
  int64_t out() const { return weight.dim(0); }

  std::string name;
  Var weight, bias;  // [out, in], [out] or undefined
};

// Linears with the same input, such as q, k and v of an attention. moe/ derives a version with LoRA experts,
// which shares computations between the Linears.
class Projections {
 public:
  // `input` is the name of the common input, from which the random key of its dropout is derived.
  Projections(std::string input, std::vector<Linear> linears)
      : input(std::move(input)), linears(std::move(linears)) {}
  Projections(Projections&&) = default;
  virtual ~Projections() = default;
  // Returns one output [N,out] per Linear for x [N,in]. `routing` is that of a router shared by the Linears,
  // or null.
  virtual std::vector<Var> operator()(const Var& x, const Routing* routing, Pass& pass) const;
  virtual void parameters(const ParameterVisit& visit);

  std::string input;
  std::vector<Linear> linears;
};

// Projections that consist of one Linear.
Projections one_linear(Linear linear);

// A residual stream x + branch. The addition is deferred to the next norm, which fuses the two.
struct Residual {
  Var x, branch;  // [N,C]; an undefined branch is 0
};

// x rstd w over the channels, without a mean (Zhang and Sennrich 2019).
struct RmsNorm {
  RmsNorm(std::string name, int64_t width, double eps, WeightSource& source);
  Var operator()(Residual& stream) const;  // -> [N,C]; also replaces the stream by x + branch, no branch
  void parameters(const ParameterVisit& visit) { visit({name + ".weight", Role::base, &weight}); }
  std::string name;
  double eps;
  Var weight;
};

// (x - mean) rstd w + b over the channels (Ba et al. 2016).
struct LayerNorm {
  LayerNorm(std::string name, int64_t width, double eps, WeightSource& source);
  Var operator()(const Var& x) const { return layer_norm(x, weight, bias, eps); }
  void parameters(const ParameterVisit& visit);
  std::string name;
  double eps;
  Var weight, bias;
};

// LLaMA's FFN: down(silu(gate x) * up x).
class FeedForward {
 public:
  FeedForward(std::string name, int64_t width, int64_t inner, int64_t layers, WeightSource& source);
  FeedForward(FeedForward&&) = default;
  virtual ~FeedForward() = default;
  // [N,C] -> [N,C]
  virtual Var operator()(const Var& x, Pass& pass) const { return forward(x, nullptr, pass); }
  virtual void parameters(const ParameterVisit& visit);
  Linear& gate_proj() { return gate_up->linears[0]; }
  Linear& up_proj() { return gate_up->linears[1]; }
  Linear& down_proj() { return down->linears[0]; }

  std::string name;
  std::unique_ptr<Projections> gate_up, down;
  Var router_weight, router_bias;  // [E,C], [E] if read from a file of `burrow factorize`, for moe/

 protected:
  Var forward(const Var& x, const Routing* routing, Pass& pass) const {
    const std::vector<Var> gate_up_x = (*gate_up)(x, routing, pass);
    return (*down)(swiglu(gate_up_x[0], gate_up_x[1]), routing, pass)[0];
  }
};

}  // namespace burrow::nn
