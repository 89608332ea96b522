#include "moe/mixed.h"

namespace burrow::moe {

MixedFeedForward::MixedFeedForward(nn::FeedForward base, LoraBank gate, LoraBank up, LoraBank down,
                                   Router router, double dropout)
    : nn::FeedForward(std::move(base)),
      gate_lora_(std::move(gate)),
      up_lora_(std::move(up)),
      down_lora_(std::move(down)),
      router_(std::move(router)),
      dropout_(dropout) {}

Var MixedFeedForward::operator()(const Var& x, nn::Pass& pass) const {
  const nn::Routing r = router_.route(x, pass);
  pass.routings.push_back(r);
  const ExpertGroups& groups = r.groups;
  const Var dropped = draw_dropout(x, gate_up->input, dropout_, pass.ordinal, pass.position, pass);
  const auto narrow = [](const Var& input, const LoraBank& lora, const ExpertGroups& rows) {
    return scale(grouped_linear(input, lora.a, rows), lora.scale);  // [M,R]
  };
  const auto spread = [&](const nn::Linear& base, const LoraBank& lora) {
    return spread_with_grouped_lora(base(x), narrow(dropped, lora, groups), lora.b, groups);  // [M,F]
  };
  const Var g = spread(gate_up->linears[0], gate_lora_), u = spread(gate_up->linears[1], up_lora_);
  const Var h = grouped_swiglu(g, u, r.weights, groups);
  const auto at_places = [&](const Tensor& of_rows) {
    if (!pass.training || dropout_ == 0) return Tensor{};
    const int64_t M = groups.order.numel();
    Tensor of_places = Tensor::empty({M, 1}, DType::i32, groups.order.device(), "places");
    kernel::gather_rows(of_places, of_rows.reshape({of_rows.numel(), 1}), groups.order);
    return of_places.reshape({M});
  };
  // Each (row, expert) pair uses its row's dropout draw, because the routing weights were applied first.
  const Var dropped_h =
      draw_dropout(h, down->input, dropout_, at_places(pass.ordinal), at_places(pass.position), pass);
  const nn::Linear& base = down->linears[0];
  return linear_with_grouped_lora(scatter_rows(h, groups.order, x.dim(0)), base.weight, base.bias,
                                  narrow(dropped_h, down_lora_, own_places(groups)), down_lora_.b, groups);
}

void MixedFeedForward::parameters(const nn::ParameterVisit& visit) {
  nn::Linear* linears[] = {&gate_proj(), &up_proj(), &down_proj()};
  LoraBank* banks[] = {&gate_lora_, &up_lora_, &down_lora_};
  for (size_t i = 0; i < 3; ++i) {
    linears[i]->parameters(visit);
    banks[i]->parameters(visit);
  }
  router_.parameters(visit);
}

void install_mixed_ffns(nn::DecoderBlock& block, Install& install) {
  nn::FeedForward& ffn = *block.ffn;
  const int64_t E = install.experts;
  LoraBank gate = counted_bank(ffn.gate_proj(), E, install), up = counted_bank(ffn.up_proj(), E, install),
           down = counted_bank(ffn.down_proj(), E, install);
  Router router = install.router(ffn.name, ffn.gate_proj().weight.value(), E);
  block.ffn = std::make_unique<MixedFeedForward>(std::move(ffn), std::move(gate), std::move(up),
                                                 std::move(down), std::move(router), install.method.dropout);
}

}  // namespace burrow::moe
