#include "moe/lora.h"

#include <algorithm>
#include <cmath>

#include "tensor/rng.h"

namespace burrow::moe {

LoraBank::LoraBank(const nn::Linear& base, int64_t experts, const MethodConfig& c, uint64_t seed)
    : name(base.name), experts(experts), scale(c.alpha / static_cast<double>(c.rank)) {
  BURROW_CHECK(c.rank <= std::min(base.in(), base.out()), "method.rank = {}: larger than '{}' of shape {}",
               c.rank, name, base.weight.shape());
  const DType dtype = trained_dtype(base.weight.value());
  const double bound = 1 / std::sqrt(static_cast<double>(base.in()));
  const bool planned = !base.weight.value().bytes();  // a model of shapes without memory
  a = initial(name + ".lora_A.weight", {experts * c.rank, base.in()}, bound, seed, dtype, planned);
  b = initial(name + ".lora_B.weight", {base.out(), experts * c.rank}, 0, seed, dtype, planned);
}

Var LoraBank::masked(const nn::Linear& base, const Var& x, const Var& narrow,
                     const nn::Routing* routing) const {
  const Var h = routing ? scale_experts(narrow, routing->weights, scale) : burrow::scale(narrow, scale);
  return linear_with_lora(x, base.weight, base.bias, h, b);
}

Var LoraBank::grouped(const nn::Linear& base, const Var& x, const Var& dropped,
                      const nn::Routing& routing) const {
  const ExpertGroups& groups = routing.groups;
  const Var h = grouped_linear(dropped, a, groups);  // [N*K, R]
  return linear_with_grouped_lora(x, base.weight, base.bias, grouped_scale(h, routing.weights, groups, scale),
                                  b, groups);
}

void LoraBank::parameters(const nn::ParameterVisit& visit) {
  visit({name + ".lora_A.weight", nn::Role::adapter_a, &a});
  visit({name + ".lora_B.weight", nn::Role::adapter_b, &b});
}

LoraBank counted_bank(const nn::Linear& base, int64_t experts, Install& install) {
  LoraBank bank(base, experts, install.method, install.seed);
  install.inventory.add_bank(last_part(base.name), experts, bank.a.value().numel() + bank.b.value().numel());
  return bank;
}

Var draw_dropout(const Var& x, const std::string& input, double probability, const Tensor& ordinal,
                 const Tensor& position, const nn::Pass& pass) {
  if (!pass.training || probability == 0) return x;
  return dropout(x, ordinal, position, random_key(pass.seed, pass.step, input), probability);
}

LoraProjections::LoraProjections(nn::Projections base, std::vector<Adapter> adapters, double dropout)
    : nn::Projections(std::move(base)), adapters(std::move(adapters)), dropout_(dropout) {}

std::vector<Var> LoraProjections::operator()(const Var& x, const nn::Routing* shared, nn::Pass& pass) const {
  // routing[i] weights the experts of Linear i: from its own router, from the shared one, or null (plain
  // LoRA).
  const size_t count = linears.size();
  std::vector<nn::Routing> own(count);
  std::vector<const nn::Routing*> routing(count, nullptr);
  for (size_t i = 0; i < count; ++i) {
    if (const auto& router = adapters[i].router) {
      own[i] = router->route(x, pass);
      pass.routings.push_back(own[i]);
      routing[i] = &own[i];
    } else if (adapters[i].bank && adapters[i].bank->experts > 1) {
      routing[i] = shared;
    }
  }
  const Var dropped = draw_dropout(x, input, dropout_, pass.ordinal, pass.position, pass);
  const auto masked = [&](size_t i) { return adapters[i].bank && !(routing[i] && routing[i]->grouped()); };
  std::vector<Var> sides;  // A of all banks computed masked, stacked for one product
  for (size_t i = 0; i < count; ++i) {
    if (masked(i)) sides.push_back(adapters[i].bank->a);
  }
  const Var narrow =
      sides.empty() ? Var{} : linear(dropped, sides.size() == 1 ? sides[0] : concat_rows(sides));
  std::vector<Var> y;
  int64_t column = 0;  // the first column of the next masked bank in `narrow`
  for (size_t i = 0; i < count; ++i) {
    const auto& bank = adapters[i].bank;
    if (!bank) {
      y.push_back(linears[i](x));
    } else if (!masked(i)) {
      y.push_back(bank->grouped(linears[i], x, dropped, *routing[i]));
    } else {
      const int64_t width = bank->a.dim(0);
      y.push_back(bank->masked(linears[i], x, sides.size() == 1 ? narrow : columns(narrow, column, width),
                               routing[i]));
      column += width;
    }
  }
  return y;
}

void LoraProjections::parameters(const nn::ParameterVisit& visit) {
  for (size_t i = 0; i < linears.size(); ++i) {
    linears[i].parameters(visit);
    if (adapters[i].bank) adapters[i].bank->parameters(visit);
    if (adapters[i].router) adapters[i].router->parameters(visit);
  }
}

namespace {

// An FFN whose Linears share one router, which decides once from the FFN's input.
class RoutedFeedForward : public nn::FeedForward {
 public:
  RoutedFeedForward(nn::FeedForward base, Router router)
      : nn::FeedForward(std::move(base)), router_(std::move(router)) {}

