#include "nn/config.h"

#include <cmath>

#include "tensor/check.h"

namespace burrow::nn {

namespace {

void positive(const char* key, int64_t value) {
  constexpr int64_t kMost = 1 << 24;  // ensures that a product of two sizes cannot overflow
  BURROW_CHECK(value > 0 && value <= kMost, "{} = {}: must be positive, and {} at most", key, value, kMost);
}
void few(const char* key, int64_t value) {
  constexpr int64_t kMostLayers = 10'000;
  BURROW_CHECK(value > 0 && value <= kMostLayers, "{} = {}: must be positive, and {} at most", key, value,
               kMostLayers);
}
void positive_number(const char* key, double value) {
  BURROW_CHECK(value > 0 && std::isfinite(value), "{} = {}: must be positive and finite", key, value);
}
void divides(const char* what, int64_t small, int64_t large) {
  BURROW_CHECK(large % small == 0, "{}: {} does not divide {}", what, small, large);
}

void check(const VisionConfig& c) {
  positive("vision.image_size", c.image_size);
  positive("vision.patch_size", c.patch_size);
  positive("vision.width", c.width);
  few("vision.layers", c.layers);
  positive("vision.heads", c.heads);
  positive("vision.mlp_width", c.mlp_width);
  positive_number("vision.norm_eps", c.norm_eps);
  divides("vision.patch_size in vision.image_size", c.patch_size, c.image_size);
  divides("vision.heads in vision.width", c.heads, c.width);
  BURROW_CHECK(c.feature_layer < 0 && c.feature_layer >= -c.layers - 1,
               "vision.feature_layer = {}: must count from the end, -1 to {}", c.feature_layer,
               -c.layers - 1);
  BURROW_CHECK(c.pixel_mean.size() == 3 && c.pixel_std.size() == 3,
               "vision.pixel_mean and vision.pixel_std need three values each");
  for (const double mean : c.pixel_mean)
    BURROW_CHECK(std::isfinite(mean), "vision.pixel_mean has {}: must be finite", mean);
  for (const double deviation : c.pixel_std) positive_number("vision.pixel_std", deviation);
}

}  // namespace

void check(const ModelConfig& c) {
  if (c.vision.layers != 0) check(c.vision);
  positive("decoder.vocabulary", c.decoder.vocabulary);
  positive("decoder.width", c.decoder.width);
  few("decoder.layers", c.decoder.layers);
  positive("decoder.heads", c.decoder.heads);
  positive("decoder.kv_heads", c.decoder.kv_heads);
  positive("decoder.mlp_width", c.decoder.mlp_width);
  positive("decoder.max_tokens", c.decoder.max_tokens);
  positive_number("decoder.norm_eps", c.decoder.norm_eps);
  positive_number("decoder.rope_theta", c.decoder.rope_theta);
  divides("twice decoder.heads in decoder.width (rotary pairs)", 2 * c.decoder.heads, c.decoder.width);
  divides("decoder.kv_heads in decoder.heads", c.decoder.kv_heads, c.decoder.heads);
}

}  // namespace burrow::nn
