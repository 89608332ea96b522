#pragma once
// Helpers shared by the functions that add experts to a model (install_*), and the count of added parameters.
#include <map>

#include "moe/router.h"
#include "nn/llava.h"

namespace burrow::moe {

// Counts the experts, routers and parameters added to a model, by the last part of the Linears' names.
class Inventory {
 public:
  explicit Inventory(const MethodConfig& method) : method_(method) {}
  // Counts the LoRA experts of one Linear; `parameters` is the total of all `experts`.
  void add_bank(const std::string& linear, int64_t experts, int64_t parameters);
  void add_blocks(int64_t experts, int64_t block_width, int64_t parameters);  // one FFN split into blocks
  void add_visual(int64_t experts, int64_t inner, int64_t parameters);
  void add_router(Router& router);
  // Throws if a target name of the method matched no Linear.
  void check_all_matched() const;
  std::string report() const;                     // one line per kind of Linear, block or router
  int64_t inactive() const { return inactive_; }  // added parameters that one token does not use

 private:
  struct Match {
    int64_t linears = 0, parameters = 0, active = 0;
    std::string experts;  // "3", or "2-4-6-8" if layers differ (MoLA)
  };
  int64_t active_of(int64_t parameters, int64_t experts);
  const MethodConfig& method_;
  std::map<std::string, Match> banks_;
  Match blocks_;
  int64_t block_width_ = 0, routers_ = 0, router_parameters_ = 0, inactive_ = 0;
  std::string visual_;
};

// The state of attach(): the method, the current layer, and the inventory of what was added.
struct Install {
  const MethodConfig& method;
  uint64_t seed;
  Inventory inventory{method};
  int64_t layer = 0, experts = 1;  // the current layer and its number of experts
  std::map<int64_t, std::shared_ptr<LambdaNetwork>> lambdas = {};  // sparsegen's networks, by input width

  // Creates and counts a router named "<site>.router" for inputs of width C of `weight` [O,C]; its dtype is
  // f64 if the weight's is, else f32.
  Router router(const std::string& site, const Tensor& weight, int64_t of_experts);
};

// The part of a name after its last dot: "gate_proj" for "...mlp.gate_proj".
std::string last_part(const std::string& name);

// A parameter's initial value: uniform on [-bound, bound], determined by (seed, name); zero if bound is 0.
// `planned`: a shape without memory, for a model whose parameters are only counted (--dry-run).
Var initial(const std::string& name, const Shape& shape, double bound, uint64_t seed, DType dtype,
            bool planned = false);

}  // namespace burrow::moe
