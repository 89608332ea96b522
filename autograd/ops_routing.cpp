#include "autograd/ops.h"

namespace burrow {

Var softmax(const Var& x) {
  const Tensor& X = x.value();
  BURROW_CHECK(X.rank() == 2, "[softmax] x {} is not a matrix", X.shape());
  Tensor y = Tensor::empty(X.shape(), X.dtype(), X.device(), "softmax");
  kernel::softmax(y, X);
  return record("softmax", y, {x}, [y](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0);
    kernel::softmax_backward(dx, dy, y);
    g.add(0, dx);
  });
}

namespace {

RouteTensors route_outputs(const Tensor& logits, const RouteRule& rule, const RouteGroups& groups) {
  const int64_t N = logits.dim(0), E = logits.dim(1), G = groups.count, means = groups.one_mean ? 1 : G;
  const auto make = [&](bool wanted, const Shape& shape) {
    return wanted ? Tensor::empty(shape, logits.dtype(), logits.device(), "routing") : Tensor{};
  };
  const bool summed = groups.of.defined();
  return {.probs = make(true, {N, E}),
          .chosen = make(true, {N, E}),
          .weights = make(true, {N, E}),
          .entropy = make(rule.has_entropy(), {N, 1}),
          .mean_probs = make(summed, {means, E}),
          .mean_weights = make(summed, {means, E}),
          .mean_chosen = make(summed, {means, E}),
          .mean_rows = make(summed, {means}),
          .sums = make(summed, {G, E + 3})};
}

}  // namespace

Routed route(const Var& logits, const RouteRule& rule, const RouteGroups& groups) {
  const Tensor& Z = logits.value();
  BURROW_CHECK(Z.rank() == 2, "[route] logits {} are not a matrix", Z.shape());
  RouteTensors out = route_outputs(Z, rule, groups);
  kernel::route(out, Z, groups.of, rule);
  Routed r{.chosen = out.chosen, .mean_chosen = out.mean_chosen, .sums = out.sums};
  // For each output with a gradient: its value, its field in RouteTensors, and its Var in the result.
  std::vector<Tensor> values;
  std::vector<Tensor RouteTensors::*> fields;
  std::vector<Var*> vars;
  const auto give = [&](Var& var, Tensor RouteTensors::*field, bool learns) {
    if (!(out.*field).defined()) return;
    if (!learns) {
      var = Var(out.*field);
      return;
    }
    values.push_back(out.*field);
    fields.push_back(field);
    vars.push_back(&var);
  };
  give(r.probs, &RouteTensors::probs, true);
  give(r.entropy, &RouteTensors::entropy, true);
  give(r.mean_probs, &RouteTensors::mean_probs, true);
  give(r.weights, &RouteTensors::weights, rule.weights_learn());
  give(r.mean_weights, &RouteTensors::mean_weights, rule.weights_learn());
  const auto backward = [out, fields, rule, of = groups.of](std::span<const Tensor> dy, Grads& g) {
    RouteTensors dout;
    for (size_t i = 0; i < fields.size(); ++i) dout.*fields[i] = dy[i];
    Tensor dlogits = g.like(0);
    kernel::route_backward(dlogits, dout, out, of, rule);
    g.add(0, dlogits);
  };
  const std::vector<Var> recorded = record("route", std::move(values), {logits}, backward);
  for (size_t i = 0; i < recorded.size(); ++i) *vars[i] = recorded[i];
  return r;
}

Var scale_experts(const Var& h, const Var& weights, double alpha) {
  const Tensor &H = h.value(), &W = weights.value();
  BURROW_CHECK(
      H.rank() == 2 && W.rank() == 2 && H.dim(0) == W.dim(0) && W.dim(1) > 0 && H.dim(1) % W.dim(1) == 0,
      "[scale_experts] h {} and weights {} do not match", H.shape(), W.shape());
  Tensor y = Tensor::empty(H.shape(), H.dtype(), H.device(), "scale_experts");
  kernel::scale_experts(y, H, W, alpha);
  const Tensor kept_h = weights.needs_grad() ? H : Tensor{};
  return record("scale_experts", y, {h, weights}, [kept_h, W, alpha](const Tensor& dy, Grads& g) {
    Tensor dh = g.like(0), dweights = g.like(1);
    kernel::scale_experts_backward(dh, dweights, dy, kept_h, W, alpha);
    g.add(0, dh);
    g.add(1, dweights);
  });
}

Var sum_columns(const Var& x) {
  const Tensor& X = x.value();
  BURROW_CHECK(X.rank() == 2, "[sum_columns] x {} is not a matrix", X.shape());
  return linear(x, Var(Tensor::full({1, X.dim(1)}, 1, X.dtype(), X.device())));
}

Var normalise_rows(const Var& x) {
  return scale_experts(x, unary(sum_columns(x), Unary::reciprocal), 1);  // each row times 1 / its sum
}

}  // namespace burrow
