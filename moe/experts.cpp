#include "moe/experts.h"

#include <algorithm>
#include <cmath>

#include "tensor/rng.h"

namespace burrow::moe {
namespace {

// Linears that read the same input draw the same dropout: gate and up of an FFN; q, k and v.
std::string input_site(const std::string& name) {
  const size_t dot = name.rfind('.');
  const std::string parent = name.substr(0, dot), last = name.substr(dot + 1);
  const bool own_input = last == "down_proj" || last == "o_proj";
  return parent + (own_input ? "." + last : "") + ".input";
}

}  // namespace

LoraExperts::LoraExperts(const std::string& name, const nn::Linear& base, int64_t experts,
                         const MethodConfig& c, uint64_t seed)
    : name_(name),
      input_site_(input_site(name)),
      experts_(experts),
      config_(c),
      scale_(c.alpha / static_cast<double>(c.rank)) {
  BURROW_CHECK(c.rank <= std::min(base.in(), base.out()), "method.rank = {}: larger than '{}' of shape {}",
               c.rank, name, base.weight.shape());
  const DType dtype = base.weight.value().dtype() == DType::f64 ? DType::f64 : DType::f32;
  if (!base.weight.value().bytes()) {  // a model of shapes alone is counted, and so are its experts
    const auto shapes = nn::shapes_only(dtype);
    a = Var(shapes->take(name + ".lora_A.weight", {experts * c.rank, base.in()}, nn::Init::linear));
    b = Var(shapes->take(name + ".lora_B.weight", {base.out(), experts * c.rank}, nn::Init::zero));
    return;
  }
  const double bound = 1 / std::sqrt(static_cast<double>(base.in()));
  a = Var(uniform_tensor(name + ".lora_A.weight", {experts * c.rank, base.in()}, bound, seed, dtype));
  b = Var(Tensor::zeros({base.out(), experts * c.rank}, dtype));
}

Var LoraExperts::draw_dropout(const Var& x, const Tensor& ordinal, const Tensor& position,
                              const nn::Pass& pass) const {
  if (!pass.training || config_.dropout == 0) return x;
  return dropout(x, ordinal, position, random_key(pass.seed, pass.step, input_site_), config_.dropout);
}

Var LoraExperts::dropped(const Var& x, const Tensor& ordinal, const Tensor& position,
                         const nn::Pass& pass) const {
  return shared_ ? shared_->dropped(*this, x, ordinal, position, pass)
                 : draw_dropout(x, ordinal, position, pass);
}

Var LoraExperts::narrow(const Var& x, const ExpertGroups& groups, const Tensor& ordinal,
                        const Tensor& position, const nn::Pass& pass) const {
  return scale(grouped_linear(dropped(x, ordinal, position, pass), a, groups), scale_);
}

Var LoraExperts::apply(const nn::Linear& base, const Var& x, const Routing* routing,
                       const nn::Pass& pass) const {
  if (routing && routing->groups.order.defined()) {
    const ExpertGroups& groups = routing->groups;
    const Var h = grouped_linear(dropped(x, pass.ordinal, pass.position, pass), a, groups);  // [N*K, R]
    return linear_with_grouped_lora(x, base.weight, base.bias,
                                    grouped_scale(h, routing->weights, groups, scale_), b, groups);
  }
  const Var h = shared_ ? shared_->narrow(*this, x, pass)
                        : linear(draw_dropout(x, pass.ordinal, pass.position, pass), a);  // [N, E*R]
  const Var masked = routing ? scale_experts(h, routing->weights, scale_) : scale(h, scale_);
  return linear_with_lora(x, base.weight, base.bias, masked, b);
}

void SharedInput::among(const std::vector<LoraExperts*>& readers) {
  if (readers.size() < 2) return;
  const auto shared = std::make_shared<SharedInput>();
  for (LoraExperts* reader : readers) {
    shared->readers_.push_back({reader});
    reader->shared_ = shared;
  }
}

// Begins anew where this is another input or pass, or where the reader has had its answer.
void SharedInput::ask(const LoraExperts& reader, const Var& x, const nn::Pass& pass) {
  const auto me =
      std::find_if(readers_.begin(), readers_.end(), [&](const Reader& r) { return r.experts == &reader; });
  const bool same = pass_ == &pass && x_.defined() && x_.value().same_window(x.value());
  if (!same || me->asked) {
    for (Reader& r : readers_) r.asked = false;
    pass_ = &pass;
    x_ = x;
    dropped_ = narrow_ = {};
  }
  me->asked = true;
}

void SharedInput::forget_when_done() {
  if (std::all_of(readers_.begin(), readers_.end(), [](const Reader& r) { return r.asked; }))
    x_ = dropped_ = narrow_ = {};
}

Var SharedInput::dropped(const LoraExperts& reader, const Var& x, const Tensor& ordinal,
                         const Tensor& position, const nn::Pass& pass) {
  ask(reader, x, pass);
  if (!dropped_.defined()) dropped_ = reader.draw_dropout(x, ordinal, position, pass);
  Var mine = dropped_;
  forget_when_done();
  return mine;
}

Var SharedInput::narrow(const LoraExperts& reader, const Var& x, const nn::Pass& pass) {
  ask(reader, x, pass);
  if (!dropped_.defined()) dropped_ = reader.draw_dropout(x, pass.ordinal, pass.position, pass);
  BURROW_CHECK(reader.masked(x.value().device()), "[experts] '{}' is grouped, but its routing has no groups",
               reader.name_);
  std::vector<Var> sides;
  int64_t first = 0, width = 0;
  for (const Reader& r : readers_) {
    if (!r.experts->masked(x.value().device())) continue;
    if (r.experts == &reader) first = width;
    width += r.experts->a.dim(0);
    sides.push_back(r.experts->a);
  }
  if (!narrow_.defined()) narrow_ = linear(dropped_, sides.size() == 1 ? sides[0] : concat_rows(sides));
  Var mine = sides.size() == 1 ? narrow_ : columns(narrow_, first, reader.a.dim(0));
  forget_when_done();
  return mine;
}

void LoraExperts::parameters(const nn::ParameterVisit& visit) {
  visit(name_ + ".lora_A.weight", a);
  visit(name_ + ".lora_B.weight", b);
}

void AdaptedLinear::parameters(const nn::ParameterVisit& visit) {
  nn::Linear::parameters(visit);
  experts.parameters(visit);
}

MixedFeedForward::MixedFeedForward(nn::FeedForward base, LoraExperts gate, LoraExperts up, LoraExperts down,
                                   Router router, Gathered gathered)
    : nn::FeedForward(std::move(base)),
      gate_lora_(std::move(gate)),
      up_lora_(std::move(up)),
      down_lora_(std::move(down)),
      router_(std::move(router)),
      gathered_(std::move(gathered)) {
  SharedInput::among({&gate_lora_, &up_lora_});
}

Var MixedFeedForward::operator()(const Var& x, const nn::Pass& pass) const {
  const Routing r = router_.route(x, pass);
  gathered_->push_back(r);
  const ExpertGroups& groups = r.groups;
  const auto spread = [&](const nn::Linear& base, const LoraExperts& lora) {
    const Var h = lora.narrow(x, groups, pass.ordinal, pass.position, pass);
    return spread_with_grouped_lora(base(x, pass), h, lora.b, groups);  // [M,F]
  };
  const Var g = spread(*gate, gate_lora_), u = spread(*up, up_lora_);
  const Var h = grouped_swiglu(g, u, r.weights, groups);
  const auto at_places = [&](const Tensor& of_rows) {
    const int64_t M = groups.order.numel();
    Tensor of_places = Tensor::empty({M, 1}, DType::i32, groups.order.device(), "places");
    kernel::gather_rows(of_places, of_rows.reshape({of_rows.numel(), 1}), groups.order);
    return of_places.reshape({M});
  };
  // A place draws the dropout of its row: the weights of the mixture pass through it.
  const bool draws = pass.training;
  const Var narrow = down_lora_.narrow(h, own_places(groups), draws ? at_places(pass.ordinal) : Tensor{},
                                       draws ? at_places(pass.position) : Tensor{}, pass);
  return linear_with_grouped_lora(scatter_rows(h, groups.order, x.dim(0)), down->weight, down->bias, narrow,
                                  down_lora_.b, groups);
}

void MixedFeedForward::parameters(const nn::ParameterVisit& visit) {
  gate->parameters(visit);
  gate_lora_.parameters(visit);
  up->parameters(visit);
  up_lora_.parameters(visit);
  down->parameters(visit);
  down_lora_.parameters(visit);
  router_.parameters(visit);
}

}  // namespace burrow::moe
