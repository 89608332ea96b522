#pragma once
// The choices that a method is made of, and their names in configs.
#include <utility>
#include <vector>

#include "tensor/route_rule.h"

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
// soft: every expert, weighted by its probability. top_k: the k most probable. hybrid: every expert where the
// probabilities' entropy is high, else the most probable up to a sum, k at least (DynMoLE). threshold: those
// above a learned function of the input, weighted by what is above it (AdaMoLE). sparsegen: a projection of
// the logits onto probabilities of which a learned number of experts has some (LD-MoLE). first: always the
// first k, which makes a narrower dense FFN of blocks.
enum class Selection { soft, top_k, hybrid, threshold, sparsegen, first };
// Who shares a router: the three Linears of one FFN, or each Linear has its own.
enum class RouterPlacement { ffn, linear };
// The balance loss pools tokens of a sample or of the whole micro-batch (scope), and layers before the
// product of shares and probabilities or after it (pool).
enum class BalanceScope { sample, batch };
enum class BalancePool { all_layers, layer, router };
// What the balance loss multiplies the mean probabilities by: the share of rows that chose an expert (sums to
// K), the expert's share of all choices (sums to 1), or its mean weight, which has a gradient.
enum class BalanceShare { rows, choices, weights };
// Tsallis's entropy (1 - sum p^q) / (q - 1), or Renyi's ln(sum p^q) / (1 - q); either is Shannon's at q = 1.
enum class EntropyType { tsallis, renyi };
// linear: a LoRA on each target. ffn: the whole frozen FFN, shared, with LoRAs of its own on gate, up and
// down, whose outputs are mixed (MixLoRA). shard: a block of the dense FFN's inner channels (FactorLLM).
// visual: an MLP on the visual tokens before the decoder (Parrot).
enum class ExpertKind { linear, ffn, shard, visual };
// What the router of visual experts reads of an image: its class token after attending to the prompt, its
// class token as it is, or ones, so that every image is routed alike.
enum class Guidance { text, image, constant };
// How the inner channels of a dense FFN are dealt to experts that are its blocks.
enum class Split { contiguous, random, clustered };
// What of such blocks is trained: their weights, or LoRAs beside them.
enum class BlockTraining { full, lora };
// The Prior-Approximate loss: KL(router || target) as in the authors' code, or cross entropy with hard
// labels.
enum class PriorForm { kl, cross_entropy };
// How LoRA experts under a sparse selection are computed; the results agree to rounding (moe/experts.h).
enum class Execution { automatic, masked, grouped };

inline std::vector<std::pair<const char*, Granularity>> enum_names(Granularity) {
  return {{"token", Granularity::token}, {"sample", Granularity::sample}};
}
inline std::vector<std::pair<const char*, Selection>> enum_names(Selection) {
  return {{"soft", Selection::soft},           {"top_k", Selection::top_k},
          {"hybrid", Selection::hybrid},       {"threshold", Selection::threshold},
          {"sparsegen", Selection::sparsegen}, {"first", Selection::first}};
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
inline std::vector<std::pair<const char*, BalanceShare>> enum_names(BalanceShare) {
  return {
      {"rows", BalanceShare::rows}, {"choices", BalanceShare::choices}, {"weights", BalanceShare::weights}};
}
inline std::vector<std::pair<const char*, EntropyType>> enum_names(EntropyType) {
  return {{"tsallis", EntropyType::tsallis}, {"renyi", EntropyType::renyi}};
}
inline std::vector<std::pair<const char*, ExpertKind>> enum_names(ExpertKind) {
  return {{"linear", ExpertKind::linear},
          {"ffn", ExpertKind::ffn},
          {"shard", ExpertKind::shard},
          {"visual", ExpertKind::visual}};
}
inline std::vector<std::pair<const char*, Guidance>> enum_names(Guidance) {
  return {{"text", Guidance::text}, {"image", Guidance::image}, {"constant", Guidance::constant}};
}
inline std::vector<std::pair<const char*, Split>> enum_names(Split) {
  return {{"contiguous", Split::contiguous}, {"random", Split::random}, {"clustered", Split::clustered}};
}
inline std::vector<std::pair<const char*, BlockTraining>> enum_names(BlockTraining) {
  return {{"full", BlockTraining::full}, {"lora", BlockTraining::lora}};
}
inline std::vector<std::pair<const char*, PriorForm>> enum_names(PriorForm) {
  return {{"kl", PriorForm::kl}, {"cross_entropy", PriorForm::cross_entropy}};
}
inline std::vector<std::pair<const char*, Execution>> enum_names(Execution) {
  return {{"auto", Execution::automatic}, {"masked", Execution::masked}, {"grouped", Execution::grouped}};
}

}  // namespace burrow::moe
