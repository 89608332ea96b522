#pragma once
// How a router turns logits into experts and weights; read by both backends and by the layers above.
#include <cstdint>

namespace burrow {

// How chosen experts are weighted in the output, and which gradient the router gets from the task:
// - none: weight 1, no gradient; only an auxiliary loss trains the router (LLaVA-MoLE's released code)
// - straight_through: weight 1, gradient as if it were p
// - scaled: weight p (Switch Transformer)
enum class GateMode { none, straight_through, scaled };

// The entropy unit * S of probabilities x = p + eps: Tsallis S = (1 - sum x^index) / (index - 1), Renyi
// S = ln(sum x^index) / (1 - index); at index 1 both are Shannon's, -sum x ln x.
struct EntropyRule {
  double index = 1, eps = 0, unit = 1;
  bool renyi = false;
};

// Which experts a row of probabilities p chooses, and their weights.
struct RouteRule {
  // top_k: the k largest p, the first of equals. first: experts 0 to k - 1. hybrid: all experts if the
  // entropy is above entropy_threshold; else, in descending order of p, those whose cumulative p is at most
  // top_p (`crossing`: was below top_p before them), but at least k (DynMoLE, arXiv 2504.00661).
  enum class Choice { top_k, first, hybrid };
  Choice choice = Choice::top_k;
  int64_t k = 1;
  double entropy_threshold = 0, top_p = 0;
  bool crossing = false;
  EntropyRule entropy = {};
  bool wants_entropy = false;  // even if the choice does not use it
  // soft: every expert has weight p, and the choice is only reported. Else see GateMode; 0 if not chosen.
  bool soft = false;
  GateMode gate = GateMode::none;
  bool normalise = false;  // the weights of a row are divided by their sum, unless that is 0

  bool has_entropy() const { return wants_entropy || choice == Choice::hybrid; }
  // Whether the weights have a gradient.
  bool weights_learn() const { return soft || gate != GateMode::none; }
};

}  // namespace burrow
