#include "tests/support/golden_methods.h"

#include "tensor/check.h"

namespace burrow::testing {
namespace {

using Method = moe::MethodConfig;
// A method of the table at the small sizes, modified by `change`.
template <class F>
Method small(const char* row, F change) {
  Method c = testing::small(row);
  change(c);
  return c;
}
Method mole(GateMode gate) {
  return small("mole", [&](Method& c) { c.router.gate = gate; });
}
Method on_attention(Method c) {
  c.lora_targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
  return c;
}
void dense(Method& c) { c.balance.weight = 0.01; }  // the golden values include this loss
void per_sample(Method& c) {
  c.router.gate = GateMode::scaled;
  c.router.granularity = moe::Granularity::sample;
}
// Parameters for which some rows exceed the entropy threshold and others keep one, two or three experts.
void dynmole(Method& c) {
  c.router.entropy_threshold = 0.7;
  c.router.top_p = 0.97;
  c.router.top_k = 1;
}
void loramoe(Method& c) { c.localised.delta = 0.3; }
void ldmole(Method& c) {
  c.router.lambda_width = 5;
  c.sparsity = {.weight = 0.1, .experts = 1};
}
void two_of_four(Method& c) {
  c.experts = 4;
  c.router.top_k = 2;
}
void hard_labels(Method& c) {
  two_of_four(c);
  c.prior.form = moe::PriorForm::cross_entropy;
}

nn::ModelConfig grouped_queries() {
  nn::ModelConfig c = mini_config();
  c.decoder.kv_heads = 2;
  return c;
}

}  // namespace

moe::MethodConfig small(const std::string& row) {
  moe::MethodConfig c = moe::method(row);
  if (c.experts > 1) c.experts = 3;
  c.experts_by_layer.clear();
  c.rank = 2;
  c.alpha = 4;
  return c;
}

nn::ModelConfig mini_config() {
  nn::ModelConfig c;
  c.vision = {.image_size = 32, .patch_size = 8, .width = 96, .layers = 2, .heads = 4, .mlp_width = 192};
  c.decoder = {.vocabulary = 110, .width = 128, .layers = 4, .heads = 4, .kv_heads = 4, .mlp_width = 256};
  return c;
}

nn::ModelConfig llava_7b() {
  nn::ModelConfig c;
  c.vision = {
      .image_size = 336, .patch_size = 14, .width = 1024, .layers = 24, .heads = 16, .mlp_width = 4096};
  c.vision.feature_layer = -2;
  c.vision.feature_norm = false;
  c.decoder = {
      .vocabulary = 32000, .width = 4096, .layers = 32, .heads = 32, .kv_heads = 32, .mlp_width = 11008};
  return c;
}

const std::vector<GoldenCase>& golden_cases() {
  static const std::vector<GoldenCase> cases{
      {"base", small("full"), mini_config()},
      {"base_grouped", small("full"), grouped_queries()},
      {"lora", small("lora"), mini_config()},
      {"lora_attention", on_attention(small("lora")), mini_config()},
      {"mole_none", mole(GateMode::none), mini_config()},
      {"mole_straight_through", mole(GateMode::straight_through), mini_config()},
      {"mole_scaled", mole(GateMode::scaled), mini_config()},
      {"mole_attention", on_attention(mole(GateMode::none)), mini_config()},
      {"mole_sample", small("mole", per_sample), mini_config()},
      {"dense", small("dense", dense), mini_config()},
      {"loramoe", small("loramoe", loramoe), mini_config()},
      {"mola", small("mola"), mini_config()},
      {"mixlora", small("mixlora"), mini_config()},
      {"dynmole", small("dynmole", dynmole), mini_config()},
      {"adamole", small("adamole"), mini_config()},
      {"ldmole", small("ldmole", ldmole), mini_config()},
      {"factorllm", small("factorllm", two_of_four), mini_config()},
      {"factorllm_hard", small("factorllm", hard_labels), mini_config()},
  };
  return cases;
}

moe::MethodConfig small_method(const std::string& golden) {
  for (const GoldenCase& c : golden_cases()) {
    if (c.name == golden) return c.method;
  }
  fail("no golden case '{}'", golden);
}

}  // namespace burrow::testing
