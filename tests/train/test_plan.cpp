// The predictions of `burrow plan` for LLaVA-1.5-7B, compared with counts by hand.
#include "train/measure/plan.h"

#include <doctest/doctest.h>

#include "tensor/device.h"
#include "tests/support/errors.h"

using namespace burrow;
using namespace burrow::train;

namespace {

const std::string kSizes = std::string(BURROW_TEST_FILES) + "/../configs/models/llava_1_5_7b.toml";

MemoryPlan plan_of(const std::vector<std::string>& overrides) {
  return plan_memory(read_run_config(kSizes, overrides, DataKeys::optional));
}
std::string refusal_of(const PlanCommand& command) {
  return error_of([&] { run_plan(command); });
}
double ratio(size_t a, size_t b) { return static_cast<double>(a) / static_cast<double>(b); }

}  // namespace

TEST_CASE("weights and optimiser of LLaVA-1.5-7B with LoRA") {
  const MemoryPlan f32 = plan_of({"method.name=lora", "method.rank=32", "train.tokens_per_step=2048"});
  // Vicuna 6.738 B, CLIP ViT-L/14-336 0.304 B, projector 0.021 B.
  const int64_t frozen = f32.total_parameters - f32.trainable_parameters;
  CHECK(frozen > 7'060'000'000);
  CHECK(frozen < 7'067'000'000);
  CHECK(f32.weights == static_cast<size_t>(4 * frozen));
  // f32 values, gradients and two moments; each parameter is padded to whole cache lines.
  CHECK(ratio(f32.optimiser, static_cast<size_t>(16 * f32.trainable_parameters)) ==
        doctest::Approx(1).epsilon(1e-3));
  CHECK(f32.tokens == 2048);
  const MemoryPlan half =
      plan_of({"method.name=lora", "method.rank=32", "train.tokens_per_step=2048", "model.dtype=bf16"});
  CHECK(ratio(half.weights, f32.weights) == doctest::Approx(0.5).epsilon(2e-3));  // norms and biases stay f32
  CHECK(half.optimiser == f32.optimiser);
}

// With LoRA on the FFN, a layer keeps per token, in f32: the inputs of both norms and of the FFN, q, k, v and
// the output of attention; gate, up and their product. The activations of LoRA and the statistics are less
// than 1 %.
TEST_CASE("activations grow with the tokens by what the layers keep") {
  const auto activations = [](int64_t tokens) {
    return plan_of({"method.name=lora", "method.rank=32", "method.dropout=0",
                    fmt::format("train.tokens_per_step={}", tokens)})
        .activations;
  };
  const size_t one = activations(4096), two = activations(8192);
  const double per_token = static_cast<double>(two - one) / 4096;
  CHECK(per_token == doctest::Approx(4.0 * 32 * (7 * 4096 + 3 * 11008)).epsilon(0.02));
}

// A recomputed layer keeps only its input, of the seven vectors and the three in the FFN. The first layer
// keeps less anyway, since no gradient of its input is needed.
TEST_CASE("a recomputed layer keeps only its input, and the advice recomputes the fewest layers that fit") {
  const std::vector<std::string> options{"method.name=lora", "method.rank=32", "method.dropout=0",
                                         "train.tokens_per_step=4096"};
  const auto plan = [&](int64_t layers) {
    std::vector<std::string> with = options;
    with.push_back(fmt::format("train.recompute_layers={}", layers));
    return plan_of(with);
  };
  const size_t one = plan(1).activations, half = plan(16).activations;
  CHECK(static_cast<double>(one - half) / (4096 * 15) ==
        doctest::Approx(4.0 * (6 * 4096 + 3 * 11008)).epsilon(0.01));
  CHECK(plan(0).activations > one);
  CHECK(ratio(plan(32).activations, one) < 0.12);
  PlanCommand command{kSizes, "", "", options};
  command.overrides.insert(command.overrides.end(), {"model.dtype=bf16", "model.compute=bf16"});
  const auto peak = [&](int64_t layers) {
    std::vector<std::string> with = command.overrides;
    with.push_back(fmt::format("train.recompute_layers={}", layers));
    return plan_of(with).peak();
  };
  command.memory = fmt::format("{}MiB", (peak(7) >> 20) + 1);
  CHECK(contains(refusal_of(command), "It fits with train.recompute_layers = 7: "));
  for (const auto& [layers, said] : {std::pair{"-1", "train.recompute_layers = -1: must be 0 to 32"},
                                     {"33", "train.recompute_layers = 33: must be 0 to 32"}}) {
    command.overrides.back() = fmt::format("train.recompute_layers={}", layers);
    CHECK(refusal_of(command) == said);
  }
}

TEST_CASE("a step that does not fit is refused with advice") {
  PlanCommand command{kSizes, "80GiB", "", {"method.name=mole", "method.experts=3", "method.rank=32"}};
  command.overrides.push_back("train.tokens_per_step=4096");
  CHECK(refusal_of(command) == "no error");
  command.memory = "40GiB";
  std::string said = refusal_of(command);
  CHECK(
      contains(said, "--memory is 40.00 GiB. It fits with model.dtype = 'bf16' and model.compute = 'bf16'"));
  command.memory = "28GiB";
  said = refusal_of(command);
  CHECK(contains(said, "It fits with train.recompute_layers = 10, model.dtype = 'bf16'"));
  CHECK(contains(said, "; or with train.accumulation = 2, model.dtype = 'bf16'"));
  command.memory = "17GiB";
  CHECK(contains(refusal_of(command),
                 "train.accumulation = 2, train.recompute_layers = 32, model.dtype = 'bf16'"));
  command.memory = "8GiB";
  CHECK(contains(refusal_of(command), "a larger GPU"));
  command.memory = "80";
  CHECK(contains(refusal_of(command), "--memory 80: must be a number with unit GiB"));
  CHECK_FALSE(cuda::options().planned);
}
