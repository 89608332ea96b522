#pragma once
// A CLIP vision tower (Radford et al. 2021) and LLaVA-1.5's projector. An image's features are the tower's
// hidden state at one layer, without the class token unless the config keeps it.
#include <memory>
#include <vector>

#include "nn/config.h"
#include "nn/layers.h"

namespace burrow::nn {

struct VisionBlock {
  VisionBlock(const std::string& name, const VisionConfig& config, WeightSource& source);
  // [N,C] -> [N,C]; non-causal attention within each image, whose rows `ranges` describes
  Var operator()(const Var& x, const AttentionRanges& ranges) const;
  void parameters(const ParameterVisit& visit);

  VisionConfig config;
  LayerNorm norm1, norm2;
  Linear q, k, v, out, fc1, fc2;
};

// Patch, class and position embeddings, a norm, blocks, and with `feature_norm` a final norm.
struct VisionTower {
  VisionTower(const VisionConfig& config, WeightSource& source);
  // pixels f32 [images, 3, S, S], normalised -> features [images*P, C]: per image the class token, if kept,
  // and the patches row by row
  Var operator()(const Tensor& pixels) const;
  void parameters(const ParameterVisit& visit);

  VisionConfig config;
  Var class_embedding, patch_embedding, position_embedding;  // [C], [C,3,p,p], [patches + 1, C]
  LayerNorm pre_norm, post_norm;
  std::vector<VisionBlock> blocks;
};

struct Projector {  // linear, GELU, linear: visual features to the decoder's width
  Projector(int64_t in, int64_t out, WeightSource& source);
  Var operator()(const Var& x) const { return second(unary(first(x), Unary::gelu)); }
  void parameters(const ParameterVisit& visit);
  Linear first, second;
};

}  // namespace burrow::nn
