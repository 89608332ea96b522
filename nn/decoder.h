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

// Embedding, blocks, last norm and head. The head is not applied here: the loss takes it in chunks of rows.
struct Decoder {
  Decoder(const DecoderConfig& config, WeightSource& source);
  // The hidden states after the last norm: x [N,C] (embedded tokens) -> [N,C]
  Var operator()(const Var& x, Pass& pass) const;
  void parameters(const ParameterVisit& visit);

  DecoderConfig config;
  Var embedding;  // [V,C]
  std::vector<DecoderBlock> blocks;
  RmsNorm norm;
  Linear head;  // [V,C], no bias, not tied to the embedding
};

}  // namespace burrow::nn
