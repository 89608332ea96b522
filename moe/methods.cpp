// The table of methods. A row names its choice of router, experts, auxiliary loss and placement.
#include "moe/config.h"

namespace burrow::moe {
namespace {

MethodConfig row(const char* name, int64_t experts, RouterConfig router = {}, BalanceConfig balance = {}) {
  MethodConfig c;
  c.name = name;
  c.experts = experts;
  c.router = router;
  c.balance = balance;
  return c;
}

MethodConfig full() {
  MethodConfig c = row("full", 1);
  c.expert_targets.clear();
  return c;
}

}  // namespace

const std::vector<Method>& methods() {
  static const std::vector<Method> table = {
      {full(), "no adapter: every weight of the model is trained (stage 1)"},
      {row("lora", 1), "plain LoRA (Hu et al. 2021, arXiv 2106.09685)"},
      {row("dense", 3, {.selection = Selection::soft}),
       "all experts, weighted by the router's softmax (the dense variant of LLaVA-MoLE)"},
      {row("mole", 3, {.selection = Selection::top_k, .top_k = 1, .gate = GateMode::none}, {.weight = 0.01}),
       "one expert per token, one biased router per FFN shared by gate, up and down (LLaVA-MoLE, arXiv "
       "2401.16160)"},
  };
  return table;
}

const MethodConfig& method(const std::string& name) {
  std::string known;
  for (const Method& m : methods()) {
    if (m.config.name == name) return m.config;
    known += (known.empty() ? "" : ", ") + m.config.name;
  }
  fail("method.name = '{}': no such method; the table has {}", name, known);
}

void check(const MethodConfig& c) {
  BURROW_CHECK(c.experts >= 1, "method.experts = {}: needs at least 1", c.experts);
  BURROW_CHECK(c.rank >= 1, "method.rank = {}: needs at least 1", c.rank);
  BURROW_CHECK(c.dropout >= 0 && c.dropout < 1, "method.dropout = {}: must be in [0, 1)", c.dropout);
  BURROW_CHECK(c.alpha > 0, "method.alpha = {}: must be positive", c.alpha);
  for (const int64_t e : c.experts_by_layer) {
    BURROW_CHECK(e >= 1, "method.experts_by_layer has {}: needs at least 1", e);
  }
  BURROW_CHECK(c.router.top_k >= 1 && c.router.top_k <= c.experts, "method.router.top_k = {} with {} experts",
               c.router.top_k, c.experts);
  BURROW_CHECK(c.execution != Execution::grouped || c.router.selection == Selection::top_k,
               "method.execution = 'grouped' with method.router.selection = 'soft': every row needs every "
               "expert");
  BURROW_CHECK(c.balance.weight >= 0, "method.balance.weight = {}: must not be negative", c.balance.weight);
}

}  // namespace burrow::moe
