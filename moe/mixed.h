#pragma once
// A mixture of FFNs with shared frozen weights and separate LoRAs (MixLoRA, arXiv 2404.15159, section 3):
//   y = W_down sum_i w_i h_i + (alpha/R) sum_i w_i B_i A_i h_i,  h_i = silu(gate_i x) * up_i x
// The sums are over the chosen experts i; gate_i and up_i are the frozen Linears plus expert i's LoRA. Frozen
// products are computed once for all experts, LoRAs and activations only on the rows that chose the expert.
#include "moe/lora.h"

namespace burrow::moe {

class MixedFeedForward : public nn::FeedForward {
 public:
  MixedFeedForward(nn::FeedForward base, LoraBank gate, LoraBank up, LoraBank down, Router router,
                   double dropout);
  Var operator()(const Var& x, nn::Pass& pass) const override;
  void parameters(const nn::ParameterVisit& visit) override;

 private:
  LoraBank gate_lora_, up_lora_, down_lora_;
  Router router_;
  double dropout_;
};

// Replaces the block's FFN by a MixedFeedForward.
void install_mixed_ffns(nn::DecoderBlock& block, Install& install);

}  // namespace burrow::moe
