#include "nn/layers.h"

#include <cmath>
#include <limits>

namespace burrow::nn {

KvCache::KvCache(int64_t sequences, int64_t capacity)
    : sequences(sequences), capacity(capacity), length(static_cast<size_t>(sequences), 0) {
  positions = Tensor::full({sequences * capacity}, std::numeric_limits<int32_t>::max(), DType::i32);
  std::vector<int32_t> at;
  for (int64_t b = 0; b <= sequences; ++b) at.push_back(static_cast<int32_t>(b * capacity));
  offsets = Tensor::of({sequences + 1}, at);
}

Pass::Pass(const Segments& s, Device device) : segments(&s) {
  const int64_t N = s.rows();
  std::vector<int32_t> row_ordinal(static_cast<size_t>(N));
  for (size_t n = 0; n < row_ordinal.size(); ++n) {
    row_ordinal[n] = static_cast<int32_t>(s.ordinal[static_cast<size_t>(s.sequence[n])]);
  }
  position = Tensor::of({N}, s.position).to(device);
  sequence = Tensor::of({N}, s.sequence).to(device);
  ordinal = Tensor::of({N}, row_ordinal).to(device);
  const Tensor offsets = Tensor::of({s.count() + 1}, s.offsets).to(device);
  ranges = {offsets, offsets, position, position, known_ranges(s.offsets, s.offsets, s.position, s.position)};
}

Linear::Linear(std::string name, int64_t in, int64_t out, bool bias, WeightSource& source, Init init,
               int64_t layers)
    : name(std::move(name)), weight(source.take(this->name + ".weight", {out, in}, init, layers)) {
  if (bias) this->bias = Var(source.take(this->name + ".bias", {out}, Init::zero));
}
void Linear::parameters(const ParameterVisit& visit) {
  visit(name + ".weight", weight);
  if (bias.defined()) visit(name + ".bias", bias);
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
  visit(name + ".weight", weight);
  visit(name + ".bias", bias);
}

FeedForward::FeedForward(std::string name, int64_t width, int64_t inner, int64_t layers, WeightSource& source)
    : name(std::move(name)),
      gate(std::make_unique<Linear>(this->name + ".gate_proj", width, inner, false, source)),
      up(std::make_unique<Linear>(this->name + ".up_proj", width, inner, false, source)),
      down(std::make_unique<Linear>(this->name + ".down_proj", inner, width, false, source, Init::residual,
                                    layers)) {
  const int64_t E = source.ffn_experts();
  if (E == 0) return;
  router_weight = Var(source.take(this->name + ".router.weight", {E, width}, Init::linear));
  router_bias = Var(source.take(this->name + ".router.bias", {E}, Init::zero));
}
Var FeedForward::operator()(const Var& x, const Pass& pass) const {
  const Var g = (*gate)(x, pass), u = (*up)(x, pass);  // in this order, also of their routers
  return (*down)(swiglu(g, u), pass);
}
void FeedForward::parameters(const ParameterVisit& visit) {
  gate->parameters(visit);
  up->parameters(visit);
  down->parameters(visit);
}

}  // namespace burrow::nn
