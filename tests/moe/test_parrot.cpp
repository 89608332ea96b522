// Parrot's experts on visual tokens: golden values of the module from PyTorch, then identities that hold in
// f64, exactly or up to rounding.
#include "moe/visual.h"
#include "tests/support/mini_llava.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

constexpr double kRounding = 1e-12;
// Sizes of the golden values (scripts/golden/parrot.py).
constexpr int64_t kWidth = 32, kInner = 24, kExperts = 3, kVocabulary = 50, kTokens = 5, kImages = 5;

nn::ModelConfig golden_sizes() {
  nn::ModelConfig c;
  c.vision = {.image_size = 16, .patch_size = 8, .class_token = true};  // 4 patches and the class token
  c.decoder.width = kWidth;
  c.decoder.vocabulary = kVocabulary;
  return c;
}

moe::MethodConfig golden_method() {
  moe::MethodConfig c = moe::method("parrot");
  c.experts = kExperts;
  c.visual.inner = kInner;
  return c;
}
moe::MethodConfig top_k(moe::MethodConfig c, int64_t k, moe::Execution execution) {
  c.router.selection = moe::Selection::top_k;
  c.router.top_k = k;
  c.execution = execution;
  return c;
}

// Inputs of the module, as leaves with gradients.
struct Inputs {
  Segments segments;
  Tensor ids;
  std::map<std::string, Tensor> gradients;
  Var visual, table;
};
Var leaf(Inputs& in, const std::string& name, const Tensor& value) {
  Tensor& gradient = in.gradients[name] = Tensor::zeros(value.shape(), value.dtype());
  return Var::leaf(value, gradient);
}
Inputs golden_inputs(DType dtype) {
  const auto& t = golden_file("parrot").tensors;
  Inputs in;
  const Values ids = values_of(t.at("batch.ids")), kinds = values_of(t.at("batch.kinds")),
               offsets = values_of(t.at("batch.offsets"));
  std::vector<int32_t> tokens;
  Segments& s = in.segments;
  for (size_t b = 0; b + 1 < offsets.size(); ++b) {
    for (auto n = static_cast<size_t>(offsets[b]); n < static_cast<size_t>(offsets[b + 1]); ++n) {
      tokens.push_back(static_cast<int32_t>(ids[n]));
      s.position.push_back(static_cast<int32_t>(n) - static_cast<int32_t>(offsets[b]));
      s.sequence.push_back(static_cast<int32_t>(b));
      s.kind.push_back(static_cast<TokenKind>(static_cast<int>(kinds[n])));
    }
    s.offsets.push_back(static_cast<int32_t>(offsets[b + 1]));
    s.ordinal.push_back(static_cast<int64_t>(b));
    s.dataset.push_back(static_cast<int32_t>(b % 2));
  }
  in.ids = Tensor::of({s.rows()}, tokens);
  in.visual = leaf(in, "visual", generated("parrot.visual", {kImages * kTokens, kWidth}, 4).to(dtype));
  in.table = leaf(in, "table", generated("parrot.table", {kVocabulary, kWidth}, 4).to(dtype));
  return in;
}

struct Module {
  moe::VisualExperts experts;
  Module(const moe::MethodConfig& method, DType dtype)
      : experts(golden_sizes(), method, Tensor::zeros({1}, dtype), 1) {}
  struct Output {
    Var y;
    std::vector<nn::Routing> routings;
  };
  Output decide(const Inputs& in) const {
    nn::Pass pass(in.segments);
    Var y = experts(in.visual, in.table, in.ids, pass);
    return {y, pass.routings};
  }
  Var run(const Inputs& in) const { return decide(in).y; }
};
// A module with generated parameters, whose gradients are stored with those of the inputs.
Module golden_module(const moe::MethodConfig& method, Inputs& in) {
  Module m(method, in.visual.value().dtype());
  m.experts.parameters([&](const nn::Parameter& p) {
    *p.var = leaf(in, p.name, generated_parameter(p.name, p.var->shape(), 1).to(p.var->value().dtype()));
  });
  return m;
}

