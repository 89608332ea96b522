#pragma once
// Helpers shared by the functions that add experts to a model (install_*).
#include "moe/inventory.h"
#include "nn/llava.h"

namespace burrow::moe {

// The state of attach(): the method, the current layer, and the inventory of what was added.
struct Install {
  const MethodConfig& method;
  uint64_t seed;
  Inventory inventory{method};
  int64_t layer = 0, experts = 1;  // the current layer and its number of experts
  std::map<int64_t, std::shared_ptr<LambdaNetwork>> lambdas = {};  // sparsegen's networks, by input width

  // Creates and counts a router named "<site>.router" for inputs of width C of `weight` [O,C].
  Router router(const std::string& site, const Tensor& weight, int64_t of_experts);
};

// The part of a name after its last dot: "gate_proj" for "...mlp.gate_proj".
std::string last_part(const std::string& name);

// Whether the method trains parameters of this role.
bool is_trained(const MethodConfig& method, nn::Role role);

// The dtype of parameters added beside this frozen weight: f64 if it is f64, else f32.
DType trained_dtype(const Tensor& weight);

// A parameter's initial value: uniform on [-bound, bound], determined by (seed, name); zero if bound is 0.
// `planned`: a shape without memory, for a model whose parameters are only counted (--dry-run).
Var initial(const std::string& name, const Shape& shape, double bound, uint64_t seed, DType dtype,
            bool planned = false);

}  // namespace burrow::moe
