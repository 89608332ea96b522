#include "moe/shards.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include "tensor/rng.h"

namespace burrow::moe {
namespace {

// Copies w [O,E*I] to [E*O,I]: each block's I columns become a contiguous matrix [O,I].
Tensor column_blocks(const Tensor& w, int64_t E) {
  const int64_t O = w.dim(0), I = w.dim(1) / E;
  if (!w.bytes()) return nn::shapes_only(w.dtype())->take("", {E * O, I}, nn::Init::linear);
  Tensor blocks = Tensor::empty({E * O, I}, w.dtype(), Device::cpu, "weights");
  const size_t run = static_cast<size_t>(I) * size_of(w.dtype());
  for (int64_t e = 0; e < E; ++e) {
    for (int64_t o = 0; o < O; ++o)
      std::memcpy(blocks.bytes() + static_cast<size_t>(e * O + o) * run,
                  w.bytes() + static_cast<size_t>(o * E + e) * run, run);
  }
  return blocks;
}

BlockLinear block_linear(const std::string& name, const Tensor& weight, int64_t E, const MethodConfig& c,
                         uint64_t seed) {
  const int64_t out = weight.dim(0) / E, in = weight.dim(1);
  BlockLinear linear{Var(weight), {}, {}, c.alpha / static_cast<double>(c.rank)};
  if (c.shard.train != BlockTraining::lora) return linear;
  BURROW_CHECK(c.rank <= std::min(in, out), "method.rank = {}: exceeds a block of '{}' of shape ({}, {})",
               c.rank, name, out, in);
  const bool planned = !weight.bytes();
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  linear.a = initial(name + ".lora_A.weight", {E * c.rank, in}, bound, seed, weight.dtype(), planned);
  linear.b = initial(name + ".lora_B.weight", {E * out, c.rank}, 0, seed, weight.dtype(), planned);
  return linear;
}

}  // namespace

Var BlockLinear::operator()(const Var& x, const ExpertGroups& groups, const ExpertGroups& own) const {
  Var y = grouped_linear(x, weight, groups);
  if (!a.defined()) return y;
  const Var h = burrow::scale(grouped_linear(x, a, groups), scale);
  return add(y, grouped_linear(h, b, own));
}

void record_dense(const nn::Llava& model, const Tensor& ids, const Var& features, nn::Pass& pass) {
  const NoGrad no_grad;
  nn::Pass teacher = pass.without_routings();
  teacher.dense = true;
  teacher.recompute_layers = 0;  // there is no backward to recompute for
  model.hidden(ids, features, teacher);
  pass.dense_records = std::move(teacher.dense_records);
}

ShardedFeedForward::ShardedFeedForward(nn::FeedForward dense, Router router, const MethodConfig& c,
                                       uint64_t seed, bool keeps_dense)
    : nn::FeedForward(std::move(dense)), router_(std::move(router)) {
  const int64_t E = router_.experts(), K = router_.top_k();
  const auto blocks_of = [&](nn::Linear& linear, bool columns) {
    const Tensor& w = linear.weight.value();
    const DType dtype = trained_dtype(w);
    const Tensor computed =
        w.bytes() ? w.to(dtype) : nn::shapes_only(dtype)->take("", w.shape(), nn::Init::linear);
    const std::string part = linear.name.substr(name.size());
    return block_linear(name + ".experts" + part, columns ? column_blocks(computed, E) : computed, E, c,
                        seed);
  };
  gate_ = blocks_of(gate_proj(), false);
  up_ = blocks_of(up_proj(), false);
  down_ = blocks_of(down_proj(), true);
  const double all = static_cast<double>(E) / (c.router.normalise ? 1 : static_cast<double>(K));
  factor_ = c.shard.rescale ? all : 1;
  if (keeps_dense) return;
  gate_up.reset();
  down.reset();
}

Var ShardedFeedForward::blocks(const Var& x, const ExpertGroups& groups, const Var& weights,
                               double alpha) const {
  const ExpertGroups own = own_places(groups);
  const Var g = gate_(x, groups, own), u = up_(x, groups, own);
  const Var h = swiglu(g, u);
  return down_(weights.defined() ? grouped_scale(h, weights, groups, alpha) : h, own, own);
}

// Selects the k blocks with the smallest mean_c (S_e - T k/E)^2, S_e a block's output and T the dense FFN's.
Tensor ShardedFeedForward::closest(const Var& x, const Var& dense) const {
  const int64_t N = x.dim(0), C = x.dim(1), E = router_.experts(), K = router_.top_k();
  const Var share = scale(dense, -static_cast<double>(K) / static_cast<double>(E));
  const DType dtype = x.value().dtype();
  const Device device = x.value().device();
  std::vector<int32_t> rows(static_cast<size_t>(N)),
      offsets(static_cast<size_t>(E) + 1, static_cast<int32_t>(N));
  std::iota(rows.begin(), rows.end(), 0);
  Tensor scores = Tensor::zeros({N, E}, dtype, device);
  for (int64_t e = 0; e < E; ++e) {  // block e computes all rows
    offsets[static_cast<size_t>(e)] = 0;
    const ExpertGroups all{Tensor::of({N}, rows).to(device), Tensor::of({E + 1}, offsets).to(device)};
    const Var off = add(blocks(x, all, {}, 1), share);
    std::vector<double> column(static_cast<size_t>(E), 0);
    column[static_cast<size_t>(e)] = -1 / static_cast<double>(C);
    kernel::matmul_nn(scores, sum_columns(mul(off, off)).value(),
                      Tensor::of({1, E}, column).to(dtype).to(device), true);
  }
  Tensor label = Tensor::empty({N, E}, dtype, device, "routing");
  kernel::top_k_mask(label, scores, K);
  return label;
}

Var ShardedFeedForward::operator()(const Var& x, nn::Pass& pass) const {
  if (pass.dense) {
    Var y = forward(x, nullptr, pass);
    pass.dense_records[name] = {x.value(), closest(x, y)};
    return y;
  }
  Routing r = router_.route(x, pass);
  if (const auto record = pass.dense_records.find(name); record != pass.dense_records.end()) {
    r.prior = router_.probs(Var(record->second.input), pass);
    r.label = record->second.label;
  }
  pass.routings.push_back(r);
  return scatter_rows(blocks(x, r.groups, r.weights, factor_), r.groups.order, x.dim(0));
}

void ShardedFeedForward::parameters(const nn::ParameterVisit& visit) {
  for (auto [part, linear] : {std::pair{"gate_proj", &gate_}, {"up_proj", &up_}, {"down_proj", &down_}}) {
    const std::string site = name + ".experts." + part;
    visit({site + ".weight", nn::Role::block, &linear->weight});
    if (!linear->a.defined()) continue;
    visit({site + ".lora_A.weight", nn::Role::adapter_a, &linear->a});
    visit({site + ".lora_B.weight", nn::Role::adapter_b, &linear->b});
  }
  router_.parameters(visit);
  if (!gate_up) return;
  for (nn::Linear* dense : {&gate_proj(), &up_proj(), &down_proj()})
    dense->parameters(visit, nn::Role::teacher);
}

void install_shards(nn::DecoderBlock& block, Install& install) {
  const MethodConfig& c = install.method;
  nn::FeedForward& ffn = *block.ffn;
  const Tensor& gate = ffn.gate_proj().weight.value();
  const int64_t F = gate.dim(0), E = install.experts;
  const bool cut = ffn.router_weight.defined(), as_it_is = c.shard.split == Split::contiguous;
  BURROW_CHECK(F % E == 0, "[attach] method.experts = {}: must divide the {} inner channels of '{}'", E, F,
               ffn.name);
  BURROW_CHECK(!cut || ffn.router_weight.dim(0) == E,
               "[attach] '{}' was split into {} blocks by `burrow factorize`, but method.experts = {}",
               ffn.name, ffn.router_weight.dim(0), E);
  BURROW_CHECK(!cut || as_it_is,
               "[attach] method.shard.split: '{}' is already permuted (burrow factorize): set 'contiguous'",
               ffn.name);
  // No file would store the permutation of channels to which the trained LoRAs belong.
  BURROW_CHECK(
      as_it_is || c.shard.train == BlockTraining::full,
      "[attach] method.shard.train = 'lora' needs split 'contiguous', or a file of `burrow factorize`");
  if (!as_it_is && gate.bytes())
    reorder(ffn, split_order(gate, E, c.shard.split, random_key(install.seed, 0, ffn.name + ".split")));
  Router router = install.router(ffn.name, ffn.gate_proj().weight.value(), E);
  if (cut) {
    router.weight = Var(ffn.router_weight.value().to(router.weight.value().dtype()));
    if (c.router.bias) router.bias = Var(ffn.router_bias.value().to(router.bias.value().dtype()));
  }
  auto sharded = std::make_unique<ShardedFeedForward>(std::move(ffn), std::move(router), c, install.seed,
                                                      c.prior.weight > 0);
  int64_t parameters = 0;
  sharded->parameters([&](const nn::Parameter& p) {
    if (p.role != nn::Role::router && is_trained(c, p.role)) parameters += p.var->value().numel();
  });
  install.inventory.add_blocks(E, F / E, parameters);
  block.ffn = std::move(sharded);
}

}  // namespace burrow::moe
