// Choice of the vision tower's hidden state that is used as features.
#include "tests/support/mini_llava.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

// Generated weights depend on names only, so a tower with fewer blocks has the first blocks of a larger one.
Tensor features(int64_t layers, int64_t feature_layer, bool feature_norm) {
  nn::ModelConfig c = mini_config();
  c.vision.layers = layers;
  c.vision.feature_layer = feature_layer;
  c.vision.feature_norm = feature_norm;
  nn::check(c);
  GeneratedWeights source(DType::f64);
  const nn::VisionTower tower(c.vision, source);
  return tower(Batch(golden_samples(), DType::f64).images).value();
}

}  // namespace

TEST_CASE("features of an earlier layer equal those of a tower with fewer blocks") {
  for (const bool norm : {false, true}) {
    CHECK(same_bits(features(3, -2, norm), features(2, -1, norm)));
    CHECK(same_bits(features(3, -3, norm), features(1, -1, norm)));
    CHECK(same_bits(features(3, -4, norm), features(2, -3, norm)));  // input of the first block
    CHECK(!same_bits(features(3, -1, norm), features(3, -2, norm)));
  }
  CHECK(!same_bits(features(2, -1, true), features(2, -1, false)));
}

TEST_CASE("feature layers beyond the tower's are refused") {
  for (const int64_t layer : {0, 1, -5}) {
    const std::string message = error_of([&] { features(3, layer, false); });
    CHECK_MESSAGE(contains(message, fmt::format("vision.feature_layer = {}: must count", layer).c_str()),
                  message);
  }
}
