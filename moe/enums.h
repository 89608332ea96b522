#pragma once
// The enums of a method's config, and the names of their values in configs.
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

// Whether a router decides per token or per sample. The decision for a sample reads the mean of its visual
// tokens (of its prompt if it has no image), never its answer.
BURROW_ENUM(Granularity, token, sample)
// soft: all experts, weighted by probability. top_k: the k most probable. hybrid: all experts if the entropy
// of the probabilities is high, else the most probable up to a sum of top_p, at least k (DynMoLE). threshold:
// those whose probability exceeds a learned function of the input, weighted by the excess (AdaMoLE).
// sparsegen: a sparse projection of the logits onto the simplex; how sparse is learned (LD-MoLE). first:
// always the first k, which turns an FFN of blocks into a narrower dense FFN.
BURROW_ENUM(Selection, soft, top_k, hybrid, threshold, sparsegen, first)
// Whether the three Linears of an FFN share a router, or each Linear has its own.
BURROW_ENUM(RouterPlacement, ffn, linear)
// The balance loss averages over the tokens of a sample or of the whole micro-batch (scope), and over layers
// before or after it multiplies shares by probabilities (pool).
BURROW_ENUM(BalanceScope, sample, batch)
BURROW_ENUM(BalancePool, all_layers, layer, router)
// The factor of an expert's mean probability in the balance loss: the share of rows that chose the expert
// (sums to K over experts), its share of all choices (sums to 1), or its mean weight, which has a gradient.
BURROW_ENUM(BalanceShare, rows, choices, weights)
// Tsallis entropy (1 - sum p^q) / (q - 1), or Renyi entropy ln(sum p^q) / (1 - q); at q = 1 both are
// Shannon's.
BURROW_ENUM(EntropyType, tsallis, renyi)
// linear: an expert is a LoRA on one Linear. ffn: an FFN with its own LoRAs on gate, up and down; all experts
// share the frozen weights (MixLoRA). shard: a block of the dense FFN's inner channels (FactorLLM). visual:
// an MLP on the visual tokens before the decoder (Parrot).
BURROW_ENUM(ExpertKind, linear, ffn, shard, visual)
// The input of the visual experts' router for an image: its class token after attention to the prompt, its
// class token itself, or ones, so that every image is routed alike.
BURROW_ENUM(Guidance, text, image, constant)
// How the inner channels of a dense FFN are assigned to blocks, which become the experts.
BURROW_ENUM(Split, contiguous, random, clustered)
// Whether training updates the weights of FFN blocks, or a LoRA added to each frozen block.
BURROW_ENUM(BlockTraining, full, lora)
// The Prior-Approximate loss: KL(router || target) as in the authors' code, or cross entropy with hard
// labels.
BURROW_ENUM(PriorForm, kl, cross_entropy)
// How LoRA experts under a sparse selection are computed; the results agree to rounding (moe/lora.h).
enum class Execution { automatic, masked, grouped };

inline std::vector<std::pair<std::string, Execution>> enum_names(Execution) {
  return {{"auto", Execution::automatic}, {"masked", Execution::masked}, {"grouped", Execution::grouped}};
}

}  // namespace burrow::moe