  Var operator()(const Var& x, nn::Pass& pass) const override {
    const nn::Routing routing = router_.route(x, pass);
    pass.routings.push_back(routing);
    return forward(x, &routing, pass);
  }
  void parameters(const nn::ParameterVisit& visit) override {
    nn::FeedForward::parameters(visit);
    router_.parameters(visit);
  }

 private:
  Router router_;
};

bool contains(const std::vector<std::string>& patterns, const std::string& name) {
  return std::find(patterns.begin(), patterns.end(), name) != patterns.end();
}

// Adds LoRA banks to the Linears that the method targets, and with `routers` a router to each Linear with
// experts. Returns whether any Linear has experts that need a shared router.
bool adapt(std::unique_ptr<nn::Projections>& projections, bool routers, Install& install) {
  const MethodConfig& c = install.method;
  std::vector<LoraProjections::Adapter> adapters(projections->linears.size());
  bool adapted = false, shares = false;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const nn::Linear& linear = projections->linears[i];
    const std::string last = last_part(linear.name);
    const bool expert = contains(c.expert_targets, last), plain = contains(c.lora_targets, last);
    BURROW_CHECK(!(expert && plain),
                 "[attach] '{}' is both in method.expert_targets and in method.lora_targets", last);
    if (!expert && !plain) continue;
    const LoraBank& bank =
        adapters[i].bank.emplace(counted_bank(linear, plain ? 1 : install.experts, install));
    adapted = true;
    if (bank.experts == 1) continue;
    if (routers)
      adapters[i].router.emplace(install.router(linear.name, linear.weight.value(), bank.experts));
    else
      shares = true;
  }
  if (adapted)
    projections = std::make_unique<LoraProjections>(std::move(*projections), std::move(adapters), c.dropout);
  return shares;
}

}  // namespace

void install_lora_on_attention(nn::DecoderBlock& block, Install& install) {
  adapt(block.qkv, true, install);
  adapt(block.o, true, install);
}

void install_lora_on_ffn(nn::DecoderBlock& block, Install& install) {
  nn::FeedForward& ffn = *block.ffn;
  const bool own = install.method.router.placement == RouterPlacement::linear;
  const bool gate_up = adapt(ffn.gate_up, own, install), down = adapt(ffn.down, own, install);
  if (!gate_up && !down) return;
  Router router = install.router(ffn.name, ffn.gate_proj().weight.value(), install.experts);
  block.ffn = std::make_unique<RoutedFeedForward>(std::move(ffn), std::move(router));
}

}  // namespace burrow::moe
