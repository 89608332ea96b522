#include "moe/shards.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include "tensor/rng.h"

namespace burrow::moe {
namespace {

DType compute_dtype(const Tensor& weight) { return weight.dtype() == DType::f64 ? DType::f64 : DType::f32; }

// w [O,E*I] as [E*O,I]: the columns of a block as rows, contiguous.
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
  BURROW_CHECK(c.rank <= std::min(in, out), "method.rank = {}: larger than a block of '{}', {} by {}", c.rank,
               name, out, in);
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  linear.a = Var(uniform_tensor(name + ".lora_A.weight", {E * c.rank, in}, bound, seed, weight.dtype()));
  linear.b = Var(Tensor::zeros({E * out, c.rank}, weight.dtype()));
  return linear;
}

}  // namespace

Var BlockLinear::operator()(const Var& x, const ExpertGroups& groups, const ExpertGroups& own) const {
  Var y = grouped_linear(x, weight, groups);
  if (!a.defined()) return y;
  const Var h = burrow::scale(grouped_linear(x, a, groups), scale);
  return add(y, grouped_linear(h, b, own));
}

ShardedFeedForward::ShardedFeedForward(nn::FeedForward dense, Router router, const MethodConfig& c,
                                       uint64_t seed, std::shared_ptr<Teacher> teacher, Gathered gathered)
    : nn::FeedForward(std::move(dense)),
      router_(std::move(router)),
      teacher_(std::move(teacher)),
      gathered_(std::move(gathered)) {
  const int64_t E = router_.experts(), K = router_.top_k();
  const auto blocks_of = [&](nn::Linear& linear, bool columns) {
    const Tensor& w = linear.weight.value();
    const DType dtype = compute_dtype(w);
    const Tensor computed =
        w.bytes() ? w.to(dtype) : nn::shapes_only(dtype)->take("", w.shape(), nn::Init::linear);
    const std::string part = linear.name.substr(name.size());
    return block_linear(name + ".experts" + part, columns ? column_blocks(computed, E) : computed, E, c,
                        seed);
  };
  gate_ = blocks_of(*gate, false);
  up_ = blocks_of(*up, false);
  down_ = blocks_of(*down, true);
  const double all = static_cast<double>(E) / (c.router.normalise ? 1 : static_cast<double>(K));
  factor_ = c.shard.rescale ? all : 1;
  for (std::unique_ptr<nn::Linear>* linear : {&gate, &up, &down}) {
    if (!teacher_) linear->reset();  // nobody asks for the dense output
  }
}

Var ShardedFeedForward::blocks(const Var& x, const ExpertGroups& groups, const Var& weights,
                               double alpha) const {
  const ExpertGroups own = own_places(groups);
  const Var g = gate_(x, groups, own), u = up_(x, groups, own);
  const Var h = swiglu(g, u);
  return down_(weights.defined() ? grouped_scale(h, weights, groups, alpha) : h, own, own);
}

// The k blocks of the least mean_c (S_e - T / (E/k))^2, S_e their outputs and T the dense one.
Tensor ShardedFeedForward::closest(const Var& x, const Var& dense) const {
  const int64_t N = x.dim(0), C = x.dim(1), E = router_.experts(), K = router_.top_k();
  const Var share = scale(dense, -static_cast<double>(K) / static_cast<double>(E));
  const DType dtype = x.value().dtype();
  const Device device = x.value().device();
  std::vector<int32_t> rows(static_cast<size_t>(N)),
      offsets(static_cast<size_t>(E) + 1, static_cast<int32_t>(N));
  std::iota(rows.begin(), rows.end(), 0);
  Tensor scores = Tensor::zeros({N, E}, dtype, device);
  for (int64_t e = 0; e < E; ++e) {  // all rows at this block alone
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

Var ShardedFeedForward::operator()(const Var& x, const nn::Pass& pass) const {
  if (teacher_ && teacher_->running) {
    // The dense FFN is none of the model's parameters: nobody moved it to the model's device.
    for (nn::Linear* dense : {gate.get(), up.get(), down.get()})
      dense->weight = Var(dense->weight.value().to(x.value().device()));
    Var y = nn::FeedForward::operator()(x, pass);
    *tap_ = {x.value(), closest(x, y)};
    return y;
  }
  Routing r = router_.route(x, pass);
  if (tap_->input.defined()) {
    r.prior = router_.probs(Var(tap_->input), pass);
    r.label = tap_->label;
    if (!runs_again()) *tap_ = {};
  }
  gathered_->push_back(r);
  return scatter_rows(blocks(x, r.groups, r.weights, factor_), r.groups.order, x.dim(0));
}

void ShardedFeedForward::parameters(const nn::ParameterVisit& visit) {
  for (auto [part, linear] : {std::pair{"gate_proj", &gate_}, {"up_proj", &up_}, {"down_proj", &down_}}) {
    const std::string site = name + ".experts." + part;
    visit(site + ".weight", linear->weight);
    if (!linear->a.defined()) continue;
    visit(site + ".lora_A.weight", linear->a);
    visit(site + ".lora_B.weight", linear->b);
  }
  router_.parameters(visit);
}

}  // namespace burrow::moe
