#pragma once
// LoRA experts on frozen Linears: y = W x + (alpha/R) sum_e w_e B_e A_e x, with E = 1 and no router for plain
// LoRA. The experts' sides lie next to each other. Masked, E experts are one GEMM per side with the routing
// as a mask in between. Grouped, rows are sorted by expert and meet only the experts that they chose. Neither
// reads a count back; both agree with a loop over experts.
#include <optional>

#include "moe/install.h"

namespace burrow::moe {

// The E experts of one Linear side by side: two parameters, whatever E is.
struct LoraBank {
  // A is uniform within 1/sqrt(in) (Kaiming with a = sqrt 5), B zero; each expert is drawn by itself.
  LoraBank(const nn::Linear& base, int64_t experts, const MethodConfig& config, uint64_t seed);
  // base(x) and the experts' deltas from `narrow` = x Aᵀ of all of them [N,E*R]. `routing` weighs the
  // experts; null for plain LoRA. -> [N,out]
  Var masked(const nn::Linear& base, const Var& x, const Var& narrow, const nn::Routing* routing) const;
  // The same with each row at the experts that it chose alone: `dropped` is x with dropout.
  Var grouped(const nn::Linear& base, const Var& x, const Var& dropped, const nn::Routing& routing) const;
  void parameters(const nn::ParameterVisit& visit);

  std::string name;
  int64_t experts;
  double scale;  // alpha / R
  Var a, b;      // [E*R, in]: expert e owns rows e*R to e*R+R; [out, E*R]: its columns
};

// Linears on one input, each with a bank, a bank and a router of its own, or neither. The dropout on the
// input and the product with all A sides that rows meet masked are computed once for all of them.
class LoraProjections : public nn::Projections {
 public:
  // Of one Linear.
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

// Dropout on the input named `input`: x [N,C], drawn at (ordinal, position) i32 [N] of each row; x itself
// where the pass does not train.
Var draw_dropout(const Var& x, const std::string& input, double probability, const Tensor& ordinal,
                 const Tensor& position, const nn::Pass& pass);

// Replaces the block's Linears that the method names by those with LoRA experts: of the attention, which have
// routers of their own, and of the FFN, which may share one.
void install_lora_on_attention(nn::DecoderBlock& block, Install& install);
void install_lora_on_ffn(nn::DecoderBlock& block, Install& install);

}  // namespace burrow::moe
