#pragma once
// Experts on visual tokens, weighed by the language of the prompt (Parrot, arXiv 2406.02539, and its authors'
// code). One module between projector and decoder. Of an image with visual rows x [P,C], the first of which
// is its class token, and of the embeddings t [T,C] of its sample's prompt, answers excluded:
//   h = softmax(x_0 tᵀ / sqrt(C)) t,   p = softmax(W_g h)
//   y = sum_e p_e down_e(silu(gate_e x) * up_e x) + m x
// All rows of an image share its p. Batches have no padding, so the prompt of each sample is a segment of its
// own.
#include <optional>

#include "moe/install.h"

namespace burrow::moe {

class VisualExperts : public nn::VisualModule {
 public:
  // Weights are of `like`'s dtype (f64, else f32), and shapes alone where it has no memory. One expert has no
  // router. Each expert is drawn as a Linear of its size: uniform within 1/sqrt(in).
  VisualExperts(const nn::ModelConfig& sizes, const MethodConfig& method, const Tensor& like, uint64_t seed);
  // visual [I*P,C] -> [I*P,C]. The Routing of the I images goes to the pass. An image whose sample has no
  // prompt is an error.
  Var operator()(const Var& visual, const Var& table, const Tensor& ids, nn::Pass& pass) const override;
  void parameters(const nn::ParameterVisit& visit) override;
  int64_t experts() const { return experts_; }

  const std::string name = "visual_experts";
  // Expert e owns rows e*F to e*F + F of gate and up [E*F,C], and these columns of down [C,E*F].
  Var gate, up, down;
  std::optional<Router> router;

 private:
  struct Images;
  Images images_of(const Tensor& ids, const nn::Pass& pass, int64_t visual_rows) const;
  Var router_input(const Var& visual, const Var& table, const Images& images) const;  // [I,C]
  Var mixture(const Var& x, const Routing* routing, const Tensor& image) const;       // [I*P,C]

  int64_t tokens_, experts_;  // visual tokens of an image
  VisualConfig config_;
  bool grouped_;
  int64_t top_k_;
};

// Puts the module before the decoder.
void install_visual_experts(nn::Llava& model, Install& install);

}  // namespace burrow::moe