void check_golden(const std::string& name, const moe::MethodConfig& method, DType dtype) {
  CAPTURE(name);
  const bool wide = dtype == DType::f64;
  const double bound = wide ? 1e-9 : 2e-5;
  const std::string kind = wide ? "f64" : "f32";
  const auto& golden = golden_file("parrot").tensors;
  Inputs in = golden_inputs(dtype);
  const Module m = golden_module(method, in);
  const auto [y, routings] = m.decide(in);
  const auto check = [&](const std::string& what, const Tensor& got) {
    check_below(kind, relative_error(got.to(DType::f64), golden.at(name + "." + what)), bound,
                name + ", " + what);
  };
  check("y", y.value());
  REQUIRE(routings.size() == 1);
  check("probs", routings[0].probs.value());
  const Tensor dy = generated("parrot.dy", y.shape(), 4).to(dtype);
  backward(dot(y, Var(dy)));
  size_t compared = 0;
  for (const auto& [what, gradient] : in.gradients) {
    if (golden.contains(name + ".grad." + what)) {
      check("grad." + what, gradient);
      ++compared;
    } else {
      CHECK_MESSAGE(norm(gradient) == 0, what);  // the embedding table, if the router reads no prompt
    }
  }
  CHECK(compared >= 5);
}

std::vector<std::pair<std::string, moe::MethodConfig>> module_cases() {
  moe::MethodConfig dense = golden_method(), image = dense, constant = dense;
  dense.visual.residual_weight = 0.1;
  image.visual.guidance = moe::Guidance::image;
  constant.visual.guidance = moe::Guidance::constant;
  std::vector<std::pair<std::string, moe::MethodConfig>> cases{
      {"dense", dense}, {"image", image}, {"constant", constant}};
  for (const moe::Execution e : {moe::Execution::masked, moe::Execution::grouped}) {
    moe::MethodConfig two = top_k(golden_method(), 2, e);
    two.router.normalise = true;
    cases.emplace_back("top1", top_k(golden_method(), 1, e));
    cases.emplace_back("top2", two);
  }
  return cases;
}

nn::ModelConfig mini_sizes() {
  nn::ModelConfig c = mini_config();
  c.vision.class_token = true;
  return c;
}

}  // namespace

TEST_CASE("forward and backward of the module agree with PyTorch") {
  for (const auto& [name, method] : module_cases()) {
    for (const DType dtype : {DType::f64, DType::f32}) check_golden(name, method, dtype);
  }
}

TEST_CASE("residual weight 1 and zero down projections return the features unchanged") {
  for (const auto& method : {golden_method(), top_k(golden_method(), 1, moe::Execution::grouped)}) {
    Inputs in = golden_inputs(DType::f64);
    Module m = golden_module(method, in);
    m.experts.down = Var(Tensor::zeros(m.experts.down.shape(), DType::f64));
    CHECK(distance(m.run(in).value(), in.visual.value()) == 0);
  }
}

TEST_CASE("one expert is a plain MLP with a residual, without a router") {
  Inputs in = golden_inputs(DType::f64);
  moe::MethodConfig one = golden_method();
  one.experts = 1;
  one.visual.residual_weight = 0.3;
  const Module m = golden_module(one, in);
  const auto [y, routings] = m.decide(in);
  CHECK(!m.experts.router);
  CHECK(routings.empty());
  const Var& x = in.visual;
  const Var plain =
      add(linear(swiglu(linear(x, m.experts.gate), linear(x, m.experts.up)), m.experts.down), scale(x, 0.3));
  CHECK(distance(y.value(), plain.value()) == 0);
}

TEST_CASE("a mixture of equal visual experts equals one expert for any routing") {
  Inputs in = golden_inputs(DType::f64);
  Module m = golden_module(golden_method(), in);
  moe::MethodConfig single = golden_method();
  single.experts = 1;
  Module one = golden_module(single, in);
  one.experts.gate = Var(m.experts.gate.value().slice_rows(0, kInner));
  one.experts.up = Var(m.experts.up.value().slice_rows(0, kInner));
  Tensor down = Tensor::zeros({kWidth, kInner}, DType::f64), gate = m.experts.gate.value().clone(),
         up = m.experts.up.value().clone(), all = m.experts.down.value().clone();
  for (int64_t c = 0; c < kWidth; ++c) {
    for (int64_t f = 0; f < kInner; ++f) {
      const double w = all.data<double>()[c * kExperts * kInner + f];
      down.data<double>()[c * kInner + f] = w;
      for (int64_t e = 0; e < kExperts; ++e) all.data<double>()[(c * kExperts + e) * kInner + f] = w;
    }
  }
  one.experts.down = Var(down);
  for (int64_t e = 1; e < kExperts; ++e) {
    gate.slice_rows(e * kInner, (e + 1) * kInner).copy_from(gate.slice_rows(0, kInner));
    up.slice_rows(e * kInner, (e + 1) * kInner).copy_from(up.slice_rows(0, kInner));
  }
  m.experts.gate = Var(gate);
  m.experts.up = Var(up);
  m.experts.down = Var(all);
  CHECK(relative_error(m.run(in).value(), one.run(in).value()) < kRounding);
}

