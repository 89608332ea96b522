#include "moe/router.h"

#include <cmath>

#include "tensor/rng.h"

namespace burrow::moe {

Tensor uniform_tensor(const std::string& name, const Shape& shape, double bound, uint64_t seed, DType dtype) {
  Tensor t = Tensor::empty(shape, DType::f64, Device::cpu, "weights");
  Random random(random_key(seed, 0, name));
  for (double& value : std::span(t.data<double>(), static_cast<size_t>(t.numel())))
    value = bound * (2 * random.unit() - 1);
  return t.to(dtype);
}

namespace {

// The group of each row is its sequence where the row is part of what the router may read, else -1: the
// visual tokens of a sample, or without an image its prompt up to the first answer. What follows an answer
// has attended to it, so it is not read either.
Tensor readable_rows(const Segments& s) {
  const auto B = static_cast<size_t>(s.count());
  std::vector<bool> has_image(B, false), answered(B, false);
  for (size_t n = 0; n < s.kind.size(); ++n) {
    if (s.kind[n] == TokenKind::visual) has_image[static_cast<size_t>(s.sequence[n])] = true;
  }
  std::vector<int32_t> group;
  for (size_t n = 0; n < s.kind.size(); ++n) {
    const auto b = static_cast<size_t>(s.sequence[n]);
    answered[b] = answered[b] || s.kind[n] == TokenKind::answer;
    const TokenKind read = has_image[b] ? TokenKind::visual : TokenKind::prompt;
    group.push_back(s.kind[n] == read && !answered[b] ? s.sequence[n] : -1);
  }
  return Tensor::of({s.rows()}, group);
}

}  // namespace

Router::Router(std::string name, int64_t layer, int64_t width, int64_t experts, const RouterConfig& config,
               DType dtype, uint64_t seed, bool grouped)
    : name(std::move(name)), layer_(layer), config_(config), grouped_(grouped) {
  const double bound = 1 / std::sqrt(static_cast<double>(width));
  Tensor w = uniform_tensor(this->name + ".weight", {experts, width}, bound, seed, DType::f64);
  if (config.init_std > 0) {
    Random random(random_key(seed, 0, this->name + ".weight"));
    for (double& value : std::span(w.data<double>(), static_cast<size_t>(w.numel())))
      value = config.init_std * random.normal();
  }
  weight = Var(w.to(dtype));
  if (config.bias) bias = Var(uniform_tensor(this->name + ".bias", {experts}, bound, seed, dtype));
}

Var Router::probabilities(const Var& x, const nn::Pass& pass) const {
  if (config_.granularity == Granularity::token) return softmax(linear(x, weight, bias));
  const int64_t B = pass.segments->count();
  const std::string key = name + ".probs";
  if (pass.cache && pass.cache->tensors.contains(key)) {  // decided when the prompt was read
    return gather_rows(Var(pass.cache->tensors[key]), pass.sequence);
  }
  const Var read = group_mean(x, readable_rows(*pass.segments), B);  // [B,C]
  const Var probs = softmax(linear(read, weight, bias));
  if (pass.cache) pass.cache->tensors[key] = probs.value();
  return gather_rows(probs, pass.sequence);
}

Routing Router::route(const Var& x, const nn::Pass& pass) const {
  Routing r{name, layer_, probabilities(x, pass), {}, {}, {}};
  const Tensor& P = r.probs.value();
  const bool soft = config_.selection == Selection::soft;
  r.chosen = Tensor::empty(P.shape(), P.dtype(), P.device(), "routing");
  kernel::top_k_mask(r.chosen, P, soft ? 1 : config_.top_k);
  r.weights = soft ? r.probs : gate(r.probs, r.chosen, config_.gate);
  if (grouped_) r.groups = group_by_expert(r.chosen, config_.top_k);
  return r;
}

void Router::parameters(const nn::ParameterVisit& visit) {
  visit(name + ".weight", weight);
  if (bias.defined()) visit(name + ".bias", bias);
}

}  // namespace burrow::moe
