#pragma once
// What a router does with its logits, as both backends and the layers above read it.
#include <cstdint>

namespace burrow {

// How the chosen experts enter the output, and what the router learns from the task:
// - none: weight 1, no gradient; only an auxiliary loss trains the router (LLaVA-MoLE's released code)
// - straight_through: weight 1, gradient as if it were p
// - scaled: weight p (Switch Transformer)
enum class GateMode { none, straight_through, scaled };

// unit * S of the probabilities p + eps: S = (1 - sum p^index) / (index - 1) is Tsallis's entropy, S = ln(sum
// p^index) / (1 - index) Renyi's; at index 1 both are Shannon's, -sum p ln p.
struct EntropyRule {
  double index = 1, eps = 0, unit = 1;
  bool renyi = false;
};

// Which experts a row of probabilities p chooses, and what these weigh.
struct RouteRule {
  // top_k: the k largest p, the first of equals. first: experts 0 to k - 1. hybrid: all experts where
  // `entropy` is above entropy_threshold; else, by falling p, those whose cumulated p is at most top_p (with
  // `crossing`: was below it before them), and k at least (DynMoLE, arXiv 2504.00661).
  enum class Choice { top_k, first, hybrid };
  Choice choice = Choice::top_k;
  int64_t k = 1;
  double entropy_threshold = 0, top_p = 0;
  bool crossing = false;
  EntropyRule entropy = {};
  bool wants_entropy = false;  // though nobody chooses by it
  // soft: every expert weighs p, and the choice is information alone. Else by the gate, 0 where not chosen.
  bool soft = false;
  GateMode gate = GateMode::none;
  bool normalise = false;  // a row's weights are divided by their sum, where that is not 0

  bool has_entropy() const { return wants_entropy || choice == Choice::hybrid; }
  // Whether the weights have a gradient.
  bool weights_learn() const { return soft || gate != GateMode::none; }
};

}  // namespace burrow
