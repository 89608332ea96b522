// The training loop in memory: what a step computes, changes and logs.
#include "tensor/json.h"
#include "train/run/trainer.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <limits>
#include <map>
#include <sstream>

#include "tests/support/domains_folder.h"
#include "tests/support/numbers.h"
#include "tests/support/stderr_of.h"
#include "train/run/progress.h"

namespace fs = std::filesystem;
using namespace burrow;
using namespace burrow::testing;
using namespace burrow::train;

namespace {

using Json = nlohmann::json;

const DomainsFolder& folder() {
  static const DomainsFolder f({.train = 60, .validation = 2, .test = 4}, 300);
  return f;
}

Setup setup_of(const std::vector<std::string>& overrides) {
  return make_setup(read_run_config(folder() / "run.toml", overrides));
}
void quiet(const std::string&) {}

std::vector<Json> metrics_of(const std::string& run, const std::vector<std::string>& overrides) {
  Setup setup = setup_of(overrides);
  Trainer trainer(setup, quiet);
  {
    RunDirectory directory(folder() / run, write_run_config(setup.config), false);
    trainer.train(directory);
  }
  std::istringstream text(read_file(folder() / (run + "/metrics.jsonl")));
  std::vector<Json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line));
  return lines;
}

double sum(const Json& values) {
  double total = 0;
  for (const Json& v : values) total += v.get<double>();
  return total;
}

}  // namespace

TEST_CASE("metrics: losses, each auxiliary term, learning rate, gradient norm, and routing by domain") {
  const std::vector<Json> lines = metrics_of("mole", {"method.name=mole", "train.max_steps=6"});
  REQUIRE(lines.size() == 4);  // steps 0, 2, 4, and the last
  for (size_t i = 0; i < lines.size(); ++i) {
    const Json& line = lines[i];
    CHECK(line.at("step") == std::vector<int>{0, 2, 4, 5}[i]);
    CHECK(line.at("loss").get<double>() > 0);
    CHECK(line.at("balance").get<double>() > 0);
    CHECK(line.at("balance").get<double>() <= 1);
    CHECK(line.at("lr").get<double>() >= 0);
    CHECK(line.at("gradient_norm").get<double>() > 0);
    REQUIRE(line.at("routing").size() == 2);  // a router for each of the two layers
    for (const Json& site : line.at("routing")) {
      int dead = 3;
      std::vector<bool> used(3, false);
      REQUIRE(site.at("load").size() >= 2);  // 300 tokens contain several domains
      for (const auto& [domain, load] : site.at("load").items()) {
        REQUIRE(load.size() == 3);
        CHECK(sum(load) == doctest::Approx(1).epsilon(1e-6));
        CHECK(site.at("active").at(domain).get<double>() == doctest::Approx(1).epsilon(1e-6));
        const double entropy = site.at("entropy").at(domain).get<double>();
        CHECK(entropy > 0);
        CHECK(entropy <= std::log(3) + 1e-6);
        for (size_t e = 0; e < 3; ++e) used[e] = used[e] || load[e].get<double>() > 0;
      }
      for (const bool u : used) dead -= u;
      CHECK(site.at("dead_experts") == dead);
    }
  }
}

TEST_CASE("metrics: no balance loss when its weight is 0, no routing without a router") {
  const std::vector<Json> dense = metrics_of("dense", {"method.name=dense", "train.max_steps=1"});
  CHECK(!dense.at(0).contains("balance"));
  CHECK(dense.at(0).at("routing").size() == 2);
  const std::vector<Json> lora = metrics_of("lora", {"method.name=lora", "train.max_steps=1"});
  CHECK(!lora.at(0).contains("balance"));
  CHECK(!lora.at(0).contains("routing"));
}

// In f64, where the order of summation changes results by about 1e-16.
TEST_CASE("a step does not depend on its micro-batches") {
  for (const char* method : {"method.name=lora", "method.name=mole", "method.name=dense"}) {
    CAPTURE(method);
    std::vector<StepResult> whole;
    for (const int parts : {1, 2, 5}) {
      Setup setup = setup_of({method, "model.dtype=f64", fmt::format("train.accumulation={}", parts),
                              "method.dropout=0.2", "method.router.gate=scaled"});
      Trainer trainer(setup, quiet);
      for (int64_t i = 0; i < 3; ++i) {
        const StepResult f = trainer.step(i, trainer.plan().step(i));
        if (parts == 1) whole.push_back(f);
        CHECK(f.total() == doctest::Approx(whole[static_cast<size_t>(i)].total()).epsilon(1e-9));
        CHECK(f.gradient_norm == doctest::Approx(whole[static_cast<size_t>(i)].gradient_norm).epsilon(1e-9));
      }
    }
  }
}

namespace {

struct StepOf {
  StepResult result;
  std::vector<std::pair<std::string, Tensor>> gradients;
};
StepOf first_step(const std::vector<std::string>& overrides) {
  Setup setup = setup_of(overrides);
  Trainer trainer(setup, quiet);
  StepOf s{trainer.step(0, trainer.plan().step(0)), {}};
  for (const nn::Parameter& p : setup.attachment.trainable)
    s.gradients.emplace_back(p.name, p.var->grad().clone());
  return s;
}

}  // namespace

