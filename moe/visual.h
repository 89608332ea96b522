#pragma once
// Experts on visual tokens, weighted by the prompt (Parrot, arXiv 2406.02539, and its authors' code), as one
// module between projector and decoder:
//   h = softmax(x_0 tᵀ / sqrt(C)) t,   p = softmax(W_g h)
//   y = sum_e p_e down_e(silu(gate_e x) * up_e x) + m x
// x [P,C] are the visual rows of an image, x_0 its class token, and t [T,C] the embeddings of its sample's
// prompt without answers. All rows of an image have the same p.
#include <optional>

#include "moe/install.h"

namespace burrow::moe {

class VisualExperts : public nn::VisualModule {
 public:
  // Weights are f64 if `like` is, else f32, and without memory if `like` has none. There is no router for one
  // expert. Initial weights are uniform within 1/sqrt(in).
  VisualExperts(const nn::ModelConfig& sizes, const MethodConfig& method, const Tensor& like, uint64_t seed);
  // visual [I*P,C] -> [I*P,C]; appends the Routing of the I images to pass.routings. Throws for an image
  // whose sample has no prompt if the router reads prompts.
  Var operator()(const Var& visual, const Var& table, const Tensor& ids, nn::Pass& pass) const override;
  void parameters(const nn::ParameterVisit& visit) override;
  int64_t experts() const { return experts_; }

  const std::string name = "visual_experts";
  // Expert e has rows e*F to e*F + F of gate and up [E*F,C], and these columns of down [C,E*F].
  Var gate, up, down;
  std::optional<Router> router;

 private:
  struct Images;
  Images images_of(const Tensor& ids, const nn::Pass& pass, int64_t visual_rows) const;
  Var router_input(const Var& visual, const Var& table, const Images& images) const;  // [I,C]
  Var mixture(const Var& x, const Routing* routing, const Tensor& image) const;       // [I*P,C]

  int64_t tokens_, experts_;  // visual tokens per image; E
  VisualConfig config_;
  bool grouped_;
  int64_t top_k_;
};

// Adds VisualExperts to the model, between projector and decoder.
void install_visual_experts(nn::Llava& model, Install& install);

}  // namespace burrow::moe
