#pragma once
// A method is a value: which router, which experts, which auxiliary loss, placed where. The named rows are
// in methods.cpp; every field can be overridden from TOML or the command line, so that any cell of any
// ablation is a config, not code.
#include <cstdint>
#include <string>
#include <vector>

#include "moe/enums.h"

namespace burrow::moe {

struct RouterConfig {
  Granularity granularity = Granularity::token;
  Selection selection = Selection::top_k;
  int64_t top_k = 1;
  GateMode gate = GateMode::none;
  RouterPlacement placement = RouterPlacement::ffn;
  bool normalise = false;
  double entropy_threshold = 0.9, top_p = 0.75;
  bool keep_crossing = false;
  double threshold_max = 0;
  int64_t lambda_width = 256;
  bool bias = true;
  double init_std = 0;
};
// The entropy by which `hybrid` selects, and its mean over all rows and routers as a loss. Defaults:
// DynMoLE's.
struct EntropyConfig {
  double weight = 0;
  EntropyType type = EntropyType::tsallis;
  double index = 1.1, eps = 1e-5;
  bool normalise = true;
};
struct BalanceConfig {
  double weight = 0;
  BalanceScope scope = BalanceScope::sample;
  BalancePool pool = BalancePool::all_layers;
  bool times_experts = false;
  BalanceShare share = BalanceShare::rows;
  bool sum = false;
};
// LoRAMoE's localised balancing constraint, which divides experts into types and data sets with them.
struct LocalisedConfig {
  double weight = 0, delta = 0.1;
  std::vector<int64_t> types;
};
// LD-MoLE's sparsity loss: how far a row's lambda is from leaving it `experts` experts.
struct SparsityConfig {
  double weight = 0;
  int64_t experts = 2;
};
// Experts that are blocks of a dense FFN (FactorLLM, arXiv 2408.11855).
struct ShardConfig {
  Split split = Split::contiguous;
  BlockTraining train = BlockTraining::full;
  bool rescale = true;
};
// FactorLLM's Prior-Approximate loss, which teaches the router which blocks come closest to the dense FFN.
struct PriorConfig {
  double weight = 0;
  PriorForm form = PriorForm::kl;
};
// Experts on visual tokens, between projector and decoder (Parrot, arXiv 2406.02539).
struct VisualConfig {
  Guidance guidance = Guidance::text;
  int64_t inner = 0;
  double residual_weight = 1;
};
struct MethodConfig {
  std::string name = "lora";
  int64_t experts = 1, rank = 2;
  double alpha = 4, dropout = 0;
  ExpertKind expert = ExpertKind::linear;
  std::vector<std::string> expert_targets{"gate_proj", "up_proj", "down_proj"};
  std::vector<std::string> lora_targets;
  std::vector<int64_t> experts_by_layer;
  bool full = false, train_projector = false, train_decoder = false;
  Execution execution = Execution::automatic;
  RouterConfig router;
  BalanceConfig balance;
  EntropyConfig entropy;
  LocalisedConfig localised;
  SparsityConfig sparsity;
  ShardConfig shard;
  PriorConfig prior;
  VisualConfig visual;
};

template <class V>
void visit_fields(V& v, RouterConfig& c) {
  v.field("granularity", c.granularity, "", "what one decision covers: a token or a whole sample");
  v.field("selection", c.selection, "",
          "soft: all experts by probability; top_k: the k most probable; hybrid: all where the entropy is "
          "high, else the most probable (DynMoLE); threshold: those above a learned threshold (AdaMoLE); "
          "sparsegen: a learned sparseness (LD-MoLE); first: always the first k");
  v.field("top_k", c.top_k, "experts", "experts per token under top_k; the fewest under hybrid");
  v.field("gate", c.gate, "",
          "what the router learns from the task: none (LLaVA-MoLE's code), straight_through, scaled");
  v.field("normalise", c.normalise, "", "divide a row's weights by their sum (Mixtral, MoLA)");
  v.field("entropy_threshold", c.entropy_threshold, "",
          "hybrid: all experts where method.entropy is above this; from 1 on never, where it is normalised");
  v.field("top_p", c.top_p, "probability", "hybrid: else the most probable while their sum is at most this");
  v.field("keep_crossing", c.keep_crossing, "", "hybrid: keep the expert with which the sum crosses top_p");
  v.field("threshold_max", c.threshold_max, "probability",
          "threshold: the largest threshold that can be learned; 0: 1 / experts");
  v.field("lambda_width", c.lambda_width, "",
          "sparsegen: hidden width of the network that learns how sparse a row is");
  v.field("placement", c.placement, "", "one router per FFN, or one per Linear");
  v.field("bias", c.bias, "", "whether the router has a bias");
  v.field(
      "init_std", c.init_std, "",
      "standard deviation of the router's initial weights; 0: uniform within 1/sqrt(C), PyTorch's default");
}
template <class V>
void visit_fields(V& v, EntropyConfig& c) {
  v.field("weight", c.weight, "", "coefficient of the routers' mean entropy as a loss; 0 leaves it out");
  v.field("type", c.type, "", "tsallis or renyi");
  v.field("index", c.index, "", "the index q; 1: Shannon's entropy");
  v.field("eps", c.eps, "", "added to every probability");
  v.field("normalise", c.normalise, "",
          "divide by the entropy of equal probabilities, so that it is in [0, 1]");
}
template <class V>
void visit_fields(V& v, BalanceConfig& c) {
  v.field("weight", c.weight, "", "coefficient of the load-balancing loss; 0 leaves it out");
  v.field("scope", c.scope, "", "pool the tokens of each sample, or of the micro-batch");
  v.field("pool", c.pool, "",
          "pool all layers before the product (the authors' code), or one product per layer or router");
  v.field("times_experts", c.times_experts, "",
          "multiply by the number of experts, so that even routing gives 1 (Switch)");
  v.field("share", c.share, "",
          "what probabilities are multiplied by: the share of rows that chose an expert, its share of all "
          "choices, or its mean weight, with a gradient (DynMoLE)");
  v.field("sum", c.sum, "", "sum over layers or routers where there is a product for each, not their mean");
}
template <class V>
void visit_fields(V& v, LocalisedConfig& c) {
  v.field("weight", c.weight, "",
          "coefficient of the localised balancing constraint; 0 leaves it out (LoRAMoE)");
  v.field("delta", c.delta, "",
          "an expert's load counts 1 + delta times on samples of its type, 1 - delta times on others");
  v.field("types", c.types, "",
          "type of each of data.sets; experts are cut into as many equal runs. Empty: each set is a type");
}
template <class V>
void visit_fields(V& v, SparsityConfig& c) {
  v.field("weight", c.weight, "",
          "coefficient of the loss that pulls rows to few experts; 0 leaves it out (LD-MoLE)");
  v.field("experts", c.experts, "experts", "experts that a row may have without loss");
}
template <class V>
void visit_fields(V& v, ShardConfig& c) {
  v.field("split", c.split, "",
          "how a dense FFN's inner channels are dealt to its blocks; a file of `burrow factorize` has them "
          "dealt");
  v.field("train", c.train, "", "of the blocks: full, their weights; lora, LoRAs of method.rank beside them");
  v.field("rescale", c.rescale, "", "multiply the sum of the chosen blocks by experts / top_k (FactorLLM)");
}
template <class V>
void visit_fields(V& v, PriorConfig& c) {
  v.field("weight", c.weight, "",
          "coefficient of the Prior-Approximate loss; 0 leaves it and its teacher out (FactorLLM)");
  v.field(
      "form", c.form, "",
      "kl: KL(router || softmax of the labels), as in the authors' code; cross_entropy: with hard labels");
}
template <class V>
void visit_fields(V& v, VisualConfig& c) {
  v.field(
      "guidance", c.guidance, "",
      "what the router reads of an image: text, its class token after attending to the prompt; image, its "
      "class token; constant, the same of every image");
  v.field("inner", c.inner, "channels", "inner width of an expert; 0: as wide as the decoder");
  v.field(
      "residual_weight", c.residual_weight, "",
      "the projected features count so much beside the experts' sum (Parrot's module: 1, its training: 0.1)");
}
template <class V>
void visit_fields(V& v, MethodConfig& c) {
  v.field("name", c.name, "", "row of the method table: `burrow methods` lists them");
  v.field("experts", c.experts, "experts", "experts of each adapted FFN");
  v.field("rank", c.rank, "", "LoRA rank of each expert");
  v.field("alpha", c.alpha, "", "LoRA alpha: a delta is scaled by alpha/rank");
  v.field("dropout", c.dropout, "probability", "dropout on the input of every LoRA");
  v.field("expert", c.expert, "",
          "linear: a LoRA on each target Linear; ffn: a whole FFN, frozen and shared but for its LoRAs "
          "(MixLoRA); shard: a block of the FFN itself (FactorLLM); visual: an MLP on the visual tokens "
          "before the decoder (Parrot)");
  v.field("expert_targets", c.expert_targets, "", "last part of the names of the Linears that get experts");
  v.field("lora_targets", c.lora_targets, "",
          "last part of the names of the Linears that get one plain LoRA");
  v.field("experts_by_layer", c.experts_by_layer, "experts",
          "experts of equal blocks of layers (MoLA's 2-4-6-8); empty: `experts` everywhere");
  v.field("full", c.full, "", "train every weight of the model");
  v.field("train_projector", c.train_projector, "", "train the projector as well");
  v.field("train_decoder", c.train_decoder, "", "train every weight of the decoder as well");
  v.field("execution", c.execution, "",
          "masked: all experts on all rows; grouped: each on the rows that chose it; auto: the faster, by E, "
          "K, R, device");
  v.section("router", [&] { visit_fields(v, c.router); });
  v.section("balance", [&] { visit_fields(v, c.balance); });
  v.section("entropy", [&] { visit_fields(v, c.entropy); });
  v.section("localised", [&] { visit_fields(v, c.localised); });
  v.section("sparsity", [&] { visit_fields(v, c.sparsity); });
  v.section("shard", [&] { visit_fields(v, c.shard); });
  v.section("prior", [&] { visit_fields(v, c.prior); });
  v.section("visual", [&] { visit_fields(v, c.visual); });
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
