#pragma once
// What the installs of the families of experts have in common, and the count of what they add to a model.
#include <map>

#include "moe/router.h"
#include "nn/llava.h"

namespace burrow::moe {

// What was added, by the last part of the Linears' names, with parameter counts.
class Inventory {
 public:
  explicit Inventory(const MethodConfig& method) : method_(method) {}
  // `parameters` of E experts side by side, of which a token uses as many as its router chooses, at most.
  void add_bank(const std::string& linear, int64_t experts, int64_t parameters);
  void add_blocks(int64_t experts, int64_t block_width, int64_t parameters);  // of one FFN that was cut
  void add_visual(int64_t experts, int64_t inner, int64_t parameters);
  void add_router(Router& router);
  // Every pattern of the method's targets must have matched a Linear.
  void check_all_matched() const;
  std::string report() const;                     // a line for each kind of what was added
  int64_t inactive() const { return inactive_; }  // parameters that a token does not use

 private:
  struct Match {
    int64_t linears = 0, parameters = 0, active = 0;
    std::string experts;  // "3", or of MoLA's layers "2-4-6-8"
  };
  int64_t active_of(int64_t parameters, int64_t experts);
  const MethodConfig& method_;
  std::map<std::string, Match> banks_;
  Match blocks_;
  int64_t block_width_ = 0, routers_ = 0, router_parameters_ = 0, inactive_ = 0;
  std::string visual_;
};

// The method, the layer that is at hand, and where what is added is counted.
struct Install {
  const MethodConfig& method;
  uint64_t seed;
  Inventory inventory{method};
  int64_t layer = 0, experts = 1;                                  // of this layer
  std::map<int64_t, std::shared_ptr<LambdaNetwork>> lambdas = {};  // of sparsegen, by the width of its input

  // A router named `site`.router of inputs as wide as `weight` [O,C] is, whose dtype it has (f64, else f32).
  Router router(const std::string& site, const Tensor& weight, int64_t of_experts);
};

// "gate_proj" of "...mlp.gate_proj"
std::string last_part(const std::string& name);

// Uniform on [-bound, bound], a function of (seed, name) alone; zero where bound is 0. `planned`: the shape
// without memory, of a model that is only counted.
Var initial(const std::string& name, const Shape& shape, double bound, uint64_t seed, DType dtype,
            bool planned = false);

}  // namespace burrow::moe
