#pragma once
// LoRA experts on a frozen Linear: y = W x + (alpha/R) sum_e w_e B_e A_e x, with E = 1 and no router for
// plain LoRA. The experts' sides lie next to each other. Masked, E experts are one GEMM per side with the
// routing as a mask in between. Grouped, rows are sorted by expert and meet only the experts that they chose.
// Neither reads a count back; both agree with a loop over experts.
#include <memory>

#include "moe/router.h"

namespace burrow::moe {

// Where the Linears that share a decision find it during a pass.
struct RoutingSlot {
  Routing routing;
};

class LoraExperts;

// What the experts of Linears that read one input (q, k and v; gate and up) compute once for all of them in a
// pass: the dropout drawn on it, and the product with all their A sides that rows meet masked. The first of
// them to ask has it computed; when all have asked it is forgotten.
class SharedInput {
 public:
  // Makes these share what they read. They must stay where they are.
  static void among(const std::vector<LoraExperts*>& readers);
  // x with dropout [N,C].
  Var dropped(const LoraExperts& reader, const Var& x, const Tensor& ordinal, const Tensor& position,
              const nn::Pass& pass);
  // The reader's A on that [N,E*R].
  Var narrow(const LoraExperts& reader, const Var& x, const nn::Pass& pass);

 private:
  struct Reader {
    const LoraExperts* experts;
    bool asked = false;
  };
  void ask(const LoraExperts& reader, const Var& x, const nn::Pass& pass);
  void forget_when_done();
  std::vector<Reader> readers_;
  const nn::Pass* pass_ = nullptr;
  Var x_, dropped_, narrow_;  // [N,C], [N,C], [N, sum of E*R]
};

// The E experts of one Linear side by side: two parameters, whatever E is.
class LoraExperts {
 public:
  // A is uniform within 1/sqrt(in) (Kaiming with a = sqrt 5), B zero; each expert drawn by itself.
  LoraExperts(const std::string& name, const nn::Linear& base, int64_t experts, const MethodConfig& config,
              uint64_t seed);
  // Adds the experts' deltas to the frozen Linear's output; grouped where the routing has groups. No routing:
  // plain LoRA.
  Var apply(const nn::Linear& base, const Var& x, const Routing* routing, const nn::Pass& pass) const;
  // (alpha/R) A_e x at each place of `groups`, dropout drawn for the rows of x. x [N,in] -> [M,R]
  Var narrow(const Var& x, const ExpertGroups& groups, const Tensor& ordinal, const Tensor& position,
             const nn::Pass& pass) const;
  void parameters(const nn::ParameterVisit& visit);
  int64_t experts() const { return experts_; }
  int64_t rank() const { return a.dim(0) / experts_; }
  // Whether rows meet all experts, and the routing is a mask.
  bool masked(Device device) const { return experts_ == 1 || !executes_grouped(config_, experts_, device); }

  Var a, b;  // [E*R, in]: expert e owns rows e*R to e*R+R; [out, E*R]: its columns

 private:
  friend class SharedInput;
  Var draw_dropout(const Var& x, const Tensor& ordinal, const Tensor& position, const nn::Pass& pass) const;
  Var dropped(const Var& x, const Tensor& ordinal, const Tensor& position, const nn::Pass& pass) const;
  std::string name_, input_site_;
  int64_t experts_;
  MethodConfig config_;
  double scale_;
  std::shared_ptr<SharedInput> shared_;  // null: nobody else reads the input
};

// A Linear with LoRA experts. Which router it obeys is what its slot says: the slot's owner decides.
class AdaptedLinear : public nn::Linear {
 public:
  AdaptedLinear(nn::Linear base, LoraExperts experts, std::shared_ptr<RoutingSlot> slot)
      : nn::Linear(std::move(base)), experts(std::move(experts)), slot_(std::move(slot)) {}
  Var operator()(const Var& x, const nn::Pass& pass) const override {
    return experts.apply(*this, x, slot_ ? &slot_->routing : nullptr, pass);
  }
  void parameters(const nn::ParameterVisit& visit) override;
  LoraExperts experts;

 private:
  std::shared_ptr<RoutingSlot> slot_;
};

// A mixture of whole FFNs that share their frozen weights (MixLoRA, arXiv 2404.15159, section 3):
//   y = W_down sum_i w_i h_i + (alpha/R) sum_i w_i B_i A_i h_i,  h_i = silu(gate_i x) * up_i x
// over the chosen experts i, whose gate and up are the frozen ones and a LoRA. The frozen products are
// computed once for all experts; an expert's LoRAs and activations only on the rows that chose it.
class MixedFeedForward : public nn::FeedForward {
 public:
  using Gathered = std::shared_ptr<std::vector<Routing>>;
  MixedFeedForward(nn::FeedForward base, LoraExperts gate, LoraExperts up, LoraExperts down, Router router,
                   Gathered gathered);
  Var operator()(const Var& x, const nn::Pass& pass) const override;
  void parameters(const nn::ParameterVisit& visit) override;

 private:
  LoraExperts gate_lora_, up_lora_, down_lora_;
  Router router_;
  Gathered gathered_;
};

}  // namespace burrow::moe
