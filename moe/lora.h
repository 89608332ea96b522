#pragma once
// LoRA experts on frozen Linears: y = W x + (alpha/R) sum_e w_e B_e A_e x; plain LoRA has E = 1 and no
// router. One matrix holds A of all experts, another B. Masked execution is one GEMM by each, with a product
// by the routing weights in between. Grouped execution sorts rows by expert and computes each expert only on
// rows that chose it. Neither copies row counts to the host; both equal a loop over experts up to rounding.
#include <optional>

#include "moe/install.h"

namespace burrow::moe {

// The E LoRA experts of one Linear, stored in two parameters for any E.
struct LoraBank {
  // A is uniform within 1/sqrt(in) (Kaiming with a = sqrt 5), B is zero.
  LoraBank(const nn::Linear& base, int64_t experts, const MethodConfig& config, uint64_t seed);
  // base(x) plus the outputs of all experts, from `narrow` = x Aᵀ [N,E*R]. `routing` has the experts'
  // weights; null for plain LoRA. -> [N,out]
  Var masked(const nn::Linear& base, const Var& x, const Var& narrow, const nn::Routing* routing) const;
  // The same, with each expert computed only on the rows that chose it; `dropped` is x after dropout.
  Var grouped(const nn::Linear& base, const Var& x, const Var& dropped, const nn::Routing& routing) const;
  void parameters(const nn::ParameterVisit& visit);

  std::string name;
  int64_t experts;
  double scale;  // alpha / R
  Var a, b;      // [E*R, in], [out, E*R]: expert e has rows e*R to e*R+R of a, and these columns of b
};

// A bank beside `base`, counted in the inventory.
LoraBank counted_bank(const nn::Linear& base, int64_t experts, Install& install);

// Linears with the same input, each with a bank, with a bank and its own router, or with neither. The dropout
// of the input, and the product with the A matrices of all masked banks, are computed once for all Linears.
class LoraProjections : public nn::Projections {
 public:
  // What is added to one Linear.
  struct Adapter {
    std::optional<LoraBank> bank;
    std::optional<Router> router;
  };
  // One adapter for each Linear.
  LoraProjections(nn::Projections base, std::vector<Adapter> adapters, double dropout);
  std::vector<Var> operator()(const Var& x, const nn::Routing* shared, nn::Pass& pass) const override;
  void parameters(const nn::ParameterVisit& visit) override;
  std::vector<Adapter> adapters;

 private:
  double dropout_;
};

// Dropout of x [N,C]; returns x itself if the pass does not train. The draws depend on the pass's seed and
// step, the name `input`, and each row's (ordinal, position), both i32 [N].
Var draw_dropout(const Var& x, const std::string& input, double probability, const Tensor& ordinal,
                 const Tensor& position, const nn::Pass& pass);

// Add experts to the block's Linears in method.expert_targets, and one plain LoRA to those in lora_targets.
// Linears with more than one expert are routed: each by its own router in the attention, by a shared one in
// the FFN unless router.placement is `linear`.
void install_lora_on_attention(nn::DecoderBlock& block, Install& install);
void install_lora_on_ffn(nn::DecoderBlock& block, Install& install);

}  // namespace burrow::moe