// Dropout masks, losses and gradients are equal to the bit: with and without recomputation the gradient of an
// auxiliary loss reaches a router's outputs before that of the block, and residual sums are the same.
TEST_CASE("recomputed layers change no step, with any method") {
  for (const moe::Method& method : moe::methods()) {
    const moe::MethodConfig& c = method.config;
    CAPTURE(c.name);
    std::vector<std::string> overrides{"method.name=" + c.name, "model.dtype=f64", "train.accumulation=2"};
    if (c.expert == moe::ExpertKind::linear || c.expert == moe::ExpertKind::ffn)
      overrides.emplace_back("method.dropout=0.2");
    if (!c.experts_by_layer.empty()) overrides.emplace_back("method.experts_by_layer=[2, 3]");
    if (c.expert == moe::ExpertKind::visual) overrides.emplace_back("model.vision.class_token=true");
    const StepOf want = first_step(overrides);
    for (const int layers : {1, 2}) {
      CAPTURE(layers);
      overrides.push_back(fmt::format("train.recompute_layers={}", layers));
      const StepOf got = first_step(overrides);
      CHECK(got.result.total() == want.result.total());
      for (size_t i = 0; i < want.gradients.size(); ++i) {
        CHECK_MESSAGE(same_bits(got.gradients[i].second, want.gradients[i].second), want.gradients[i].first);
      }
    }
  }
}

TEST_CASE("a step changes only trainable parameters, and computes no gradient of a frozen weight") {
  // Masked execution computes dA and dB of three Linears in two layers by matmul_tn (dA of gate and up in one
  // call), and dW of each layer's router. Grouped execution has its own kernels for dA and dB.
  struct Row {
    const char *method, *execution;
    int64_t products;
  };
  for (const auto& [method, execution, products] :
       {Row{"lora", "auto", 10}, {"mole", "masked", 12}, {"mole", "grouped", 2}, {"dense", "masked", 12}}) {
    INFO("method = ", method, ", execution = ", execution);
    Setup setup =
        setup_of({fmt::format("method.name={}", method), fmt::format("method.execution={}", execution)});
    Trainer trainer(setup, quiet);
    const auto values = [&] {
      std::map<std::string, Tensor> all;
      setup.model->parameters([&](const nn::Parameter& p) { all[p.name] = p.var->value().clone(); });
      return all;
    };
    const auto before = values();
    const int64_t calls = kernel_calls(KernelId::matmul_tn);
    trainer.step(0, trainer.plan().step(0));
    CHECK(kernel_calls(KernelId::matmul_tn) - calls == products);  // none for a frozen weight
    trainer.step(1, trainer.plan().step(1));
    std::map<std::string, bool> trained;
    for (const nn::Parameter& p : setup.attachment.trainable) trained[p.name] = true;
    size_t frozen = 0;
    for (const auto& [name, value] : values()) {
      const Tensor& old = before.at(name);
      const bool same = std::memcmp(value.bytes(), old.bytes(), old.nbytes()) == 0;
      CHECK_MESSAGE(same == !trained.contains(name), name);
      frozen += same;
    }
    CHECK(frozen + trained.size() == before.size());
  }
}

// With a rate of 0 for all others: biases, thresholds, networks of lambda and the router of visual experts
// included.
TEST_CASE("router_lr is the rate of the routers' parameters alone") {
  for (const char* method : {"mole", "adamole", "ldmole", "factorllm", "parrot"}) {
    CAPTURE(method);
    std::vector<std::string> overrides{fmt::format("method.name={}", method), "train.lr=0",
                                       "train.router_lr=0.01", "method.router.gate=scaled"};
    if (std::string(method) == "parrot") overrides.emplace_back("model.vision.class_token=true");
    Setup setup = setup_of(overrides);
    Trainer trainer(setup, quiet);
    std::map<std::string, Tensor> before;
    for (const nn::Parameter& p : setup.attachment.trainable) before[p.name] = p.var->value().clone();
    trainer.step(0, trainer.plan().step(0));
    int routers = 0, others = 0;  // with a gradient: the networks of lambda begin with most units at 0
    for (const nn::Parameter& p : setup.attachment.trainable) {
      const bool router = contains(p.name, ".router."), learns = norm(p.var->grad()) > 0;
      CHECK_MESSAGE(same_bits(p.var->value(), before.at(p.name)) == !(router && learns), p.name);
      routers += router && learns;
      others += !router && learns;
    }
    CHECK(routers > 0);
    CHECK(others > 0);
  }
}

TEST_CASE("a value that is not finite stops the run; the error names step, tensor, kernel and samples") {
  Setup setup = setup_of({"method.name=mole"});
  Trainer trainer(setup, quiet);
  trainer.step(0, trainer.plan().step(0));
  for (const nn::Parameter& p : setup.attachment.trainable) {
    if (!p.name.ends_with("layers.1.mlp.up_proj.lora_B.weight")) continue;
    Tensor value = p.var->value();
    value.data<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  }
  const std::string message = error_of([&] { trainer.step(1, trainer.plan().step(1)); });
  const auto has = [&](const std::string& part) {
    CHECK_MESSAGE(contains(message, part), part, " in ", message);
  };
  has("step 1: not finite: loss nan, gradient of 'language_model.model.layers.");
  has("first in [");
  has("samples (set:record):");
  const data::StepPlan step = trainer.plan().step(1);
  for (int64_t ordinal = step.begin; ordinal < step.end; ++ordinal) {
    const data::Draw draw = trainer.plan().draw(ordinal);
    has(fmt::format(" {}:{}", kDomains[draw.dataset], trainer.plan().sample(ordinal).record));
  }
}

TEST_CASE("progress: one rewritten line on a terminal, no control characters in a pipe") {
  const auto work = [] {
    ProgressLine line("train", 3);
    for (int64_t i = 1; i <= 3; ++i) {
      ::usleep(250'000);
      line.update(i, "9 tokens/s");
    }
  };
  const std::string terminal = stderr_of(true, work);
  CHECK(contains(terminal, "\rtrain 1/3  9 tokens/s"));
  CHECK(contains(terminal, "\rtrain 3/3"));
  CHECK(terminal.find('\n') == terminal.size() - 1);
  CHECK(stderr_of(false, work).empty());  // no line in the first 20 seconds
}
