#pragma once
// One forward pass: what it knows about its rows, and what its routers decided. Passed down to every module
// as an argument, so that no module keeps anything between calls.
#include <map>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "tensor/segments.h"

namespace burrow::nn {

// What one router decided for N rows: those of the pass, or where `rows` is defined what these stand for.
// Routers are in moe/; the experts and the auxiliary losses read this.
struct Routing {
  std::string site;   // the router's name
  int64_t layer = 0;  // of the decoder
  Var probs;          // [N,E] softmax of the router's logits
  Var weights;        // [N,E] what the experts are multiplied by; zero where unselected
  Tensor chosen;      // [N,E] 1 where an expert was selected (soft routing: at the most probable), else 0
  ExpertGroups groups = {};  // of `chosen`; undefined where the experts are to be masked
  Var entropy = {};          // [N,1] of probs, where the selection or its loss wants it
  // Sums over each sequence [B,E+3] where the selection is one of route()'s (autograd/ops.h), but not while
  // decoding; and the means that the balance loss reads, of each sequence [B,E] or of all rows [1,E].
  Tensor sums = {}, mean_chosen = {};
  Var mean_probs = {}, mean_weights = {};
  Var lambda = {};     // [N,1] of sparsegen, and the logits that it was applied to:
  Tensor logits = {};  // [N,E]
  Var margin = {};     // [N,E] probs less a learned threshold; a balance loss then reads this
  Var prior = {};      // [N,E] the router's probs on the input of the dense model's FFN, and
  Tensor label = {};   // [N,E] 1 for the blocks closest to that FFN's output, else 0 (moe/shards.h)
  Tensor rows = {};  // i32 [N] rows of the pass: where each image begins that a router of images decided for

  bool grouped() const { return groups.order.defined(); }
};
// The defined Vars of a Routing, in a fixed order: what a loss may read, so what a recomputed block hands on.
std::vector<Var*> vars_of(Routing& routing);

// Keys and values of the tokens seen so far, for decoding. Sequence b owns slots [b*capacity,
// (b+1)*capacity) of every layer; a slot not yet filled has a position beyond any query, so causal
// attention does not see it.
struct KvCache {
  KvCache(int64_t sequences, int64_t capacity);
  int64_t sequences, capacity;
  std::vector<int32_t> length;  // [B] tokens held
  Tensor positions;             // i32 [B*capacity], on the host, where decoding counts
  Tensor offsets;               // i32 [B+1], on the host too
  // By name: a layer's keys and values [B*capacity, C], and what a router decided for a whole sample.
  std::map<std::string, Tensor> tensors;
};

// What the dense model did at one FFN, from which a router of its blocks learns (moe/shards.h).
struct DenseRecord {
  Tensor input, label;  // [N,C] the FFN's input; [N,E] 1 for the blocks closest to its output, else 0
};

struct Pass {
  // Tensors on the device of the model. `segments` must outlive the pass, and its backward where layers are
  // recomputed.
  explicit Pass(const Segments& segments, Device device = Device::cpu);
  // The same pass before any router decided.
  Pass without_routings() const;

  const Segments* segments;
  Tensor position, ordinal, sequence;  // i32 [N]
  AttentionRanges ranges;
  bool training = false;         // dropout is drawn, and layers are recomputed
  int64_t recompute_layers = 0;  // so many blocks, from the first, keep their input alone for the backward
  uint64_t seed = 0, step = 0;   // of dropout
  KvCache* cache = nullptr;
  Tensor cache_slots;  // i32 [N] where the rows of this pass go in the cache
  // FFNs that are cut into blocks run as the dense FFN instead, and record what it did, by the FFN's name.
  bool dense = false;
  std::map<std::string, DenseRecord> dense_records;
  std::vector<Routing> routings;  // of all routers, in the order in which they decided
};

}  // namespace burrow::nn
