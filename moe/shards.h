#pragma once
// Experts that are blocks of a dense FFN (FactorLLM, arXiv 2408.11855, and its authors' code). The F inner
// channels are dealt to E blocks of F/E, and a token passes through the K that its router chooses:
//   y = (E/K) sum_e w_e down_e(silu(gate_e x) * up_e x)
// With K = E that is the dense FFN. Only what was chosen is computed, in training as in decoding.
#include "moe/router.h"

namespace burrow::moe {

// The inner channels of the FFN whose gate is `gate` [F,C] in the order of their E blocks of equal size,
// ascending within a block: as they are, permuted at random, or by clusters of equal size of gate's rows,
// normalised. A function of the arguments alone; E divides F.
std::vector<int64_t> split_order(const Tensor& gate, int64_t experts, Split split, uint64_t key);

// Moves inner channel order[i] to place i: rows of gate and up, columns of down. The FFN then sums in another
// order, and no weight changes.
void reorder(nn::FeedForward& ffn, const std::vector<int64_t>& order);

// Whether the dense model runs beside the mixture: each ShardedFeedForward then computes its dense FFN, and
// keeps what that read and which of its own blocks come closest to it.
struct Teacher {
  bool running = false;
};

// E Linears of one shape side by side, with a LoRA each or none.
struct BlockLinear {
  Var weight;        // [E*out, in]: block e owns rows e*out to e*out + out, contiguous
  Var a, b;          // [E*R, in], [E*out, R], or undefined
  double scale = 1;  // alpha / R
  // Block e's on the rows at e's places; `own` has the same experts on rows of their own. x [N,in] -> [M,out]
  Var operator()(const Var& x, const ExpertGroups& groups, const ExpertGroups& own) const;
};

// An FFN of blocks behind a router.
class ShardedFeedForward : public nn::FeedForward {
 public:
  using Gathered = std::shared_ptr<std::vector<Routing>>;
  // `dense` has its channels in the order of the blocks; it is kept where there is a teacher. Blocks are f64
  // where its weights are, else f32.
  ShardedFeedForward(nn::FeedForward dense, Router router, const MethodConfig& config, uint64_t seed,
                     std::shared_ptr<Teacher> teacher, Gathered gathered);
  Var operator()(const Var& x, const nn::Pass& pass) const override;
  void parameters(const nn::ParameterVisit& visit) override;

 private:
  struct Tap {
    Tensor input, label;  // [N,C] what the dense FFN read; [N,E] the closest blocks
  };
  // What each chosen block makes of its rows, times alpha and their weights where these are given: [M,C]
  Var blocks(const Var& x, const ExpertGroups& groups, const Var& weights, double alpha) const;
  Tensor closest(const Var& x,
                 const Var& dense) const;  // the label of x, of which `dense` is the dense output

  Router router_;
  BlockLinear gate_, up_, down_;
  double factor_;  // of the sum over the chosen
  std::shared_ptr<Teacher> teacher_;
  std::shared_ptr<Tap> tap_ = std::make_shared<Tap>();
  Gathered gathered_;
};

}  // namespace burrow::moe
