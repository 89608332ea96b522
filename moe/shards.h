#pragma once
// Experts that are blocks of a dense FFN (FactorLLM, arXiv 2408.11855, and its authors' code). The F inner
// channels are assigned to E blocks of F/E, and the router chooses K blocks per token:
//   y = (E/K) sum_e w_e down_e(silu(gate_e x) * up_e x)
// K = E equals the dense FFN. Only chosen blocks are computed, in training and in decoding.
#include "moe/install.h"

namespace burrow::moe {

// A permutation of an FFN's inner channels that puts the channels of each of E equal blocks side by side,
// ascending within a block. Blocks are contiguous, random, or clusters of the normalised rows of `gate`
// [F,C]. Depends on the arguments alone; E must divide F.
std::vector<int64_t> split_order(const Tensor& gate, int64_t experts, Split split, uint64_t key);

// Moves inner channel order[i] to index i (rows of gate and up, columns of down). The FFN's output is the
// same up to the order of summation.
void reorder(nn::FeedForward& ffn, const std::vector<int64_t>& order);

// Runs the dense model, with whole FFNs instead of blocks, on a batch without recording a graph, and stores
// its FFN inputs and labels in pass.dense_records for the Prior-Approximate loss.
void record_dense(const nn::Llava& model, const Tensor& ids, const Var& features, nn::Pass& pass);

// E Linears of one shape, the blocks, in one weight; each with a LoRA, or none of them.
struct BlockLinear {
  Var weight;        // [E*out, in]: block e owns rows e*out to e*out + out, contiguous
  Var a, b;          // [E*R, in], [E*out, R], or undefined
  double scale = 1;  // alpha / R
  // Applies block e to the rows of x that `groups` assigns to it. `own` has the same groups, for M rows that
  // are already sorted by expert. x [N,in] -> [M,out]
  Var operator()(const Var& x, const ExpertGroups& groups, const ExpertGroups& own) const;
};

// An FFN split into blocks that a router chooses from.
class ShardedFeedForward : public nn::FeedForward {
 public:
  // The channels of `dense` must be in block order. `keeps_dense` keeps it, frozen, for the Prior-Approximate
  // loss. Blocks are f64 if the weights of `dense` are, else f32.
  ShardedFeedForward(nn::FeedForward dense, Router router, const MethodConfig& config, uint64_t seed,
                     bool keeps_dense);
  Var operator()(const Var& x, nn::Pass& pass) const override;
  void parameters(const nn::ParameterVisit& visit) override;

 private:
  // Outputs of the chosen blocks, multiplied by alpha and `weights` if these are defined: [M,C]
  Var blocks(const Var& x, const ExpertGroups& groups, const Var& weights, double alpha) const;
  // [N,E]: 1 for the K blocks whose outputs are closest to K/E of `dense`, the dense FFN's output, else 0.
  Tensor closest(const Var& x, const Var& dense) const;

  Router router_;
  BlockLinear gate_, up_, down_;
  double factor_;  // multiplies the sum over chosen blocks, such as E/K
};

// Replaces the block's FFN by a ShardedFeedForward, after permuting its channels as method.shard.split
// requests.
void install_shards(nn::DecoderBlock& block, Install& install);

}  // namespace burrow::moe