TEST_CASE("permuting the experts with the router's rows changes nothing") {
  for (const auto& method : {golden_method(), top_k(golden_method(), 1, moe::Execution::grouped),
                             top_k(golden_method(), 2, moe::Execution::masked)}) {
    Inputs in = golden_inputs(DType::f64);
    Module m = golden_module(method, in);
    const Tensor before = m.run(in).value().clone();
    const int64_t order[] = {2, 0, 1};
    const auto rows = [&](Var& w, int64_t each) {
      Tensor moved = w.value().clone();
      for (int64_t e = 0; e < kExperts; ++e)
        moved.slice_rows(e * each, (e + 1) * each)
            .copy_from(w.value().slice_rows(order[e] * each, (order[e] + 1) * each));
      w = Var(moved);
    };
    rows(m.experts.gate, kInner);
    rows(m.experts.up, kInner);
    rows(m.experts.router->weight, 1);
    const Tensor down = m.experts.down.value();
    Tensor moved = down.clone();
    for (int64_t c = 0; c < kWidth; ++c) {
      for (int64_t e = 0; e < kExperts; ++e)
        std::copy_n(down.data<double>() + (c * kExperts + order[e]) * kInner, kInner,
                    moved.data<double>() + (c * kExperts + e) * kInner);
    }
    m.experts.down = Var(moved);
    CHECK(relative_error(m.run(in).value(), before) < kRounding);
  }
}

TEST_CASE("the routing of an image depends on its own prompt, not on answers or other samples") {
  Inputs in = golden_inputs(DType::f64);
  const Module m = golden_module(golden_method(), in);
  const auto [before, routings] = m.decide(in);
  const Tensor y = before.value().clone(), probs = routings[0].probs.value().clone();
  const Tensor ids = in.ids.clone();
  const auto shift = [&](TokenKind kind, int sequence) {
    in.ids = ids.clone();
    for (size_t n = 0; n < in.segments.kind.size(); ++n) {
      int32_t& id = in.ids.data<int32_t>()[n];
      if (in.segments.kind[n] == kind && (sequence < 0 || in.segments.sequence[n] == sequence))
        id = (id + 7) % static_cast<int32_t>(kVocabulary);
    }
  };
  shift(TokenKind::answer, -1);
  CHECK(same_bits(m.run(in).value(), y));
  shift(TokenKind::prompt, 2);  // a sample without an image
  CHECK(same_bits(m.run(in).value(), y));
  shift(TokenKind::prompt, 3);  // a sample with two images and one prompt
  const Tensor moved = m.decide(in).routings[0].probs.value();
  for (int64_t i = 0; i < kImages; ++i) {
    const bool same = same_bits(moved.slice_rows(i, i + 1), probs.slice_rows(i, i + 1));
    CHECK(same == (i != 2 && i != 3));
  }
}

TEST_CASE("Routing::rows are the first rows of images; all rows of an image have equal weights") {
  Inputs in = golden_inputs(DType::f64);
  const Module m = golden_module(golden_method(), in);
  const std::vector<nn::Routing> routings = m.decide(in).routings;
  const Values rows = values_of(routings[0].rows);
  REQUIRE(rows.size() == kImages);
  for (size_t i = 0; i < rows.size(); ++i)
    CHECK(values_of(in.ids)[static_cast<size_t>(rows[i])] == -1 - static_cast<double>(i) * kTokens);
  // Samples 0, 1, 3 (two images) and 4 have images; samples alternate between two data sets.
  const auto statistics = moe::routing_statistics(routings, nn::Pass(in.segments), 2);
  REQUIRE(statistics.size() == 1);
  CHECK(statistics[0].rows == std::vector<double>{2, 3});
  CHECK(statistics[0].active == std::vector<double>{6, 9});
  // A balance loss over images, from its definition: each sample's images count equally.
  const Values p = values_of(routings[0].probs.value()), c = values_of(routings[0].chosen);
  const std::vector<std::vector<size_t>> images{{0}, {1}, {}, {2, 3}, {4}};
  double sum = 0;
  for (const auto& sample : images) {
    for (size_t e = 0; e < kExperts; ++e) {
      double mean_p = 0, mean_c = 0;
      for (const size_t i : sample) {
        mean_p += p[i * kExperts + e] / static_cast<double>(sample.size());
        mean_c += c[i * kExperts + e] / static_cast<double>(sample.size());
      }
      sum += mean_p * mean_c / 5;
    }
  }
  CHECK(moe::balance_loss(routings, nn::Pass(in.segments), {}).value().item() == doctest::Approx(sum));
}

