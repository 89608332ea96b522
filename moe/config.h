#pragma once
// A method is a value: which router, which experts, which auxiliary loss, placed where. The named rows are
// in methods.cpp; every field can be overridden from TOML or the command line, so that any cell of any
// ablation is a config, not code.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "autograd/ops.h"

namespace burrow {
inline std::vector<std::pair<const char*, GateMode>> enum_names(GateMode) {
  return {{"none", GateMode::none},
          {"straight_through", GateMode::straight_through},
          {"scaled", GateMode::scaled}};
}
}  // namespace burrow

namespace burrow::moe {

// What one routing decision covers. A sample's decision reads the mean of its visual tokens (of its prompt
// when it has no image), never its answer.
enum class Granularity { token, sample };
// soft: every expert, weighted by its probability. top_k: the k most probable.
enum class Selection { soft, top_k };
// Who shares a router: the three Linears of one FFN, or each Linear has its own.
enum class RouterPlacement { ffn, linear };
// The balance loss pools tokens of a sample or of the whole micro-batch (scope), and layers before the
// product of shares and probabilities or after it (pool).
enum class BalanceScope { sample, batch };
enum class BalancePool { all_layers, layer, router };
// How LoRA experts under a sparse selection are computed; the results agree to rounding (moe/experts.h).
enum class Execution { automatic, masked, grouped };

inline std::vector<std::pair<const char*, Granularity>> enum_names(Granularity) {
  return {{"token", Granularity::token}, {"sample", Granularity::sample}};
}
inline std::vector<std::pair<const char*, Selection>> enum_names(Selection) {
  return {{"soft", Selection::soft}, {"top_k", Selection::top_k}};
}
inline std::vector<std::pair<const char*, RouterPlacement>> enum_names(RouterPlacement) {
  return {{"ffn", RouterPlacement::ffn}, {"linear", RouterPlacement::linear}};
}
inline std::vector<std::pair<const char*, BalanceScope>> enum_names(BalanceScope) {
  return {{"sample", BalanceScope::sample}, {"batch", BalanceScope::batch}};
}
inline std::vector<std::pair<const char*, BalancePool>> enum_names(BalancePool) {
  return {{"all_layers", BalancePool::all_layers},
          {"layer", BalancePool::layer},
          {"router", BalancePool::router}};
}
inline std::vector<std::pair<const char*, Execution>> enum_names(Execution) {
  return {{"auto", Execution::automatic}, {"masked", Execution::masked}, {"grouped", Execution::grouped}};
}

struct RouterConfig {
  Granularity granularity = Granularity::token;
  Selection selection = Selection::top_k;
  int64_t top_k = 1;
  GateMode gate = GateMode::none;
  RouterPlacement placement = RouterPlacement::ffn;
  bool bias = true;
  double init_std = 0;
};
struct BalanceConfig {
  double weight = 0;
  BalanceScope scope = BalanceScope::sample;
  BalancePool pool = BalancePool::all_layers;
  bool times_experts = false;
};
struct MethodConfig {
  std::string name = "lora";
  int64_t experts = 1, rank = 2;
  double alpha = 4, dropout = 0;
  std::vector<std::string> expert_targets{"gate_proj", "up_proj", "down_proj"};
  std::vector<std::string> lora_targets;
  std::vector<int64_t> experts_by_layer;
  bool train_projector = false;
  Execution execution = Execution::automatic;
  RouterConfig router;
  BalanceConfig balance;
};

template <class V>
void visit_fields(V& v, RouterConfig& c) {
  v.field("granularity", c.granularity, "", "what one decision covers: a token or a whole sample");
  v.field("selection", c.selection, "", "soft: all experts by probability; top_k: the k most probable");
  v.field("top_k", c.top_k, "experts", "experts per token under top_k");
  v.field("gate", c.gate, "",
          "what the router learns from the task: none (LLaVA-MoLE's code), straight_through, scaled");
  v.field("placement", c.placement, "", "one router per FFN, or one per Linear");
  v.field("bias", c.bias, "", "whether the router has a bias");
  v.field(
      "init_std", c.init_std, "",
      "standard deviation of the router's initial weights; 0: uniform within 1/sqrt(C), PyTorch's default");
}
template <class V>
void visit_fields(V& v, BalanceConfig& c) {
  v.field("weight", c.weight, "", "coefficient of the load-balancing loss; 0 leaves it out");
  v.field("scope", c.scope, "", "pool the tokens of each sample, or of the micro-batch");
  v.field("pool", c.pool, "",
          "pool all layers before the product (the authors' code), or one product per layer or router");
  v.field("times_experts", c.times_experts, "",
          "multiply by the number of experts, so that even routing gives 1 (Switch)");
}
template <class V>
void visit_fields(V& v, MethodConfig& c) {
  v.field("name", c.name, "", "row of the method table: `burrow methods` lists them");
  v.field("experts", c.experts, "experts", "experts of each adapted FFN");
  v.field("rank", c.rank, "", "LoRA rank of each expert");
  v.field("alpha", c.alpha, "", "LoRA alpha: a delta is scaled by alpha/rank");
  v.field("dropout", c.dropout, "probability", "dropout on the input of every LoRA");
  v.field("expert_targets", c.expert_targets, "", "last part of the names of the Linears that get experts");
  v.field("lora_targets", c.lora_targets, "",
          "last part of the names of the Linears that get one plain LoRA");
  v.field("experts_by_layer", c.experts_by_layer, "experts",
          "experts of equal blocks of layers (MoLA's 2-4-6-8); empty: `experts` everywhere");
  v.field("train_projector", c.train_projector, "", "train the projector as well");
  v.field(
      "execution", c.execution, "",
      "masked: all experts on all rows; grouped: each on the rows that chose it; auto: the faster, by E, K");
  v.section("router", [&] { visit_fields(v, c.router); });
  v.section("balance", [&] { visit_fields(v, c.balance); });
}

// A row of the table, with the line that `burrow methods` prints.
struct Method {
  MethodConfig config;
  const char* about;
};
// The table, in the order of `burrow methods`.
const std::vector<Method>& methods();
// The row's config; an unknown name is an error that lists the rows.
const MethodConfig& method(const std::string& name);
void check(const MethodConfig& c);  // throws an Error that names the key

}  // namespace burrow::moe
