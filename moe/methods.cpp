// The table of methods. Each row is a config of router, experts, auxiliary losses and placement.
#include <algorithm>
#include <cmath>
#include <set>

#include "moe/config.h"
#include "tensor/check.h"
#include "tensor/enum_names.h"

namespace burrow::moe {
namespace {

const std::vector<std::string> kAttention{"q_proj", "k_proj", "v_proj", "o_proj"};
const std::vector<std::string> kAllLinears{"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                           "gate_proj", "up_proj", "down_proj"};

MethodConfig row(const char* name, int64_t experts, RouterConfig router = {}, BalanceConfig balance = {}) {
  MethodConfig c;
  c.name = name;
  c.experts = experts;
  c.router = router;
  c.balance = balance;
  return c;
}

// The router of several methods: one per Linear, without bias.
RouterConfig per_linear(Selection selection, int64_t top_k) {
  return {.selection = selection,
          .top_k = top_k,
          .gate = GateMode::scaled,
          .placement = RouterPlacement::linear,
          .bias = false};
}

// Loss weights and numbers of experts are those of the authors' code.
MethodConfig dynmole() {
  MethodConfig c = row(
      "dynmole", 6, per_linear(Selection::hybrid, 2),
      {.weight = 0.001, .scope = BalanceScope::batch, .times_experts = true, .share = BalanceShare::weights});
  c.entropy.weight = 0.01;
  return c;
}

// The balance loss pools a layer's seven routers and is summed over layers (the authors' code).
MethodConfig mola() {
  RouterConfig router = per_linear(Selection::top_k, 2);
  router.normalise = true;
  MethodConfig c = row("mola", 8, router,
                       {.weight = 0.001,
                        .scope = BalanceScope::batch,
                        .pool = BalancePool::layer,
                        .times_experts = true,
                        .share = BalanceShare::choices,
                        .sum = true});
  c.experts_by_layer = {2, 4, 6, 8};
  c.expert_targets = kAllLinears;
  return c;
}

MethodConfig loramoe() {
  MethodConfig c = row("loramoe", 6, per_linear(Selection::soft, 1));
  c.localised.weight = 0.1;
  return c;
}

// The balance loss has the weight of the authors' code, the best in the paper's ablation; its text says 0.01.
MethodConfig mixlora() {
  MethodConfig c = row("mixlora", 8,
                       {.selection = Selection::top_k,
                        .top_k = 2,
                        .gate = GateMode::scaled,
                        .normalise = true,
                        .bias = false,
                        .init_std = 0.02},
                       {.weight = 0.001, .scope = BalanceScope::batch, .times_experts = true});
  c.expert = ExpertKind::ffn;
  c.lora_targets = kAttention;
  return c;
}

// The balance loss reads probabilities minus the threshold (the authors' code).
MethodConfig adamole() {
  RouterConfig router = per_linear(Selection::threshold, 1);
  router.normalise = true;
  MethodConfig c = row("adamole", 8, router,
                       {.weight = 0.001,
                        .scope = BalanceScope::batch,
                        .pool = BalancePool::router,
                        .times_experts = true,
                        .sum = true});
  c.expert_targets = kAttention;
  return c;
}

MethodConfig ldmole() {
  MethodConfig c = row("ldmole", 8, per_linear(Selection::sparsegen, 1),
                       {.weight = 1,
                        .scope = BalanceScope::batch,
                        .pool = BalancePool::router,
                        .times_experts = true,
                        .share = BalanceShare::choices});
  c.expert_targets = kAllLinears;
  return c;
}

// The prior loss's weight is from a comment in the authors' code, whose training step omits that loss.
MethodConfig factorllm() {
  MethodConfig c = row("factorllm", 4, {.selection = Selection::top_k, .top_k = 1});
  c.expert = ExpertKind::shard;
  c.prior.weight = 0.05;
  return c;
}

// The second stage of the paper, which trains module and decoder. The router has no bias and no balance loss.
MethodConfig parrot() {
  MethodConfig c = row("parrot", 6, {.selection = Selection::soft, .gate = GateMode::scaled, .bias = false});
  c.expert = ExpertKind::visual;
  c.expert_targets.clear();
  c.train_decoder = true;
  return c;
}

MethodConfig full() {
  MethodConfig c = row("full", 1);
  c.full = true;
  c.expert_targets.clear();
  return c;
}

}  // namespace

const std::vector<Method>& methods() {
  static const std::vector<Method> table = {
      {full(), "no adapter: every weight of the model is trained"},
      {row("lora", 1), "plain LoRA (Hu et al. 2021, arXiv 2106.09685)"},
      {row("dense", 3, {.selection = Selection::soft}),
       "all experts, weighted by the router's softmax (the dense variant of LLaVA-MoLE)"},
      {row("mole", 3, {.selection = Selection::top_k, .top_k = 1, .gate = GateMode::none}, {.weight = 0.01}),
       "one expert per token, one biased router per FFN shared by gate, up and down (LLaVA-MoLE, arXiv "
       "2401.16160)"},
      {loramoe(),
       "all experts, weighted by softmax, a router per Linear, experts assigned to types of data (LoRAMoE, "
       "arXiv 2312.09979)"},
      {mola(), "two experts per token, a router per Linear, 2-4-6-8 experts (MoLA, arXiv 2402.08562)"},
      {adamole(),
       "the experts above a learned threshold, a router per Linear of attention (AdaMoLE, arXiv 2405.00361)"},
      {ldmole(),
       "a learned number of experts per token, a router per Linear (LD-MoLE, github.com/eshentw/LD-MoLE)"},
      {mixlora(),
       "two whole FFNs per token that share their frozen weights, plain LoRA on attention (MixLoRA, arXiv "
       "2404.15159)"},
      {dynmole(),
       "all experts if the router's Tsallis entropy, also a loss, is high, else the most probable (DynMoLE, "
       "arXiv 2504.00661)"},
      {factorllm(),
       "blocks of the dense FFN as experts, one per token; the dense model teaches the router (FactorLLM, "
       "arXiv 2408.11855)"},
      {parrot(),
       "MLPs on the visual tokens before the decoder, weighted per image by its prompt (Parrot, arXiv "
       "2406.02539)"},
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

namespace {
void check_visual(const MethodConfig& c) {
  BURROW_CHECK(c.visual.residual_weight >= 0 && std::isfinite(c.visual.residual_weight),
               "method.visual.residual_weight = {}: must be at least 0, and finite",
               c.visual.residual_weight);
  BURROW_CHECK(c.visual.inner >= 0 && c.visual.inner <= 1 << 20,
               "method.visual.inner = {}: must be 0 (the decoder's width) to {}", c.visual.inner, 1 << 20);
  BURROW_CHECK(!c.train_decoder || (c.expert_targets.empty() && c.lora_targets.empty()),
               "method.train_decoder trains the Linears themselves: method.expert_targets and "
               "method.lora_targets must be empty");
  if (c.expert != ExpertKind::visual) return;
  BURROW_CHECK(c.expert_targets.empty() && c.experts_by_layer.empty() &&
                   c.router.granularity == Granularity::token && c.router.selection != Selection::first &&
                   c.router.selection != Selection::sparsegen,
               "method.expert = 'visual' is one module before the decoder, routed per image: "
               "method.expert_targets and experts_by_layer must be empty (method.lora_targets may name "
               "Linears of the decoder), method.router.granularity 'token', and its selection neither "
               "'first' nor 'sparsegen'");
}
}  // namespace

void check(const MethodConfig& c) {
  constexpr int64_t kMostExperts = 4096;
  const auto sound = [](int64_t experts) { return experts >= 1 && experts <= kMostExperts; };
  BURROW_CHECK(sound(c.experts), "method.experts = {}: must be 1 to {}", c.experts, kMostExperts);
  int64_t most = c.experts_by_layer.empty() ? c.experts : 1;
  for (const int64_t e : c.experts_by_layer) {
    BURROW_CHECK(sound(e), "method.experts_by_layer has {}: must be 1 to {}", e, kMostExperts);
    most = std::max(most, e);
  }
  check_visual(c);
  BURROW_CHECK(c.rank >= 1, "method.rank = {}: must be at least 1", c.rank);
  BURROW_CHECK(c.dropout >= 0 && c.dropout < 1, "method.dropout = {}: must be in [0, 1)", c.dropout);
  BURROW_CHECK(c.alpha > 0 && std::isfinite(c.alpha), "method.alpha = {}: must be positive and finite",
               c.alpha);
  BURROW_CHECK(c.router.top_k >= 1 && c.router.top_k <= most,
               "method.router.top_k = {}: must be 1 to {}, the experts", c.router.top_k, most);
  for (const auto& [key, value] : {std::pair{"method.router.init_std", c.router.init_std},
                                   {"method.balance.weight", c.balance.weight},
                                   {"method.entropy.weight", c.entropy.weight},
                                   {"method.localised.weight", c.localised.weight},
                                   {"method.sparsity.weight", c.sparsity.weight},
                                   {"method.localised.delta", c.localised.delta},
                                   {"method.prior.weight", c.prior.weight},
                                   {"method.router.top_p", c.router.top_p},
                                   {"method.router.threshold_max", c.router.threshold_max}})
    BURROW_CHECK(value >= 0 && std::isfinite(value), "{} = {}: must be at least 0, and finite", key, value);
  const bool shard = c.expert == ExpertKind::shard;
  const bool counts_k =
      c.router.selection == Selection::top_k || (shard && c.router.selection == Selection::first);
  if (c.expert == ExpertKind::ffn || shard) {
    const std::set<std::string> targets(c.expert_targets.begin(), c.expert_targets.end());
    const bool whole = targets == std::set<std::string>{"gate_proj", "up_proj", "down_proj"};
    BURROW_CHECK(
        whole && c.router.placement == RouterPlacement::ffn && counts_k && c.execution != Execution::masked,
        "method.expert = '{}' needs method.expert_targets gate_proj, up_proj and down_proj, "
        "method.router.placement 'ffn', selection 'top_k'{}, and a method.execution other than 'masked'",
        name_of(c.expert), shard ? " or 'first'" : "");
  }
  BURROW_CHECK(!shard || c.dropout == 0, "method.dropout = {}: must be 0 with method.expert = 'shard'",
               c.dropout);
  BURROW_CHECK(c.prior.weight == 0 || (shard && c.lora_targets.empty()),
               "method.prior.weight = {}: needs method.expert = 'shard' and empty method.lora_targets: the "
               "teacher is the dense model with all weights but FFNs frozen",
               c.prior.weight);
  BURROW_CHECK(c.router.lambda_width >= 1 && c.router.lambda_width <= 65536,
               "method.router.lambda_width = {}: must be 1 to 65536", c.router.lambda_width);
  BURROW_CHECK(c.sparsity.experts >= 1, "method.sparsity.experts = {}: must be at least 1",
               c.sparsity.experts);
  for (const int64_t type : c.localised.types)
    BURROW_CHECK(type >= 0 && type < kMostExperts, "method.localised.types has {}: must be 0 to {}", type,
                 kMostExperts - 1);
  BURROW_CHECK(c.entropy.index > 0 && std::isfinite(c.entropy.index),
               "method.entropy.index = {}: must be positive and finite", c.entropy.index);
  BURROW_CHECK(c.entropy.eps >= 0 && c.entropy.eps < 1, "method.entropy.eps = {}: must be in [0, 1)",
               c.entropy.eps);
  BURROW_CHECK(!std::isnan(c.router.entropy_threshold), "method.router.entropy_threshold is not a number");
  BURROW_CHECK(c.execution != Execution::grouped || counts_k,
               "method.execution = 'grouped' with method.router.selection = '{}': grouped execution needs as "
               "many experts for every row",
               name_of(c.router.selection));
}

}  // namespace burrow::moe
