#include "nn/layers.h"

namespace burrow::nn {

Linear::Linear(std::string name, int64_t in, int64_t out, bool bias, WeightSource& source, Init init,
               int64_t layers)
    : name(std::move(name)), weight(source.take(this->name + ".weight", {out, in}, init, layers)) {
  if (bias) this->bias = Var(source.take(this->name + ".bias", {out}, Init::zero));
}
void Linear::parameters(const ParameterVisit& visit, Role role) {
  visit({name + ".weight", role, &weight});
  if (bias.defined()) visit({name + ".bias", role, &bias});
}

std::vector<Var> Projections::operator()(const Var& x, const Routing*, Pass&) const {
  std::vector<Var> y;
  for (const Linear& linear : linears) y.push_back(linear(x));
  return y;
}
void Projections::parameters(const ParameterVisit& visit) {
  for (Linear& linear : linears) linear.parameters(visit);
}

RmsNorm::RmsNorm(std::string name, int64_t width, double eps, WeightSource& source)
    : name(std::move(name)), eps(eps), weight(source.take(this->name + ".weight", {width}, Init::one)) {}

Var RmsNorm::operator()(Residual& stream) const {
  if (!stream.branch.defined()) return rms_norm(stream.x, weight, eps);
  auto [sum, normed] = add_rms_norm(stream.x, stream.branch, weight, eps);
  stream = {sum, {}};
  return normed;
}

LayerNorm::LayerNorm(std::string name, int64_t width, double eps, WeightSource& source)
    : name(std::move(name)),
      eps(eps),
      weight(source.take(this->name + ".weight", {width}, Init::one)),
      bias(source.take(this->name + ".bias", {width}, Init::zero)) {}
void LayerNorm::parameters(const ParameterVisit& visit) {
  visit({name + ".weight", Role::tower, &weight});
  visit({name + ".bias", Role::tower, &bias});
}

Projections one_linear(Linear linear) {
  std::vector<Linear> linears;
  std::string input = linear.name + ".input";
  linears.push_back(std::move(linear));
  return {std::move(input), std::move(linears)};
}

FeedForward::FeedForward(std::string name, int64_t width, int64_t inner, int64_t layers, WeightSource& source)
    : name(std::move(name)) {
  std::vector<Linear> both;
  both.emplace_back(this->name + ".gate_proj", width, inner, false, source);
  both.emplace_back(this->name + ".up_proj", width, inner, false, source);
  gate_up = std::make_unique<Projections>(this->name + ".input", std::move(both));
  down = std::make_unique<Projections>(
      one_linear({this->name + ".down_proj", inner, width, false, source, Init::residual, layers}));
  const int64_t E = source.ffn_experts();
  if (E == 0) return;
  router_weight = Var(source.take(this->name + ".router.weight", {E, width}, Init::linear));
  router_bias = Var(source.take(this->name + ".router.bias", {E}, Init::zero));
}
void FeedForward::parameters(const ParameterVisit& visit) {
  gate_up->parameters(visit);
  down->parameters(visit);
}

}  // namespace burrow::nn
