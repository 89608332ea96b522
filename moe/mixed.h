#pragma once
// A mixture of whole FFNs that share their frozen weights (MixLoRA, arXiv 2404.15159, section 3):
//   y = W_down sum_i w_i h_i + (alpha/R) sum_i w_i B_i A_i h_i,  h_i = silu(gate_i x) * up_i x
// over the chosen experts i, whose gate and up are the frozen ones and a LoRA. The frozen products are
// computed once for all experts; an expert's LoRAs and activations only on the rows that chose it.
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

// Replaces the block's FFN by a mixture of them.
void install_mixed_ffns(nn::DecoderBlock& block, Install& install);

}  // namespace burrow::moe
