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

namespace {

// The block on a stream without a branch, run again in the backward. The sum of its stream is taken here, so
// that one tensor a block is kept and not two.
Var recomputed(const DecoderBlock& block, const Var& x, const Pass& pass) {
  SideOutputs& side = *pass.recomputation.side;
  const auto run = [&block, &side, pass](const std::vector<Var>& inputs, bool again) {
    const size_t first = side.count();
    const Residual y = block({inputs[0], {}}, pass);
    std::vector<Var> outputs{add(y.x, y.branch)};
    for (const Var* v : side.vars_from(first)) outputs.push_back(*v);
    if (again) side.drop_from(first);
    return outputs;
  };
  const size_t first = side.count();
  const std::vector<Var> outputs = recompute(run, {x});
  const std::vector<Var*> given = side.vars_from(first);
  for (size_t i = 0; i < given.size(); ++i) *given[i] = outputs[i + 1];
  return outputs[0];
}

}  // namespace

Var Decoder::operator()(const Var& x, const Pass& pass) const {
  Residual stream{x, {}};
  const bool recomputes = pass.training && pass.recomputation.side;
  int64_t left = recomputes ? pass.recomputation.layers : 0;
  for (const DecoderBlock& block : blocks) {
    stream = left-- > 0 ? Residual{recomputed(block, stream.x, pass), {}} : block(std::move(stream), pass);
  }
  return norm(stream);
}

void Decoder::parameters(const ParameterVisit& visit) {
  visit("language_model.model.embed_tokens.weight", embedding);
  for (DecoderBlock& block : blocks) block.parameters(visit);
  norm.parameters(visit);
  head.parameters(visit);
}

}  // namespace burrow::nn
