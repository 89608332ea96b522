#include "nn/decoder.h"

#include <cmath>

namespace burrow::nn {

DecoderBlock::DecoderBlock(const std::string& name, const DecoderConfig& c, WeightSource& source)
    : config(c),
      name(name),
      input_norm(name + ".input_layernorm", c.width, c.norm_eps, source),
      ffn_norm(name + ".post_attention_layernorm", c.width, c.norm_eps, source) {
  const int64_t kv_width = c.kv_heads * c.head_size();
  const std::string attention = name + ".self_attn.";
  q = std::make_unique<Linear>(attention + "q_proj", c.width, c.width, false, source);
  k = std::make_unique<Linear>(attention + "k_proj", c.width, kv_width, false, source);
  v = std::make_unique<Linear>(attention + "v_proj", c.width, kv_width, false, source);
  o = std::make_unique<Linear>(attention + "o_proj", c.width, c.width, false, source, Init::residual,
                               c.layers);
  ffn = std::make_unique<FeedForward>(name + ".mlp", c.width, c.mlp_width, c.layers, source);
}

namespace {

// Puts this pass's keys or values into the layer's cache and returns all that it holds. The slots are
// still zero, so adding writes them.
Var remember(const std::string& name, const Var& rows, const Pass& pass) {
  Tensor& held = pass.cache->tensors[name];
  const int64_t slots = pass.cache->sequences * pass.cache->capacity;
  if (!held.defined())
    held = Tensor::zeros({slots, rows.dim(1)}, rows.value().dtype(), rows.value().device(), "kv_cache");
  kernel::scatter_rows(held, rows.value(), pass.cache_slots, true);
  return Var(held);
}

}  // namespace

Var DecoderBlock::attend(const Var& x, const Pass& pass) const {
  const int64_t D = config.head_size();
  const Var queries = rope((*q)(x, pass), pass.position, config.heads, config.rope_theta);
  Var keys = rope((*k)(x, pass), pass.position, config.kv_heads, config.rope_theta);
  Var values = (*v)(x, pass);
  if (pass.cache) {
    keys = remember(name + ".keys", keys, pass);
    values = remember(name + ".values", values, pass);
  }
  const AttentionShape shape{config.heads, config.kv_heads, D, true, 1 / std::sqrt(static_cast<double>(D))};
  return (*o)(attention(queries, keys, values, pass.ranges, shape), pass);
}

Residual DecoderBlock::operator()(Residual stream, const Pass& pass) const {
  stream.branch = attend(input_norm(stream), pass);
  stream.branch = (*ffn)(ffn_norm(stream), pass);
  return stream;
}

void DecoderBlock::parameters(const ParameterVisit& visit) {
  input_norm.parameters(visit);
  q->parameters(visit);
  k->parameters(visit);
  v->parameters(visit);
  o->parameters(visit);
  ffn_norm.parameters(visit);
  ffn->parameters(visit);
}

Decoder::Decoder(const DecoderConfig& c, WeightSource& source)
    : config(c),
      embedding(
          source.take("language_model.model.embed_tokens.weight", {c.vocabulary, c.width}, Init::embedding)),
      norm("language_model.model.norm", c.width, c.norm_eps, source),
      head("language_model.lm_head", c.width, c.vocabulary, false, source) {
  for (int64_t i = 0; i < c.layers; ++i) {
    blocks.emplace_back(fmt::format("language_model.model.layers.{}", i), c, source);
  }
}

Var Decoder::operator()(const Var& x, const Pass& pass) const {
  Residual stream{x, {}};
  for (const DecoderBlock& block : blocks) stream = block(std::move(stream), pass);
  return norm(stream);
}

void Decoder::parameters(const ParameterVisit& visit) {
  visit("language_model.model.embed_tokens.weight", embedding);
  for (DecoderBlock& block : blocks) block.parameters(visit);
  norm.parameters(visit);
  head.parameters(visit);
}

}  // namespace burrow::nn
