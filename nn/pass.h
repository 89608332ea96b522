#pragma once
// The state of one forward pass: its rows and the routers' decisions. It is an argument of every module, so
// that modules keep no state between calls.
#include <map>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "tensor/segments.h"

namespace burrow::nn {

// One router's decisions for N inputs: the rows of the pass, or with `rows` the images that begin there.
// Routers (moe/router.h) write it; experts and auxiliary losses read it.
struct Routing {
  std::string site;          // the router's name
  int64_t layer = 0;         // index of the decoder layer
  Var probs;                 // [N,E] softmax of the router's logits
  Var weights;               // [N,E] factors of the experts' outputs; 0 for experts that were not selected
  Tensor chosen;             // [N,E] 1 for selected experts (soft routing: for the most probable one), else 0
  ExpertGroups groups = {};  // rows sorted by expert, from `chosen`; undefined if experts are computed masked
  Var entropy = {};          // [N,1] entropy of probs, if the selection or its loss needs it
  // Statistics [B,E+3] summed over each sequence (kernel route_sums), undefined in decoding; and the means
  // that the balance loss reads, per sequence [B,E] or over all rows [1,E].
  Tensor sums = {}, mean_chosen = {};
  Var mean_probs = {}, mean_weights = {};
  Var lambda = {};     // [N,1] sparsegen's lambda
  Tensor logits = {};  // [N,E] sparsegen's logits
  Var margin = {};     // [N,E] probs minus a learned threshold, which the balance loss reads instead of probs
  Var prior = {};      // [N,E] the router's probs on the input of the dense model's FFN
  Tensor label = {};   // [N,E] 1 for the K blocks closest to K/E of the dense FFN's output, else 0
  Tensor rows = {};    // i32 [N] for a router that decides per image: the row at which each image begins

  bool grouped() const { return groups.order.defined(); }
};
// The defined Vars of a Routing in a fixed order. Losses may read them, so a recomputed block outputs them.
std::vector<Var*> vars_of(Routing& routing);

// Keys and values of earlier tokens, for decoding. Sequence b has slots [b*capacity, (b+1)*capacity) of every
// layer. An unused slot has a position greater than any query's, so that causal attention ignores it.
struct KvCache {
  KvCache(int64_t sequences, int64_t capacity);
  int64_t sequences, capacity;
  std::vector<int32_t> length;  // [B] tokens held
  Tensor positions;             // i32 [B*capacity], on the host, where decoding counts
  Tensor offsets;               // i32 [B+1], on the host too
  // Keys and values of each layer, [B*capacity, C], and results of routers that decide per sample, by name.
  std::map<std::string, Tensor> tensors;
};

// The input and labels of one FFN of the dense model, from which the blocks' router learns (moe/shards.h).
struct DenseRecord {
  Tensor input,
      label;  // [N,C] the FFN's input; [N,E] 1 for the K blocks closest to K/E of its output, else 0
};

struct Pass {
  // `device` must be the model's. `segments` must outlive the pass, and its backward if layers are
  // recomputed.
  explicit Pass(const Segments& segments, Device device = Device::cpu);
  // A copy of the pass without routings.
  Pass without_routings() const;

  const Segments* segments;
  Tensor position, ordinal, sequence;  // i32 [N]
  AttentionRanges ranges;
  bool training = false;         // enables dropout and recompute_layers
  int64_t recompute_layers = 0;  // number of first blocks that keep only their input for the backward pass
  uint64_t seed = 0, step = 0;   // of the dropout's random keys
  KvCache* cache = nullptr;
  Tensor cache_slots;  // i32 [N] cache slot of each row
  // dense: an FFN split into blocks runs as the dense FFN and stores its record under its name.
  bool dense = false;
  std::map<std::string, DenseRecord> dense_records;
  std::vector<Routing> routings;  // in the order in which the routers ran
};

}  // namespace burrow::nn
