#pragma once
// A LLaMA-like decoder: pre-norm blocks of causal attention with rotary positions and a SwiGLU FFN.
#include <memory>
#include <vector>

#include "nn/config.h"
#include "nn/layers.h"

namespace burrow::nn {

struct DecoderBlock {
  DecoderBlock(const std::string& name, const DecoderConfig& config, WeightSource& source);
  Residual operator()(Residual stream, Pass& pass) const;
  void parameters(const ParameterVisit& visit);

  const DecoderConfig config;
  std::string name;
  RmsNorm input_norm, ffn_norm;
  std::unique_ptr<Projections> qkv, o;
  std::unique_ptr<FeedForward> ffn;

 private:
  Var attend(const Var& x, Pass& pass) const;
};

// Embedding, blocks, final norm and head. The loss applies the head, in chunks of rows.
struct Decoder {
  Decoder(const DecoderConfig& config, WeightSource& source);
  // Embedded tokens x [N,C] to hidden states after the final norm, [N,C].
  Var operator()(const Var& x, Pass& pass) const;
  void parameters(const ParameterVisit& visit);

  DecoderConfig config;
  Var embedding;  // [V,C]
  std::vector<DecoderBlock> blocks;
  RmsNorm norm;
  Linear head;  // [V,C], no bias, weights not shared with the embedding
};

}  // namespace burrow::nn
