#pragma once
// The parts that models are made of. A module is its parameters and a call; `parameters` visits them by
// name. Linear and FeedForward are virtual because moe/ replaces them by adapted ones.
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "autograd/ops.h"
#include "nn/weights.h"
#include "tensor/segments.h"

namespace burrow::nn {

using ParameterVisit = std::function<void(const std::string& name, Var& parameter)>;

// Keys and values of the tokens seen so far, for decoding. Sequence b owns slots [b*capacity,
// (b+1)*capacity) of every layer; a slot not yet filled has a position beyond any query, so causal
// attention does not see it.
struct KvCache {
  KvCache(int64_t sequences, int64_t capacity);
  int64_t sequences, capacity;
  std::vector<int32_t> length;  // [B] tokens held
  Tensor positions;             // i32 [B*capacity], on the host, where decoding counts
  Tensor offsets;               // i32 [B+1], too
  std::map<std::string, Tensor>
      tensors;  // by layer: keys and values [B*capacity, C], and what a router must remember
};

// What blocks give in a pass beside their stream, in order: records of Vars that losses of the batch read.
class SideOutputs {
 public:
  virtual ~SideOutputs() = default;
  virtual size_t count() const = 0;
  // The defined Vars of the records from `first` on, to be read or replaced, in an order that the blocks fix.
  virtual std::vector<Var*> vars_from(size_t first) = 0;
  virtual void drop_from(size_t first) = 0;
};

// So many blocks of a decoder, from the first, keep their input alone and are computed again in the backward.
// Without `side` none is.
struct Recomputation {
  int64_t layers = 0;
  SideOutputs* side = nullptr;  // where all blocks put what they give; it outlives the backward
};

// What one forward pass knows about its rows: where sequences begin, what each token is, and whether
// dropout is drawn. Made once a batch and handed down.
struct Pass {
  // Its tensors on the device of the model.
  explicit Pass(const Segments& segments, Device device = Device::cpu);

  const Segments* segments;
  Tensor position, ordinal, sequence;  // i32 [N]
  AttentionRanges ranges;
  bool training = false;
  Recomputation recomputation;  // where it trains; the Segments then outlive the backward
  uint64_t seed = 0, step = 0;
  KvCache* cache = nullptr;
  Tensor cache_slots;  // i32 [N] where the rows of this pass go in the cache
};

// y = x Wᵀ + b. moe/ derives Linears that add LoRA experts.
class Linear {
 public:
  Linear(std::string name, int64_t in, int64_t out, bool bias, WeightSource& source, Init init = Init::linear,
         int64_t layers = 1);
  Linear(Linear&&) = default;
  virtual ~Linear() = default;
  virtual Var operator()(const Var& x, const Pass&) const {
    return linear(x, weight, bias);
  }  // [N,in] -> [N,out]
  virtual void parameters(const ParameterVisit& visit);

  int64_t in() const { return weight.dim(1); }
  int64_t out() const { return weight.dim(0); }

  std::string name;
  Var weight, bias;  // [out, in], [out] or undefined
};

// A residual stream between two parts of a decoder, x + branch: the norm that reads it takes the sum.
struct Residual {
  Var x, branch;  // [N,C]; no branch: 0
};

// x rstd w over the channels, without a mean (Zhang and Sennrich 2019).
struct RmsNorm {
  RmsNorm(std::string name, int64_t width, double eps, WeightSource& source);
  Var operator()(Residual& stream) const;  // -> [N,C]; the stream is then the sum and no branch
  void parameters(const ParameterVisit& visit) { visit(name + ".weight", weight); }
  std::string name;
  double eps;
  Var weight;
};

// (x - mean) rstd w + b over the channels (Ba et al. 2016).
struct LayerNorm {
  LayerNorm(std::string name, int64_t width, double eps, WeightSource& source);
  Var operator()(const Var& x) const { return layer_norm(x, weight, bias, eps); }
  void parameters(const ParameterVisit& visit);
  std::string name;
  double eps;
  Var weight, bias;
};

// LLaMA's FFN: down(silu(gate x) * up x).
class FeedForward {
 public:
  FeedForward(std::string name, int64_t width, int64_t inner, int64_t layers, WeightSource& source);
  FeedForward(FeedForward&&) = default;
  virtual ~FeedForward() = default;
  virtual Var operator()(const Var& x, const Pass& pass) const;  // [N,C] -> [N,C]
  virtual void parameters(const ParameterVisit& visit);

  std::string name;
  std::unique_ptr<Linear> gate, up, down;
  Var router_weight, router_bias;  // [E,C], [E] of a file that `burrow factorize` wrote; moe/ reads them
};

}  // namespace burrow::nn
