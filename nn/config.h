#pragma once
// The sizes of a model; configs/models/ has files for the miniature, LLaVA-1.5-7B and others. visit_fields
// declares each config key once, for reading, printing and the reference (docs/config.md).
#include <cstdint>
#include <string>
#include <vector>

namespace burrow::nn {

// A CLIP vision tower (Radford et al. 2021, arXiv 2103.00020). With layers = 0 the model has no tower and no
// projector and reads text only.
struct VisionConfig {
  int64_t image_size = 32, patch_size = 8, width = 96, layers = 2, heads = 4, mlp_width = 192;
  double norm_eps = 1e-5;
  int64_t feature_layer = -1;
  bool feature_norm = true;
  bool class_token = false;
  std::vector<double> pixel_mean{0.5, 0.5, 0.5}, pixel_std{0.5, 0.5, 0.5};

  bool present() const { return layers > 0; }
  int64_t patches() const { return present() ? (image_size / patch_size) * (image_size / patch_size) : 0; }
  // P: visual tokens per image, one per patch and, with class_token, one before them; 0 without a tower.
  int64_t visual_tokens() const { return patches() + (present() && class_token ? 1 : 0); }
};
struct DecoderConfig {  // LLaMA (Touvron et al. 2023, arXiv 2302.13971)
  int64_t vocabulary = 110, width = 128, layers = 4, heads = 4, kv_heads = 4, mlp_width = 256;
  double norm_eps = 1e-5, rope_theta = 10000;
  int64_t max_tokens = 64;

  int64_t head_size() const { return width / heads; }
};
struct ModelConfig {
  VisionConfig vision;
  DecoderConfig decoder;
};

template <class V>
void visit_fields(V& v, VisionConfig& c) {
  v.field("image_size", c.image_size, "pixels", "side of the square image");
  v.field("patch_size", c.patch_size, "pixels", "side of a patch; each patch is one visual token");
  v.field("width", c.width, "channels", "width of the tower");
  v.field("layers", c.layers, "layers",
          "transformer blocks; 0: a text-only decoder without tower and projector");
  v.field("heads", c.heads, "heads", "attention heads");
  v.field("mlp_width", c.mlp_width, "channels", "inner width of the MLP");
  v.field("norm_eps", c.norm_eps, "", "epsilon of LayerNorm");
  v.field("feature_layer", c.feature_layer, "layer",
          "hidden state used as features: -1, the last block's; -2, the one before (LLaVA-1.5)");
  v.field("feature_norm", c.feature_norm, "",
          "apply the tower's final LayerNorm to the features (LLaVA does not)");
  v.field("class_token", c.class_token, "",
          "keep the class token as the first visual token of an image, before its patches (Parrot)");
  v.field("pixel_mean", c.pixel_mean, "of 1", "mean of each colour, subtracted from pixels");
  v.field("pixel_std", c.pixel_std, "of 1", "standard deviation of each colour, which divides pixels");
}
template <class V>
void visit_fields(V& v, DecoderConfig& c) {
  v.field("vocabulary", c.vocabulary, "tokens",
          "rows of the embedding and of the output head; 0: the tokenizer's size");
  v.field("width", c.width, "channels", "width of the residual stream");
  v.field("layers", c.layers, "layers", "transformer blocks");
  v.field("heads", c.heads, "heads", "query heads");
  v.field("kv_heads", c.kv_heads, "heads",
          "key and value heads; fewer than `heads`: grouped-query attention");
  v.field("mlp_width", c.mlp_width, "channels", "inner width of the SwiGLU FFN");
  v.field("norm_eps", c.norm_eps, "", "epsilon of RMSNorm");
  v.field("rope_theta", c.rope_theta, "", "base of the rotary frequencies");
  v.field("max_tokens", c.max_tokens, "tokens", "longest sequence, visual tokens included");
}
template <class V>
void visit_fields(V& v, ModelConfig& c) {
  v.section("vision", [&] { visit_fields(v, c.vision); });
  v.section("decoder", [&] { visit_fields(v, c.decoder); });
}

void check(const ModelConfig& c);  // throws an Error that names the key

}  // namespace burrow::nn
