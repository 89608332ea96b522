#pragma once
// The choices that a method is made of, and their names in configs.
#include "tensor/enum_names.h"
#include "tensor/route_rule.h"

namespace burrow {
inline std::vector<std::pair<std::string, GateMode>> enum_names(GateMode) {
  return {{"none", GateMode::none},
          {"straight_through", GateMode::straight_through},
          {"scaled", GateMode::scaled}};
}
}  // namespace burrow

namespace burrow::moe {

// What one routing decision covers. A sample's decision reads the mean of its visual tokens (of its prompt
// when it has no image), never its answer.
BURROW_ENUM(Granularity, token, sample)
// soft: every expert, weighted by its probability. top_k: the k most probable. hybrid: every expert where the
// probabilities' entropy is high, else the most probable up to a sum, k at least (DynMoLE). threshold: those
// above a learned function of the input, weighted by what is above it (AdaMoLE). sparsegen: a projection of
// the logits onto probabilities of which a learned number of experts has some (LD-MoLE). first: always the
// first k, which makes a narrower dense FFN of blocks.
BURROW_ENUM(Selection, soft, top_k, hybrid, threshold, sparsegen, first)
// Who shares a router: the three Linears of one FFN, or each Linear has its own.
BURROW_ENUM(RouterPlacement, ffn, linear)
// The balance loss pools tokens of a sample or of the whole micro-batch (scope), and layers before the
// product of shares and probabilities or after it (pool).
BURROW_ENUM(BalanceScope, sample, batch)
BURROW_ENUM(BalancePool, all_layers, layer, router)
// What the balance loss multiplies the mean probabilities by: the share of rows that chose an expert (sums to
// K), the expert's share of all choices (sums to 1), or its mean weight, which has a gradient.
BURROW_ENUM(BalanceShare, rows, choices, weights)
// Tsallis's entropy (1 - sum p^q) / (q - 1), or Renyi's ln(sum p^q) / (1 - q); either is Shannon's at q = 1.
BURROW_ENUM(EntropyType, tsallis, renyi)
// linear: a LoRA on each target. ffn: the whole frozen FFN, shared, with LoRAs of its own on gate, up and
// down, whose outputs are mixed (MixLoRA). shard: a block of the dense FFN's inner channels (FactorLLM).
// visual: an MLP on the visual tokens before the decoder (Parrot).
BURROW_ENUM(ExpertKind, linear, ffn, shard, visual)
// What the router of visual experts reads of an image: its class token after attending to the prompt, its
// class token as it is, or ones, so that every image is routed alike.
BURROW_ENUM(Guidance, text, image, constant)
// How the inner channels of a dense FFN are dealt to experts that are its blocks.
BURROW_ENUM(Split, contiguous, random, clustered)
// What of such blocks is trained: their weights, or LoRAs beside them.
BURROW_ENUM(BlockTraining, full, lora)
// The Prior-Approximate loss: KL(router || target) as in the authors' code, or cross entropy with hard
// labels.
BURROW_ENUM(PriorForm, kl, cross_entropy)
// How LoRA experts under a sparse selection are computed; the results agree to rounding (moe/experts.h).
enum class Execution { automatic, masked, grouped };

inline std::vector<std::pair<std::string, Execution>> enum_names(Execution) {
  return {{"auto", Execution::automatic}, {"masked", Execution::masked}, {"grouped", Execution::grouped}};
}

}  // namespace burrow::moe
