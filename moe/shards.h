#pragma once
// Experts that are blocks of a dense FFN (FactorLLM, arXiv 2408.11855, and its authors' code). The F inner
// channels are dealt to E blocks of F/E, and a token passes through the K that its router chooses:
//   y = (E/K) sum_e w_e down_e(silu(gate_e x) * up_e x)
// With K = E that is the dense FFN. Only what was chosen is computed, in training as in decoding.
#include "moe/install.h"

namespace burrow::moe {

// The inner channels of the FFN whose gate is `gate` [F,C] in the order of their E blocks of equal size,
// ascending within a block: as they are, permuted at random, or by clusters of equal size of gate's rows,
// normalised. A function of the arguments alone; E divides F.
std::vector<int64_t> split_order(const Tensor& gate, int64_t experts, Split split, uint64_t key);

// Moves inner channel order[i] to place i: rows of gate and up, columns of down. The FFN then sums in another
// order, and no weight changes.
void reorder(nn::FeedForward& ffn, const std::vector<int64_t>& order);

// Runs the model on a batch as the dense model that its FFNs' blocks were cut from, without a graph, and
// leaves in `pass` what it did: the Prior-Approximate loss of the pass then knows it.
void record_dense(const nn::Llava& model, const Tensor& ids, const Var& features, nn::Pass& pass);

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
  // `dense` has its channels in the order of the blocks; it is kept, frozen, where `keeps_dense` says that a
  // loss reads it. Blocks are f64 where its weights are, else f32.
  ShardedFeedForward(nn::FeedForward dense, Router router, const MethodConfig& config, uint64_t seed,
                     bool keeps_dense);
  Var operator()(const Var& x, nn::Pass& pass) const override;
  void parameters(const nn::ParameterVisit& visit) override;

 private:
  // What each chosen block makes of its rows, times alpha and their weights where these are given: [M,C]
  Var blocks(const Var& x, const ExpertGroups& groups, const Var& weights, double alpha) const;
  // The blocks of each row of x that come closest to `dense`, the dense FFN's output: 1, else 0 [N,E]
  Tensor closest(const Var& x, const Var& dense) const;

  Router router_;
  BlockLinear gate_, up_, down_;
  double factor_;  // of the sum over the chosen
};

// Assigns the FFN's channels to blocks, unless its file has them assigned, and lets a router choose among
// these.
void install_shards(nn::DecoderBlock& block, Install& install);

}  // namespace burrow::moe
