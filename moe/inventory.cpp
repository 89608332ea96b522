#include "moe/inventory.h"

#include <algorithm>

namespace burrow::moe {

// The parameters of `experts` experts that one token uses at most; the others are added to inactive_.
int64_t Inventory::active_of(int64_t parameters, int64_t experts) {
  const bool counts = method_.router.selection == Selection::top_k || method_.expert == ExpertKind::shard;
  const int64_t used = counts ? std::min(experts, method_.router.top_k) : experts;
  inactive_ += parameters / experts * (experts - used);
  return parameters / experts * used;
}

void Inventory::add_bank(const std::string& linear, int64_t experts, int64_t parameters) {
  Match& m = banks_[linear];
  m.linears += 1;
  m.parameters += parameters;
  m.active += active_of(parameters, experts);
  const std::string mine = std::to_string(experts);
  if (m.experts.empty())
    m.experts = mine;
  else if (m.experts.substr(m.experts.rfind('-') + 1) != mine)
    m.experts += "-" + mine;
}

void Inventory::add_blocks(int64_t experts, int64_t block_width, int64_t parameters) {
  blocks_.linears += 1;
  blocks_.parameters += parameters;
  blocks_.active += active_of(parameters, experts);
  blocks_.experts = std::to_string(experts);
  block_width_ = block_width;
}

void Inventory::add_visual(int64_t experts, int64_t inner, int64_t parameters) {
  visual_ = fmt::format("  {:<10} {} expert{} of inner width {} on visual tokens, {} parameters, {} active\n",
                        "visual", experts, experts == 1 ? "" : "s", inner, parameters,
                        active_of(parameters, experts));
}

void Inventory::add_router(Router& router) {
  ++routers_;
  router.parameters([&](const nn::Parameter& p) { router_parameters_ += p.var->value().numel(); });
}

void Inventory::check_all_matched() const {
  for (const auto* patterns : {&method_.expert_targets, &method_.lora_targets}) {
    if (method_.expert == ExpertKind::shard && patterns == &method_.expert_targets) continue;
    for (const std::string& p : *patterns) {
      BURROW_CHECK(banks_.contains(p),
                   "[attach] target '{}' matches no Linear of the decoder (q_proj, k_proj, v_proj, o_proj, "
                   "gate_proj, up_proj, down_proj)",
                   p);
    }
  }
}

std::string Inventory::report() const {
  std::string text = visual_;
  for (const auto& [pattern, m] : banks_) {
    text +=
        fmt::format("  {:<10} {} Linears, {} expert{} of rank {}, {} parameters, {} active\n", pattern,
                    m.linears, m.experts, m.experts == "1" ? "" : "s", method_.rank, m.parameters, m.active);
  }
  if (blocks_.linears)
    text += fmt::format("  {:<10} {} FFNs of {} blocks of {} channels, {} parameters, {} active\n", "blocks",
                        blocks_.linears, blocks_.experts, block_width_, blocks_.parameters, blocks_.active);
  if (routers_)
    text += fmt::format("  {:<10} {} routers, {} parameters\n", "router", routers_, router_parameters_);
  return text;
}

}  // namespace burrow::moe
