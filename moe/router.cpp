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

// i32 [N]: the row's sequence if a router that decides per sample may read the row, else -1. It may read a
// sample's visual tokens, or without an image its prompt up to the first answer. Later rows are excluded
// because they have attended to an answer.
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

bool executes_grouped(const MethodConfig& c, int64_t experts, Device device) {
  const bool wide = c.expert == ExpertKind::ffn || c.expert == ExpertKind::shard;
  if (wide) return true;  // whole FFNs have no narrow product that a mask could act on
  if (c.execution != Execution::automatic) return c.execution == Execution::grouped;
  // On a GPU, masked GEMMs cost less than sorting rows until E*R exceeds this width.
  constexpr int64_t kNarrow = 256;
  if (device == Device::cuda && experts * c.rank <= kNarrow) return false;
  // Masked execution does E/K times the work. On the CPU with E = 3 K, grouped is faster for 57 of the 60
  // sizes of docs/results/scaling.md and takes at most 1.2 times as long; with E = 2 K it depends on K and R.
  return c.router.selection == Selection::top_k && experts >= 3 * c.router.top_k;
}

EntropyRule entropy_rule(const EntropyConfig& c, int64_t experts) {
  const auto E = static_cast<double>(experts);
  const bool tsallis = c.type == EntropyType::tsallis && c.index != 1;
  // The maximum of the entropy, reached at p = 1/E: (1 - E^(1-q)) / (q - 1), or ln E.
  const double most = tsallis ? (1 - std::pow(E, 1 - c.index)) / (c.index - 1) : std::log(E);
  return {c.index, c.eps, c.normalise ? 1 / most : 1, c.type == EntropyType::renyi};
}

// With x = sum p^q, the Tsallis entropy is (1 - x) / (q - 1) and the Renyi entropy ln(x) / (1 - q); at q = 1
// both are -sum p ln p.
Var entropy_of(const Var& probs, const EntropyConfig& config) {
  const Tensor& P = probs.value();
  const auto constant = [&](const Shape& shape, double x) {
    return Var(Tensor::full(shape, x, P.dtype(), P.device()));
  };
  const EntropyRule rule = entropy_rule(config, P.dim(1));
  const Var p = add(probs, constant(P.shape(), rule.eps)), log_p = unary(p, Unary::log);
  if (rule.index == 1) return scale(sum_columns(mul(p, log_p)), -rule.unit);
  const Var sum = sum_columns(unary(scale(log_p, rule.index), Unary::exp));  // [N,1]
  if (rule.renyi) return scale(unary(sum, Unary::log), rule.unit / (1 - rule.index));
  return scale(add(sum, constant(sum.shape(), -1)), rule.unit / (1 - rule.index));
}

Tensor at_rows(const Routing& r, const Tensor& x) {
  if (!r.rows.defined()) return x;
  const int64_t M = r.rows.numel();
  Tensor y = Tensor::empty({M, 1}, DType::i32, x.device(), "routing");
  kernel::gather_rows(y, x.reshape({x.numel(), 1}), r.rows);
  return y.reshape({M});
}

namespace {

// Repeats the column E times: x [N,1] -> [N,E]
Var spread_columns(const Var& x, int64_t E) {
  return linear(x, Var(Tensor::full({E, 1}, 1, x.value().dtype(), x.value().device())));
}

}  // namespace

Var sparsegen(const Var& u, const Var& lambda) {
  const Tensor &U = u.value(), &L = lambda.value();
  const auto constant = [&](double x) { return Var(Tensor::full(L.shape(), x, L.dtype(), L.device())); };
  const int64_t E = U.dim(1);
  Tensor support = Tensor::empty(U.shape(), U.dtype(), U.device(), "routing");
  kernel::sparsegen_mask(support, U, L);
  // The threshold is t = (sum_S u - 1 + lambda) / k for a support S of k experts.
  const Var one_over_k = unary(sum_columns(Var(support)), Unary::reciprocal);
  const Var sum = add(add(sum_columns(mul(u, Var(support))), lambda), constant(-1));
  const Var above = add(u, spread_columns(scale(mul(sum, one_over_k), -1), E));
  const Var one_over_rest = unary(add(constant(1), scale(lambda, -1)), Unary::reciprocal);
  return scale_experts(unary(above, Unary::relu), one_over_rest, 1);
}

