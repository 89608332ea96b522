#pragma once
// The config of a method: router, experts, auxiliary losses and placement. methods.cpp has the table of named
// methods; every field can be overridden from TOML or the command line, so that an ablation needs no code.
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
// The entropy of router probabilities: criterion of selection `hybrid`, and a loss. Defaults are DynMoLE's.
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
// LoRAMoE's localised balancing constraint, which assigns each expert and each data set to a type.
struct LocalisedConfig {
  double weight = 0, delta = 0.1;
  std::vector<int64_t> types;
};
// LD-MoLE's sparsity loss: how much a row's lambda must grow until at most `experts` experts remain.
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
// FactorLLM's Prior-Approximate loss, which trains the router to choose the blocks closest to the dense FFN.
struct PriorConfig {
  double weight = 0;
  PriorForm form = PriorForm::kl;
};
// Visual experts: MLPs on the visual tokens between projector and decoder (Parrot, arXiv 2406.02539).
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
  v.field("granularity", c.granularity, "", "one routing decision per token or per sample");
  v.field("selection", c.selection, "",
          "soft: all experts, weighted by probability; top_k: the k most probable; hybrid: all if the "
          "entropy is high, else the most probable (DynMoLE); threshold: those above a learned threshold "
          "(AdaMoLE); sparsegen: a learned number of experts (LD-MoLE); first: always the first k");
  v.field("top_k", c.top_k, "experts", "experts per token of top_k; the minimum of hybrid");
  v.field("gate", c.gate, "",
          "task gradient of the router: none (LLaVA-MoLE), straight_through, scaled by the probability");
  v.field("normalise", c.normalise, "", "divide a row's weights by their sum (Mixtral, MoLA)");
  v.field("entropy_threshold", c.entropy_threshold, "",
          "hybrid: all experts if method.entropy is above this; never if this is 1 and entropy normalised");
  v.field("top_p", c.top_p, "probability", "hybrid: else the most probable with a sum of at most this");
  v.field("keep_crossing", c.keep_crossing, "", "hybrid: include the expert whose sum exceeds top_p");
  v.field("threshold_max", c.threshold_max, "probability",
          "threshold: upper bound of the learned threshold; 0: 1 / experts");
  v.field("lambda_width", c.lambda_width, "",
          "sparsegen: hidden width of the network that predicts lambda, a row's sparsity");
  v.field("placement", c.placement, "", "one router per FFN, or one per Linear");
  v.field("bias", c.bias, "", "whether the router has a bias");
  v.field(
      "init_std", c.init_std, "",
      "standard deviation of the router's initial weights; 0: uniform within 1/sqrt(C), PyTorch's default");
}
template <class V>
void visit_fields(V& v, EntropyConfig& c) {
  v.field("weight", c.weight, "", "coefficient of the mean router entropy as a loss; 0: no such loss");
  v.field("type", c.type, "", "tsallis or renyi");
  v.field("index", c.index, "", "the index q; 1: Shannon entropy");
  v.field("eps", c.eps, "", "constant added to every probability");
  v.field("normalise", c.normalise, "",
          "divide the entropy by that of equal probabilities, so that it is in [0, 1]");
}
template <class V>
void visit_fields(V& v, BalanceConfig& c) {
  v.field("weight", c.weight, "", "coefficient of the load-balancing loss; 0: no such loss");
  v.field("scope", c.scope, "", "average over the tokens of each sample, or of the micro-batch");
  v.field("pool", c.pool, "",
          "average over all layers before the product (LLaVA-MoLE), or one product per layer or router");
  v.field("times_experts", c.times_experts, "",
          "multiply by the number of experts, so that uniform routing to one expert results in 1 (Switch)");
  v.field("share", c.share, "",
          "factor of an expert's mean probability: the share of rows that chose it, its share of all "
          "choices, or its mean weight, with a gradient (DynMoLE)");
  v.field("sum", c.sum, "", "sum the products of layers or routers instead of averaging them");
}
template <class V>
void visit_fields(V& v, LocalisedConfig& c) {
  v.field("weight", c.weight, "",
          "coefficient of the localised balancing constraint (LoRAMoE); 0: no such loss");
  v.field("delta", c.delta, "",
          "an expert's load is multiplied by 1 + delta on samples of its type, by 1 - delta on others");
  v.field("types", c.types, "",
          "type of each of data.sets; experts are divided evenly among types. Empty: one type per set");
}
template <class V>
void visit_fields(V& v, SparsityConfig& c) {
  v.field("weight", c.weight, "",
          "coefficient of the loss that limits the experts per row (LD-MoLE); 0: no such loss");
  v.field("experts", c.experts, "experts", "number of experts per row up to which this loss is 0");
}
template <class V>
void visit_fields(V& v, ShardConfig& c) {
  v.field("split", c.split, "",
          "how a dense FFN's inner channels are assigned to blocks; files of `burrow factorize` are already "
          "permuted and need contiguous");
  v.field("train", c.train, "", "full: train the blocks' weights; lora: a LoRA of method.rank per block");
  v.field("rescale", c.rescale, "", "multiply the sum of the chosen blocks by experts / top_k (FactorLLM)");
}
template <class V>
void visit_fields(V& v, PriorConfig& c) {
  v.field("weight", c.weight, "",
          "coefficient of the Prior-Approximate loss (FactorLLM); 0: neither loss nor teacher");
  v.field("form", c.form, "",
          "kl: KL(router || softmax of the labels), as in the authors' code; cross_entropy: hard labels");
}
template <class V>
void visit_fields(V& v, VisualConfig& c) {
  v.field(
      "guidance", c.guidance, "",
      "input of the router for an image: text, the image's class token after attention to the prompt; image, "
      "its class token; constant, ones for every image");
  v.field("inner", c.inner, "channels", "inner width of an expert; 0: the decoder's width");
  v.field("residual_weight", c.residual_weight, "",
          "factor of the projected features added to the experts' output (Parrot's training code: 0.1)");
}
template <class V>
void visit_fields(V& v, MethodConfig& c) {
  v.field("name", c.name, "", "name of a method; `burrow methods` lists them");
  v.field("experts", c.experts, "experts", "experts of each adapted FFN");
  v.field("rank", c.rank, "", "LoRA rank of each expert");
  v.field("alpha", c.alpha, "", "LoRA alpha: a LoRA's output is scaled by alpha/rank");
  v.field("dropout", c.dropout, "probability", "dropout on the input of every LoRA");
  v.field("expert", c.expert, "",
          "linear: a LoRA on each target Linear; ffn: LoRAs on a whole FFN with frozen weights that all "
          "experts share (MixLoRA); shard: a block of the dense FFN (FactorLLM); visual: an MLP on the "
          "visual tokens before the decoder (Parrot)");
  v.field("expert_targets", c.expert_targets, "", "Linears with experts, by the last part of their names");
  v.field("lora_targets", c.lora_targets, "", "Linears with one plain LoRA, by the last part of their names");
  v.field("experts_by_layer", c.experts_by_layer, "experts",
          "experts of each of several equal blocks of layers (MoLA: 2-4-6-8); empty: `experts` everywhere");
  v.field("full", c.full, "", "train every weight of the model");
  v.field("train_projector", c.train_projector, "", "train the projector as well");
  v.field("train_decoder", c.train_decoder, "", "train every weight of the decoder as well");
  v.field("execution", c.execution, "",
          "masked: compute all experts on all rows; grouped: each only on the rows that chose it; auto: the "
          "faster one, estimated from selection, experts, top_k, rank and device");
  v.section("router", [&] { visit_fields(v, c.router); });
  v.section("balance", [&] { visit_fields(v, c.balance); });
  v.section("entropy", [&] { visit_fields(v, c.entropy); });
  v.section("localised", [&] { visit_fields(v, c.localised); });
  v.section("sparsity", [&] { visit_fields(v, c.sparsity); });
  v.section("shard", [&] { visit_fields(v, c.shard); });
  v.section("prior", [&] { visit_fields(v, c.prior); });
  v.section("visual", [&] { visit_fields(v, c.visual); });
}

// A row of the table of methods, with the description that `burrow methods` prints.
struct Method {
  MethodConfig config;
  const char* about;
};
// The table of methods, in the order in which `burrow methods` prints it.
const std::vector<Method>& methods();
// The config of the method of this name; throws an Error that lists the known names.
const MethodConfig& method(const std::string& name);
void check(const MethodConfig& c);  // throws an Error that names the key

}  // namespace burrow::moe
