#include "nn/vision.h"

#include <cmath>

namespace burrow::nn {
namespace {

const std::string kTower = "vision_tower.vision_model";

// Splits images [B,3,S,S] into patches [B*P, 3*p*p], row by row; a patch's pixels are in the order of the
// convolution's weight (colour, row, column). Runs on the host, where images are decoded.
Tensor patches_of(const Tensor& pixels, const VisionConfig& c, DType dtype) {
  const int64_t B = pixels.dim(0), S = c.image_size, p = c.patch_size, side = S / p;
  BURROW_CHECK(pixels.shape() == Shape({B, 3, S, S}), "[vision] pixels {}, expected (images, 3, {}, {})",
               pixels.shape(), S, S);
  const Tensor source = pixels.to(Device::cpu).to(dtype);
  Tensor out = Tensor::empty({B * side * side, 3 * p * p}, dtype, Device::cpu, "patches");
  visit_float("vision", dtype, [&]<class T>(T) {
    const T* in = source.data<T>();
    T* to = out.data<T>();
    for (int64_t b = 0; b < B; ++b)
      for (int64_t i = 0; i < side; ++i)
        for (int64_t j = 0; j < side; ++j)
          for (int64_t colour = 0; colour < 3; ++colour)
            for (int64_t y = 0; y < p; ++y) {
              const T* row = in + ((b * 3 + colour) * S + i * p + y) * S + j * p;
              to = std::copy(row, row + p, to);
            }
  });
  return out;
}

// Segments of the tower: each image is a sequence of its class token and its patches.
Segments image_segments(int64_t images, int64_t patches) {
  Segments s;
  for (int64_t b = 0; b < images; ++b) {
    for (int64_t i = 0; i <= patches; ++i) {
      s.position.push_back(static_cast<int32_t>(i));
      s.sequence.push_back(static_cast<int32_t>(b));
      s.kind.push_back(TokenKind::visual);
    }
    s.offsets.push_back(static_cast<int32_t>((b + 1) * (patches + 1)));
    s.ordinal.push_back(b);
    s.dataset.push_back(0);
  }
  return s;
}

}  // namespace

VisionBlock::VisionBlock(const std::string& name, const VisionConfig& c, WeightSource& source)
    : config(c),
      norm1(name + ".layer_norm1", c.width, c.norm_eps, source),
      norm2(name + ".layer_norm2", c.width, c.norm_eps, source),
      q(name + ".self_attn.q_proj", c.width, c.width, true, source),
      k(name + ".self_attn.k_proj", c.width, c.width, true, source),
      v(name + ".self_attn.v_proj", c.width, c.width, true, source),
      out(name + ".self_attn.out_proj", c.width, c.width, true, source, Init::residual, c.layers),
      fc1(name + ".mlp.fc1", c.width, c.mlp_width, true, source),
      fc2(name + ".mlp.fc2", c.mlp_width, c.width, true, source, Init::residual, c.layers) {}

Var VisionBlock::operator()(const Var& x, const AttentionRanges& ranges) const {
  const int64_t D = config.width / config.heads;
  const AttentionShape shape{config.heads, config.heads, D, false, 1 / std::sqrt(static_cast<double>(D))};
  const Var h = norm1(x);
  const Var mid = add(x, out(attention(q(h), k(h), v(h), ranges, shape)));
  return add(mid, fc2(unary(fc1(norm2(mid)), Unary::quick_gelu)));
}

void VisionBlock::parameters(const ParameterVisit& visit) {
  norm1.parameters(visit);
  for (Linear* l : {&q, &k, &v, &out}) l->parameters(visit, Role::tower);
  norm2.parameters(visit);
  for (Linear* l : {&fc1, &fc2}) l->parameters(visit, Role::tower);
}

VisionTower::VisionTower(const VisionConfig& c, WeightSource& source)
    : config(c),
      class_embedding(source.take(kTower + ".embeddings.class_embedding", {c.width}, Init::position)),
      patch_embedding(source.take(kTower + ".embeddings.patch_embedding.weight",
                                  {c.width, 3, c.patch_size, c.patch_size}, Init::linear)),
      position_embedding(source.take(kTower + ".embeddings.position_embedding.weight",
                                     {c.patches() + 1, c.width}, Init::position)),
      pre_norm(kTower + ".pre_layrnorm", c.width, c.norm_eps, source),
      post_norm(kTower + ".post_layernorm", c.width, c.norm_eps, source) {
  for (int64_t i = 0; i < c.layers; ++i) {
    blocks.emplace_back(fmt::format("{}.encoder.layers.{}", kTower, i), c, source);
  }
}

Var VisionTower::operator()(const Tensor& pixels) const {
  const int64_t B = pixels.dim(0), P = config.patches();
  const Segments segments = image_segments(B, P);
  const Device device = class_embedding.value().device();
  const Pass pass(segments, device);
  const Var patches(patches_of(pixels, config, class_embedding.value().dtype()).to(device));
  const Var embedded = linear(patches, reshape(patch_embedding, {config.width, patches.dim(1)}));
  std::vector<int32_t> token_id, feature_row;  // id 0 is the class token, -1-i is patch i
  for (int64_t n = 0; n < B * (P + 1); ++n) {
    const int64_t b = n / (P + 1), i = n % (P + 1);
    token_id.push_back(i == 0 ? 0 : static_cast<int32_t>(-1 - (b * P + i - 1)));
    if (i > 0 || config.class_token) feature_row.push_back(static_cast<int32_t>(n));
  }
  const int64_t N = B * (P + 1);
  const Var tokens =
      embedding(reshape(class_embedding, {1, config.width}), embedded, Tensor::of({N}, token_id).to(device));
  Var x = pre_norm(add(tokens, gather_rows(position_embedding, pass.position)));
  const int64_t layers = static_cast<int64_t>(blocks.size());
  for (int64_t i = 0; i < layers + 1 + config.feature_layer; ++i)
    x = blocks[static_cast<size_t>(i)](x, pass.ranges);
  if (config.feature_norm) x = post_norm(x);
  return gather_rows(x, Tensor::of({static_cast<int64_t>(feature_row.size())}, feature_row).to(device));
}

void VisionTower::parameters(const ParameterVisit& visit) {
  visit({kTower + ".embeddings.class_embedding", Role::tower, &class_embedding});
  visit({kTower + ".embeddings.patch_embedding.weight", Role::tower, &patch_embedding});
  visit({kTower + ".embeddings.position_embedding.weight", Role::tower, &position_embedding});
  pre_norm.parameters(visit);
  for (VisionBlock& block : blocks) block.parameters(visit);
  post_norm.parameters(visit);
}

Projector::Projector(int64_t in, int64_t out, WeightSource& source)
    : first("multi_modal_projector.linear_1", in, out, true, source),
      second("multi_modal_projector.linear_2", out, out, true, source) {}
void Projector::parameters(const ParameterVisit& visit) {
  first.parameters(visit, Role::projector);
  second.parameters(visit, Role::projector);
}

}  // namespace burrow::nn
