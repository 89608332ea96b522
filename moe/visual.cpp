#include "moe/visual.h"

#include <cmath>

namespace burrow::moe {

// Indices of a batch's I images, in the order of the token stream.
struct VisualExperts::Images {
  Tensor class_rows;       // i32 [I] visual row of each image's class token
  Tensor image;            // i32 [I*P] image of each visual row
  Tensor rows;             // i32 [I] row of the pass at which each image begins
  Tensor prompt_ids;       // i32 [T] prompt tokens of the samples with images
  AttentionRanges ranges;  // for each sample with images: its images are queries, its prompt tokens keys
};

namespace {

Tensor column(const std::vector<int32_t>& values) {
  return Tensor::of({static_cast<int64_t>(values.size())}, values);
}

MethodConfig with_router_masked(MethodConfig c) {
  c.execution = Execution::masked;  // the router decides per image, but the module groups visual rows itself
  return c;
}

}  // namespace

VisualExperts::VisualExperts(const nn::ModelConfig& sizes, const MethodConfig& c, const Tensor& like,
                             uint64_t seed)
    : tokens_(sizes.vision.visual_tokens()),
      experts_(c.experts),
      config_(c.visual),
      grouped_(c.router.selection == Selection::top_k && c.experts > 1 &&
               executes_grouped(c, c.experts, Device::cpu)),  // experts are wide: as on the CPU
      top_k_(c.router.top_k) {
  const DType dtype = trained_dtype(like);
  const int64_t C = sizes.decoder.width, F = config_.inner > 0 ? config_.inner : C;
  const auto drawn = [&](const char* part, const Shape& shape, int64_t in) {
    return initial(name + part, shape, 1 / std::sqrt(static_cast<double>(in)), seed, dtype, !like.bytes());
  };
  gate = drawn(".gate_proj.weight", {experts_ * F, C}, C);
  up = drawn(".up_proj.weight", {experts_ * F, C}, C);
  down = drawn(".down_proj.weight", {C, experts_ * F}, F);
  constexpr int64_t kBeforeTheDecoder = -1;
  if (experts_ > 1)
    router.emplace(name + ".router", kBeforeTheDecoder, C, experts_, with_router_masked(c), dtype, seed);
}

VisualExperts::Images VisualExperts::images_of(const Tensor& ids, const nn::Pass& pass,
                                               int64_t visual_rows) const {
  const Segments& s = *pass.segments;
  const Tensor host = ids.to(Device::cpu);  // ids are made on the host
  const int32_t* id = host.data<int32_t>();
  std::vector<int32_t> class_rows, image(static_cast<size_t>(visual_rows), -1), rows, prompt_ids;
  std::vector<int32_t> q_offsets{0}, k_offsets{0};
  for (size_t b = 0; b + 1 < s.offsets.size(); ++b) {
    const size_t images = class_rows.size(), prompt = prompt_ids.size();
    for (int32_t n = s.offsets[b]; n < s.offsets[b + 1]; ++n) {
      const int64_t v = -1 - int64_t{id[n]};
      if (v < 0) {
        if (s.kind[static_cast<size_t>(n)] == TokenKind::prompt) prompt_ids.push_back(id[n]);
        continue;
      }
      if (v % tokens_ == 0) {
        class_rows.push_back(static_cast<int32_t>(v));
        rows.push_back(n);
      }
      if (v < visual_rows) image[static_cast<size_t>(v)] = static_cast<int32_t>(class_rows.size()) - 1;
    }
    if (class_rows.size() == images) {
      prompt_ids.resize(prompt);  // a sample without an image
      continue;
    }
    BURROW_CHECK(prompt_ids.size() > prompt || config_.guidance != Guidance::text,
                 "[visual experts] sample {} of the batch has an image but no prompt, which the router reads",
                 b);
    q_offsets.push_back(static_cast<int32_t>(class_rows.size()));
    k_offsets.push_back(static_cast<int32_t>(prompt_ids.size()));
  }
  BURROW_CHECK(static_cast<int64_t>(class_rows.size()) * tokens_ == visual_rows,
               "[visual experts] {} visual rows, but the batch has {} images of {} tokens", visual_rows,
               class_rows.size(), tokens_);
  const Device device = pass.position.device();
  const auto zeros = [&](size_t n) {  // not causal: attention ignores positions
    return Tensor::zeros({static_cast<int64_t>(n)}, DType::i32, device);
  };
  return {column(class_rows).to(device),
          column(image).to(device),
          column(rows).to(device),
          column(prompt_ids).to(device),
          {column(q_offsets).to(device), column(k_offsets).to(device), zeros(class_rows.size()),
           zeros(prompt_ids.size())}};
}

Var VisualExperts::router_input(const Var& visual, const Var& table, const Images& images) const {
  Var class_tokens = gather_rows(visual, images.class_rows);  // [I,C]
  const Tensor& Q = class_tokens.value();
  if (config_.guidance == Guidance::image) return class_tokens;
  if (config_.guidance == Guidance::constant) return Var(Tensor::full(Q.shape(), 1, Q.dtype(), Q.device()));
  Var text = embedding(table, {}, images.prompt_ids);  // [T,C]
  if (text.value().dtype() != Q.dtype()) text = cast(text, Q.dtype());
  const int64_t C = Q.dim(1);
  return attention(class_tokens, text, text, images.ranges,
                   {1, 1, C, false, 1 / std::sqrt(static_cast<double>(C))});
}

Var VisualExperts::mixture(const Var& x, const Routing* routing, const Tensor& image) const {
  if (!routing) return linear(swiglu(linear(x, gate), linear(x, up)), down);
  const Var weights = gather_rows(routing->weights, image);  // [I*P,E]
  if (!grouped_) return linear(scale_experts(swiglu(linear(x, gate), linear(x, up)), weights, 1), down);
  const ExpertGroups groups = group_by_expert(gather_rows(Var(routing->chosen), image).value(), top_k_);
  const Var g = grouped_linear(x, gate, groups), u = grouped_linear(x, up, groups);
  const Var h = grouped_swiglu(g, u, weights, groups);
  const Tensor& X = x.value();
  const Var nothing(Tensor::zeros(X.shape(), X.dtype(), X.device()));
  return scatter_rows(spread_with_grouped_lora(nothing, h, down, groups), groups.order, X.dim(0));
}

Var VisualExperts::operator()(const Var& visual, const Var& table, const Tensor& ids, nn::Pass& pass) const {
  const Var residual = scale(visual, config_.residual_weight);
  if (!router) return add(mixture(visual, nullptr, {}), residual);
  const Images images = images_of(ids, pass, visual.dim(0));
  const Routing r = router->route(router_input(visual, table, images), pass, images.rows);
  pass.routings.push_back(r);
  return add(mixture(visual, &r, images.image), residual);
}

void VisualExperts::parameters(const nn::ParameterVisit& visit) {
  visit({name + ".gate_proj.weight", nn::Role::visual, &gate});
  visit({name + ".up_proj.weight", nn::Role::visual, &up});
  visit({name + ".down_proj.weight", nn::Role::visual, &down});
  if (router) router->parameters(visit);
}

void install_visual_experts(nn::Llava& model, Install& install) {
  const MethodConfig& c = install.method;
  BURROW_CHECK(
      model.tower,
      "[attach] method.expert = 'visual' needs a model with a vision tower, but model.vision.layers is 0");
  BURROW_CHECK(model.config.vision.class_token || c.visual.guidance == Guidance::constant,
               "[attach] method.visual.guidance = '{}' reads an image's class token: set "
               "model.vision.class_token = true, or guidance 'constant'",
               c.visual.guidance == Guidance::text ? "text" : "image");
  auto module =
      std::make_unique<VisualExperts>(model.config, c, model.projector->second.weight.value(), install.seed);
  int64_t parameters = 0;
  for (const Var* w : {&module->gate, &module->up, &module->down}) parameters += w->value().numel();
  install.inventory.add_visual(c.experts, module->gate.dim(0) / c.experts, parameters);
  if (module->router) install.inventory.add_router(*module->router);
  model.visual_module = std::move(module);
}

}  // namespace burrow::moe
