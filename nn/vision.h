#pragma once
// A CLIP vision tower (Radford et al. 2021) and LLaVA-1.5's projector. The features of an image are one
// hidden state of the tower, without its class token unless the config keeps it.
#include <memory>
#include <vector>

#include "nn/config.h"
#include "nn/layers.h"

namespace burrow::nn {

struct VisionBlock {
  VisionBlock(const std::string& name, const VisionConfig& config, WeightSource& source);
  // [N,C] -> [N,C]; attention within an image, given by `ranges`, not causal
  Var operator()(const Var& x, const AttentionRanges& ranges) const;
  void parameters(const ParameterVisit& visit);

  VisionConfig config;
  LayerNorm norm1, norm2;
  Linear q, k, v, out, fc1, fc2;
};

// Patches, a class token, positions, norm, blocks. The last norm is applied where `feature_norm` says so.
struct VisionTower {
  VisionTower(const VisionConfig& config, WeightSource& source);
  // pixels f32 [images, 3, S, S], normalised -> features [images*P, C]: of an image its class token, if that
  // is kept, and its patches in row order
  Var operator()(const Tensor& pixels) const;
  void parameters(const ParameterVisit& visit);

  VisionConfig config;
  Var class_embedding, patch_embedding, position_embedding;  // [C], [C,3,p,p], [P+1,C]
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