TEST_CASE("images without a prompt and incomplete images are refused") {
  Inputs in = golden_inputs(DType::f64);
  const Module m = golden_module(golden_method(), in);
  Inputs silent = golden_inputs(DType::f64);
  for (TokenKind& kind : silent.segments.kind) {
    if (kind == TokenKind::prompt) kind = TokenKind::answer;
  }
  CHECK(contains(error_of([&] { m.run(silent); }), "sample 0 of the batch has an image but no prompt"));
  in.visual = Var(Tensor::zeros({kTokens, kWidth}, DType::f64));
  CHECK(contains(error_of([&] { m.run(in); }), "5 visual rows, but the batch has 5 images of 5"));
}

TEST_CASE("parrot in a model: trainable parameters, counts and training") {
  moe::MethodConfig stage2 = moe::method("parrot"), with_lora = stage2;
  with_lora.train_decoder = false;
  with_lora.lora_targets = {"q_proj", "down_proj"};
  with_lora = top_k(with_lora, 2, moe::Execution::automatic);
  const auto attached = [](const moe::MethodConfig& method) {
    nn::Llava model(mini_sizes(), *nn::random_weights(1, DType::f32));
    return moe::attach(model, method, 1);
  };
  const int64_t C = 128, expert = 3 * C * C, router = 6 * C, lora = 4 * 2 * (2 * C + 256 + C);
  const moe::Attachment full = attached(stage2), thin = attached(with_lora);
  CHECK(thin.counts.trainable == 6 * expert + router + lora);
  CHECK(thin.counts.active == 2 * expert + router + lora);
  CHECK(contains(thin.report,
                 "6 experts of inner width 128 on visual tokens, 294912 parameters, 98304 active"));
  int64_t decoder = 0;
  for (const nn::Parameter& p : full.trainable) {
    CHECK((p.name.starts_with("language_model.") || p.name.starts_with("visual_experts.")));
    if (p.name.starts_with("language_model.")) decoder += 1;
  }
  CHECK(decoder == 1 + 4 * 9 + 2);
  nn::Llava shapes(mini_sizes(), *nn::shapes_only(DType::f32));
  CHECK(moe::attach(shapes, with_lora, 1).counts.total == thin.counts.total);
}

TEST_CASE("configs that visual experts do not support are refused") {
  using C = moe::MethodConfig;
  const auto error = [](auto set, nn::ModelConfig sizes = mini_sizes()) {
    C c = moe::method("parrot");
    set(c);
    return attach_error(c, sizes);
  };
  nn::ModelConfig text = mini_sizes();
  text.vision.layers = 0;
  CHECK(contains(error([](C&) {}, text), "needs a model with a vision tower"));
  CHECK(contains(error([](C&) {}, mini_config()), "set model.vision.class_token = true"));
  CHECK(
      contains(error([](C& c) { c.visual.guidance = moe::Guidance::constant; }, mini_config()), "no error"));
  CHECK(contains(error([](C& c) { c.router.top_k = 7; }), "method.router.top_k = 7: must be 1 to 6"));
  CHECK(contains(error([](C& c) { c.visual.residual_weight = -1; }), "method.visual.residual_weight = -1"));
  CHECK(contains(error([](C& c) { c.visual.inner = -1; }), "method.visual.inner = -1"));
  CHECK(
      contains(error([](C& c) { c.lora_targets = {"q_proj"}; }), "method.train_decoder trains the Linears"));
  CHECK(contains(error([](C& c) { c.router.granularity = moe::Granularity::sample; }), "routed per image"));
  CHECK(contains(error([](C& c) { c.expert_targets = {"gate_proj"}; }), "method.expert_targets"));
}

int main(int argc, char** argv) { return run_and_print_worst(argc, argv); }