LambdaNetwork::LambdaNetwork(int64_t width, int64_t hidden, DType dtype, uint64_t seed)
    : name(fmt::format("language_model.router.lambda_{}", width)) {
  const auto drawn = [&](const char* part, const Shape& shape) {
    const double bound = 1 / std::sqrt(static_cast<double>(shape[1]));
    return Var(uniform_tensor(name + part, shape, bound, seed, dtype));
  };
  constexpr double kFirstBias = -2.5;  // as in the authors' code: initially every expert has non-zero weight
  w1 = drawn(".in.weight", {hidden, width});
  b1 = Var(Tensor::full({hidden}, kFirstBias, dtype));
  w2 = drawn(".out.weight", {1, hidden});
  b2 = Var(Tensor::full({1}, kFirstBias, dtype));
}
Var LambdaNetwork::operator()(const Var& x) const {
  const Var y = unary(linear(unary(linear_to_sums(x, w1, b1), Unary::relu), w2, b2), Unary::log_sigmoid);
  return add(y, Var(Tensor::full(y.shape(), 0.99, y.value().dtype(), y.value().device())));
}
void LambdaNetwork::parameters(const nn::ParameterVisit& visit) {
  visit({name + ".in.weight", nn::Role::router, &w1});
  visit({name + ".in.bias", nn::Role::router, &b1});
  visit({name + ".out.weight", nn::Role::router, &w2});
  visit({name + ".out.bias", nn::Role::router, &b2});
}

namespace {

// The rule for route() (autograd/ops.h); unused by the selections threshold and sparsegen.
RouteRule route_rule(const RouterConfig& c, const EntropyConfig& entropy, int64_t experts) {
  RouteRule rule;
  const bool hybrid = c.selection == Selection::hybrid, soft = c.selection == Selection::soft;
  rule.choice = hybrid                            ? RouteRule::Choice::hybrid
                : c.selection == Selection::first ? RouteRule::Choice::first
                                                  : RouteRule::Choice::top_k;
  rule.k = soft ? 1 : c.top_k;
  // A threshold of 1 means never, but rounding and eps can make a normalised entropy exceed 1.
  const bool never = entropy.normalise && c.entropy_threshold >= 1;
  rule.entropy_threshold = never ? HUGE_VAL : c.entropy_threshold;
  rule.top_p = c.top_p;
  rule.crossing = c.keep_crossing;
  rule.entropy = entropy_rule(entropy, experts);
  rule.wants_entropy = entropy.weight != 0 && experts > 1;
  rule.soft = soft;
  rule.gate = c.gate;
  rule.normalise = c.normalise;
  return rule;
}

}  // namespace

Router::Router(std::string name, int64_t layer, int64_t width, int64_t experts, const MethodConfig& method,
               DType dtype, uint64_t seed)
    : name(std::move(name)),
      layer_(layer),
      config_(method.router),
      one_mean_(method.balance.scope == BalanceScope::batch),
      grouped_on_cpu_(executes_grouped(method, experts, Device::cpu)),
      grouped_on_cuda_(executes_grouped(method, experts, Device::cuda)) {
  config_.top_k = std::min(config_.top_k, experts);
  rule_ = route_rule(config_, method.entropy, experts);
  const double bound = 1 / std::sqrt(static_cast<double>(width));
  Tensor w = uniform_tensor(this->name + ".weight", {experts, width}, bound, seed, DType::f64);
  if (config_.init_std > 0) {
    Random random(random_key(seed, 0, this->name + ".weight"));
    for (double& value : std::span(w.data<double>(), static_cast<size_t>(w.numel())))
      value = config_.init_std * random.normal();
  }
  weight = Var(w.to(dtype));
  if (config_.selection == Selection::threshold) {
    if (config_.threshold_max == 0) config_.threshold_max = 1 / static_cast<double>(experts);
    const std::string site = this->name + ".threshold";
    threshold_weight = Var(uniform_tensor(site + ".weight", {1, width}, bound, seed, dtype));
    threshold_bias = Var(uniform_tensor(site + ".bias", {1}, bound, seed, dtype));
  }
  if (config_.bias) bias = Var(uniform_tensor(this->name + ".bias", {experts}, bound, seed, dtype));
}

