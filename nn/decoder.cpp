#include "nn/decoder.h"

#include <cmath>

namespace burrow::nn {

DecoderBlock::DecoderBlock(const std::string& name, const DecoderConfig& c, WeightSource& source)
    : config(c),
      name(name),
      input_norm(name + ".input_layernorm", c.width, c.norm_eps, source),
      ffn_norm(name + ".post_attention_layernorm", c.width, c.norm_eps, source) {
  const int64_t kv_width = c.kv_heads * c.head_size();
  const std::string attention = name + ".self_attn";
  std::vector<Linear> linears;
  linears.emplace_back(attention + ".q_proj", c.width, c.width, false, source);
  linears.emplace_back(attention + ".k_proj", c.width, kv_width, false, source);
  linears.emplace_back(attention + ".v_proj", c.width, kv_width, false, source);
  qkv = std::make_unique<Projections>(attention + ".input", std::move(linears));
  o = std::make_unique<Projections>(
      one_linear({attention + ".o_proj", c.width, c.width, false, source, Init::residual, c.layers}));
  ffn = std::make_unique<FeedForward>(name + ".mlp", c.width, c.mlp_width, c.layers, source);
}

namespace {

// Writes this pass's keys or values to the layer's cache and returns the whole cache. The kernel adds, which
// is a write because unused slots are zero.
Var remember(const std::string& name, const Var& rows, const Pass& pass) {
  Tensor& held = pass.cache->tensors[name];
  const int64_t slots = pass.cache->sequences * pass.cache->capacity;
  if (!held.defined())
    held = Tensor::zeros({slots, rows.dim(1)}, rows.value().dtype(), rows.value().device(), "kv_cache");
  kernel::scatter_rows(held, rows.value(), pass.cache_slots, true);
  return Var(held);
}

}  // namespace

Var DecoderBlock::attend(const Var& x, Pass& pass) const {
  const int64_t D = config.head_size();
  std::vector<Var> projected = (*qkv)(x, nullptr, pass);
  Var &queries = projected[0], &keys = projected[1], &values = projected[2];
  queries = rope(queries, pass.position, config.heads, config.rope_theta);
  keys = rope(keys, pass.position, config.kv_heads, config.rope_theta);
  if (pass.cache) {
    keys = remember(name + ".keys", keys, pass);
    values = remember(name + ".values", values, pass);
  }
  const AttentionShape shape{config.heads, config.kv_heads, D, true, 1 / std::sqrt(static_cast<double>(D))};
  return (*o)(attention(queries, keys, values, pass.ranges, shape), nullptr, pass)[0];
}

Residual DecoderBlock::operator()(Residual stream, Pass& pass) const {
  stream.branch = attend(input_norm(stream), pass);
  stream.branch = (*ffn)(ffn_norm(stream), pass);
  return stream;
}

void DecoderBlock::parameters(const ParameterVisit& visit) {
  input_norm.parameters(visit);
  qkv->parameters(visit);
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

// Runs the block with recomputation in the backward pass. `x` is the sum of the residual stream, so that one
// tensor per block is kept instead of two. The recomputed function also outputs the Vars of its routings.
Var recomputed(const DecoderBlock& block, const Var& x, Pass& pass) {
  std::vector<Routing> decided;  // routings of the first run
  const auto run = [&block, &decided, fresh = pass.without_routings()](const std::vector<Var>& in,
                                                                       bool again) {
    Pass own = fresh;
    const Residual y = block({in[0], {}}, own);
    std::vector<Var> outputs{add(y.x, y.branch)};
    for (Routing& r : own.routings) {
      for (const Var* v : vars_of(r)) outputs.push_back(*v);
    }
    if (!again) decided = std::move(own.routings);  // in the second run `decided` is out of scope
    return outputs;
  };
  const std::vector<Var> outputs = recompute(run, {x});
  size_t next = 1;
  for (Routing& r : decided) {
    for (Var* v : vars_of(r)) *v = outputs[next++];
    pass.routings.push_back(std::move(r));
  }
  return outputs[0];
}

}  // namespace

Var Decoder::operator()(const Var& x, Pass& pass) const {
  Residual stream{x, {}};
  int64_t left = pass.training ? pass.recompute_layers : 0;
  for (const DecoderBlock& block : blocks) {
    stream = left-- > 0 ? Residual{recomputed(block, stream.x, pass), {}} : block(std::move(stream), pass);
  }
  return norm(stream);
}

void Decoder::parameters(const ParameterVisit& visit) {
  visit({"language_model.model.embed_tokens.weight", Role::base, &embedding});
  for (DecoderBlock& block : blocks) block.parameters(visit);
  norm.parameters(visit);
  head.parameters(visit);
}

}  // namespace burrow::nn
