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

bool executes_grouped(const MethodConfig& c, int64_t experts, Device device) {
  const bool wide = c.expert == ExpertKind::ffn || c.expert == ExpertKind::shard;
  if (wide) return true;  // experts share no narrow side that a mask could act on
  if (c.execution != Execution::automatic) return c.execution == Execution::grouped;
  // On a GPU the library's products on all experts cost less than sorting, until they are wide.
  constexpr int64_t kNarrow = 256;
  if (device == Device::cuda && experts * c.rank <= kNarrow) return false;
  // Masked does E/K times the work. On the CPU, with 3 experts per chosen one grouped is faster in 57 of the
  // 60 sizes of docs/results/scaling.md and at worst takes 1.2 times as long; with 2 it depends on K and R.
  return c.router.selection == Selection::top_k && experts >= 3 * c.router.top_k;
}

// S = (1 - sum p^q) / (q - 1) and ln(sum p^q) / (1 - q) are a + b x and b ln x of x = sum p^q; at q = 1 both
// are -sum p ln p. Their greatest values, at p = 1/E: (1 - E^(1-q)) / (q - 1), and ln E.
Var entropy_of(const Var& probs, const EntropyConfig& c) {
  const Tensor& P = probs.value();
  const auto constant = [&](const Shape& shape, double x) {
    return Var(Tensor::full(shape, x, P.dtype(), P.device()));
  };
  const auto E = static_cast<double>(P.dim(1));
  const Var p = add(probs, constant(P.shape(), c.eps)), log_p = unary(p, Unary::log);
  const bool shannon = c.index == 1, tsallis = c.type == EntropyType::tsallis && !shannon;
  const double most = tsallis ? (1 - std::pow(E, 1 - c.index)) / (c.index - 1) : std::log(E);
  const double unit = c.normalise ? 1 / most : 1;
  if (shannon) return scale(sum_columns(mul(p, log_p)), -unit);
  const Var sum = sum_columns(unary(scale(log_p, c.index), Unary::exp));  // [N,1]
  if (!tsallis) return scale(unary(sum, Unary::log), unit / (1 - c.index));
  return scale(add(sum, constant(sum.shape(), -1)), unit / (1 - c.index));
}

void step(Tensor& y, const Tensor& x) {
  kernel::unary_backward(y, Tensor::full(x.shape(), 1, x.dtype(), x.device()), x, Unary::relu);
}

namespace {

// x [N,1] -> [N,E]
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
  // With the support S of k experts: t = (sum_S u - 1 + lambda) / k.
  const Var one_over_k = unary(sum_columns(Var(support)), Unary::reciprocal);
  const Var sum = add(add(sum_columns(gate(u, support, GateMode::scaled)), lambda), constant(-1));
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
  constexpr double kFirstBias = -2.5;  // the authors': every expert has a share at first
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
  visit(name + ".in.weight", w1);
  visit(name + ".in.bias", b1);
  visit(name + ".out.weight", w2);
  visit(name + ".out.bias", b2);
}

Router::Router(std::string name, int64_t layer, int64_t width, int64_t experts, const MethodConfig& method,
               DType dtype, uint64_t seed)
    : name(std::move(name)),
      layer_(layer),
      config_(method.router),
      entropy_(method.entropy),
      grouped_on_cpu_(executes_grouped(method, experts, Device::cpu)),
      grouped_on_cuda_(executes_grouped(method, experts, Device::cuda)) {
  config_.top_k = std::min(config_.top_k, experts);
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
  if (pass.cache && pass.cache->tensors.contains(key)) {  // decided when the prompt was read
    return gather_rows(Var(pass.cache->tensors[key]), pass.sequence);
  }
  const Var decided = f(group_mean(x, readable_rows(*pass.segments).to(x.value().device()), B));  // of [B,C]
  if (pass.cache) pass.cache->tensors[key] = decided.value();
  return gather_rows(decided, pass.sequence);
}

void Router::select(Routing& r, const Var& x, const nn::Pass& pass) const {
  const Tensor& P = r.probs.value();
  r.chosen = Tensor::empty(P.shape(), P.dtype(), P.device(), "routing");
  if (config_.selection == Selection::threshold) {
    const Var threshold = for_rows(x, pass, "threshold", [&](const Var& read) {
      const Var s = linear_to_sums(read, threshold_weight, threshold_bias);
      return scale(unary(unary(s, Unary::log_sigmoid), Unary::exp), -config_.threshold_max);
    });
    r.margin = add(r.probs, spread_columns(threshold, P.dim(1)));
    step(r.chosen, r.margin.value());
    r.weights = unary(r.margin, Unary::relu);
    return;
  }
  if (config_.selection == Selection::sparsegen) {
    step(r.chosen, P);
    r.weights = r.probs;
    return;
  }
  if (config_.selection == Selection::hybrid) {
    r.entropy = entropy_of(r.probs, entropy_);
    // Normalised entropies exceed 1 by rounding and by eps; a threshold of 1 says never.
    const bool never = entropy_.normalise && config_.entropy_threshold >= 1;
    kernel::hybrid_mask(r.chosen, P, r.entropy.value(), never ? HUGE_VAL : config_.entropy_threshold,
                        config_.top_p, config_.top_k, config_.keep_crossing);
  } else {
    const bool first = config_.selection == Selection::first;  // of equals
    kernel::top_k_mask(r.chosen, first ? Tensor::zeros(P.shape(), P.dtype(), P.device()) : P,
                       config_.selection == Selection::soft ? 1 : config_.top_k);
  }
  r.weights = config_.selection == Selection::soft ? r.probs : gate(r.probs, r.chosen, config_.gate);
}

Var Router::probs(const Var& x, const nn::Pass& pass) const {
  return for_rows(x, pass, "probs",
                  [&](const Var& read) { return softmax(linear_to_sums(read, weight, bias)); });
}

Routing Router::route(const Var& x, const nn::Pass& pass) const {
  Routing r{name, layer_, {}, {}, {}};
  if (config_.selection == Selection::sparsegen) {
    const Var u =
        for_rows(x, pass, "logits", [&](const Var& read) { return linear_to_sums(read, weight, bias); });
    r.lambda = for_rows(x, pass, "lambda", *lambda);
    r.logits = u.value();
    r.probs = sparsegen(u, r.lambda);
  } else {
    r.probs = probs(x, pass);
  }
  select(r, x, pass);
  if (config_.normalise) r.weights = normalise_rows(r.weights);
  const bool grouped = x.value().device() == Device::cpu ? grouped_on_cpu_ : grouped_on_cuda_;
  if (grouped) r.groups = group_by_expert(r.chosen, config_.top_k);
  return r;
}

void Router::parameters(const nn::ParameterVisit& visit) {
  visit(name + ".weight", weight);
  if (bias.defined()) visit(name + ".bias", bias);
  if (owns_lambda) lambda->parameters(visit);
  if (!threshold_weight.defined()) return;
  visit(name + ".threshold.weight", threshold_weight);
  visit(name + ".threshold.bias", threshold_bias);
}

}  // namespace burrow::moe