Var Router::for_rows(const Var& x, const nn::Pass& pass, const char* what,
                     const std::function<Var(const Var&)>& f) const {
  if (config_.granularity == Granularity::token) return f(x);
  const int64_t B = pass.segments->count();
  const std::string key = name + "." + what;
  if (pass.cache && pass.cache->tensors.contains(key)) {  // computed in the pass over the prompt
    return gather_rows(Var(pass.cache->tensors[key]), pass.sequence);
  }
  const Var decided = f(group_mean(x, readable_rows(*pass.segments).to(x.value().device()), B));
  if (pass.cache) pass.cache->tensors[key] = decided.value();
  return gather_rows(decided, pass.sequence);
}

namespace {

// 1 where x > 0, else 0.
Tensor positive(const Tensor& x) {
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device(), "routing");
  kernel::unary_backward(y, Tensor::full(x.shape(), 1, x.dtype(), x.device()), x, Unary::relu);
  return y;
}

}  // namespace

void Router::select_by_threshold(Routing& r, const Var& x, const nn::Pass& pass) const {
  r.probs = probs(x, pass);
  const Var threshold = for_rows(x, pass, "threshold", [&](const Var& read) {
    const Var s = linear_to_sums(read, threshold_weight, threshold_bias);
    return scale(unary(unary(s, Unary::log_sigmoid), Unary::exp), -config_.threshold_max);
  });
  r.margin = add(r.probs, spread_columns(threshold, r.probs.dim(1)));
  r.weights = unary(r.margin, Unary::relu);
  r.chosen = positive(r.margin.value());
}

void Router::select_by_sparsegen(Routing& r, const Var& x, const nn::Pass& pass) const {
  const Var u = logits(x, pass);
  r.lambda = for_rows(x, pass, "lambda", *lambda);
  r.logits = u.value();
  r.probs = r.weights = sparsegen(u, r.lambda);
  r.chosen = positive(r.probs.value());
}

Var Router::logits(const Var& x, const nn::Pass& pass) const {
  return for_rows(x, pass, "logits", [&](const Var& read) { return linear_to_sums(read, weight, bias); });
}
Var Router::probs(const Var& x, const nn::Pass& pass) const { return softmax(logits(x, pass)); }

Routing Router::route(const Var& x, const nn::Pass& pass, const Tensor& rows) const {
  Routing r{name, layer_, {}, {}, {}};
  r.rows = rows;
  RouteGroups sequences{{}, pass.segments->count(), one_mean_};
  if (!pass.cache) sequences.of = at_rows(r, pass.sequence);  // decoding needs no sums
  const bool threshold = config_.selection == Selection::threshold;
  if (threshold || config_.selection == Selection::sparsegen) {
    if (threshold)
      select_by_threshold(r, x, pass);
    else
      select_by_sparsegen(r, x, pass);
    if (config_.normalise) r.weights = normalise_rows(r.weights);
    if (sequences.of.defined()) {
      const Tensor& P = r.probs.value();
      r.sums = Tensor::empty({sequences.count, P.dim(1) + 3}, P.dtype(), P.device(), "routing");
      kernel::route_sums(r.sums, P, r.chosen, r.weights.value(), sequences.of);
    }
  } else {
    Routed routed = burrow::route(logits(x, pass), rule_, sequences);
    r.probs = routed.probs;
    r.weights = routed.weights;
    r.chosen = routed.chosen;
    r.entropy = routed.entropy;
    r.sums = routed.sums;
    r.mean_chosen = routed.mean_chosen;
    r.mean_probs = routed.mean_probs;
    r.mean_weights = routed.mean_weights;
  }
  const bool grouped = x.value().device() == Device::cpu ? grouped_on_cpu_ : grouped_on_cuda_;
  if (grouped) r.groups = group_by_expert(r.chosen, config_.top_k);
  return r;
}

void Router::parameters(const nn::ParameterVisit& visit) {
  visit({name + ".weight", nn::Role::router, &weight});
  if (bias.defined()) visit({name + ".bias", nn::Role::router, &bias});
  if (owns_lambda) lambda->parameters(visit);
  if (!threshold_weight.defined()) return;
  visit({name + ".threshold.weight", nn::Role::router, &threshold_weight});
  visit({name + ".threshold.bias", nn::Role::router, &threshold_bias});
}

}  // namespace burrow::moe
