// The miniature LLaVA: decoding with a cache, initial loss, overfitting; errors and parameter counts of
// attach().
#include "tests/support/mini_llava.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

moe::ParameterCounts counts_of(const moe::MethodConfig& method) {
  nn::Llava model(llava_7b(), *nn::shapes_only(DType::f32));
  return moe::attach(model, method, 1).counts;
}

// ---- decoding

// The rows of a sample before its last answer.
Sample prompt_of(Sample s) {
  while (s.kinds.back() == TokenKind::answer) {
    s.kinds.pop_back();
    s.ids.pop_back();
    s.targets.pop_back();
  }
  return s;
}

using Answers = std::vector<std::vector<int32_t>>;

Answers decode_with_cache(Mini& mini, const std::vector<Sample>& prompts, int32_t stop, int64_t max_new) {
  const Batch batch(prompts, DType::f64);
  const Var features = batch.images.defined() ? (*mini.model->tower)(batch.images) : Var{};
  return nn::greedy_decode(*mini.model, batch.segments, batch.ids, features, stop, max_new);
}

// Decodes without a cache: computes the whole sequence for each new token.
std::vector<int32_t> decode_again(Mini& mini, Sample s, int32_t stop, int64_t max_new) {
  const NoGrad no_grad;
  std::vector<int32_t> answer;
  while (static_cast<int64_t>(answer.size()) < max_new) {
    const Batch batch({s}, DType::f64);
    const Tensor hidden = evaluate(mini, batch).hidden.value();
    Tensor logits = Tensor::empty({1, 110}, DType::f64), best = Tensor::empty({1}, DType::i32);
    kernel::matmul_nt(logits, hidden.slice_rows(hidden.dim(0) - 1, hidden.dim(0)),
                      mini.model->decoder.head.weight.value(), {}, false);
    kernel::argmax(best, logits);
    const int32_t token = best.data<int32_t>()[0];
    if (token == stop) return answer;
    answer.push_back(token);
    s.ids.push_back(token);
    s.kinds.push_back(TokenKind::answer);
    s.targets.push_back(0);  // evaluate needs a supervised token
  }
  return answer;
}

}  // namespace

TEST_CASE("decoding with a cache equals decoding without one") {
  moe::MethodConfig token = small_method("mole_scaled"), sample = token, dense = small_method("dense"),
                    lora = small_method("lora");
  sample.router.granularity = moe::Granularity::sample;
  lora.lora_targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
  nn::ModelConfig grouped = mini_config();
  grouped.decoder.kv_heads = 2;
  std::vector<Sample> prompts;
  for (const Sample& s : golden_samples()) prompts.push_back(prompt_of(s));
  for (const auto& [name, method, config] : {std::tuple{"token routing", token, mini_config()},
                                             {"sample routing", sample, mini_config()},
                                             {"dense", dense, mini_config()},
                                             {"blocks of the FFN", small_method("factorllm"), mini_config()},
                                             {"lora, grouped queries", lora, grouped}}) {
    CAPTURE(name);
    Mini mini = generated_mini(method, DType::f64, config);
    constexpr int32_t kNever = -1;
    constexpr int64_t kNew = 12;
    Answers want;
    for (const Sample& s : prompts) want.push_back(decode_again(mini, s, kNever, kNew));
    CHECK(decode_with_cache(mini, prompts, kNever, kNew) == want);
    // Use a token of some answers as the stop token: those end early, the others do not.
    const int32_t stop = want[0][kNew / 2];
    for (size_t b = 0; b < want.size(); ++b) want[b] = decode_again(mini, prompts[b], stop, kNew);
    CHECK(static_cast<int64_t>(want[0].size()) <= kNew / 2);
    CHECK(decode_with_cache(mini, prompts, stop, kNew) == want);
  }
}

TEST_CASE("decoding: at most max_new tokens; an empty answer if the first token is the stop token") {
  Mini mini = generated_mini(small_method("lora"), DType::f64);
  const std::vector<Sample> prompt{prompt_of(golden_samples()[2])};
  const Answers one = decode_with_cache(mini, prompt, -1, 1);
  REQUIRE(one[0].size() == 1);
  CHECK(decode_with_cache(mini, prompt, one[0][0], 5) == Answers{{}});
}

// ---- training

// Hidden states have mean square 1 after the norm and head weights variance 1/C, so the logits are N(0, 1).
// The mean of logsumexp is then ln V + 1/2, and that of the target's logit 0. With 21 targets the standard
// error is 0.2.
TEST_CASE("the first loss is near ln V") {
  for (const uint64_t seed : {1, 2, 3}) {
    Mini mini = random_mini(small_method("mole_none"), DType::f32, seed);
    const double loss = evaluate(mini, Batch(golden_samples(), DType::f32)).task.value().item();
    CHECK(std::abs(loss - (std::log(110) + 0.5)) < 0.6);
  }
}

TEST_CASE("one batch overfits") {
  moe::MethodConfig mole = small_method("mole_scaled"), lora = small_method("lora");
  for (moe::MethodConfig* method : {&mole, &lora}) {
    method->rank = 8;
    method->alpha = 16;
    method->lora_targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
  }
  for (const moe::MethodConfig& method : {mole, lora}) {
    CAPTURE(method.name);
    Mini mini = random_mini(method, DType::f32);
    const Batch batch(golden_samples(), DType::f32);
    TrainingSteps training(mini, 1e-2);
    const double first = training.step(batch, 0.01);
    for (int i = 0; i < 60; ++i) training.step(batch, 0.01);
    CHECK(first > 4);
    CHECK(evaluate(mini, batch).task.value().item() < 0.05);
  }
}

// ---- attach

TEST_CASE("errors of attach name the config key") {
  using C = moe::MethodConfig;
  const auto refuses = [](const char* text, const std::function<void(C&)>& change) {
    moe::MethodConfig method = small_method("mole_none");
    change(method);
    const std::string message = attach_error(method);
    CHECK_MESSAGE(contains(message, text), message);
  };
  refuses("target 'fc1' matches no Linear", [](C& c) { c.expert_targets.push_back("fc1"); });
  refuses("target 'lm_head' matches no Linear", [](C& c) { c.lora_targets = {"lm_head"}; });
  refuses("'up_proj' is both in method.expert_targets and in method.lora_targets",
          [](C& c) { c.lora_targets = {"up_proj"}; });
  refuses("method 'mole' trains nothing: method.expert_targets", [](C& c) { c.expert_targets.clear(); });
  refuses("method.experts = 0", [](C& c) { c.experts = 0; });
  refuses("method.experts = -3", [](C& c) { c.experts = -3; });
  refuses("method.rank = 0", [](C& c) { c.rank = 0; });
  refuses("method.rank = 129: larger than 'language_model.model.layers.0.mlp.gate_proj'",
          [](C& c) { c.rank = 129; });
  refuses("method.router.top_k = 4: must be 1 to 3", [](C& c) { c.router.top_k = 4; });
  refuses("method.router.top_k = 0", [](C& c) { c.router.top_k = 0; });
  refuses("method.dropout = 1", [](C& c) { c.dropout = 1; });
  refuses("method.alpha = 0", [](C& c) { c.alpha = 0; });
  refuses("method.balance.weight = -1", [](C& c) { c.balance.weight = -1; });
  refuses("method.balance.weight = inf",
          [](C& c) { c.balance.weight = std::numeric_limits<double>::infinity(); });
  refuses("method.alpha = nan", [](C& c) { c.alpha = std::nan(""); });
  refuses("method.router.init_std = nan", [](C& c) { c.router.init_std = std::nan(""); });
  refuses("method.experts = 9000000000000000000", [](C& c) { c.experts = 9'000'000'000'000'000'000; });
  refuses("method.experts_by_layer has 0", [](C& c) { c.experts_by_layer = {2, 0}; });
  refuses("method.experts_by_layer: 3 values do not divide 4 layers", [](C& c) {
    c.experts_by_layer = {1, 2, 3};
  });
  refuses("method.experts_by_layer: 5 values", [](C& c) { c.experts_by_layer = {1, 2, 3, 4, 5}; });
  refuses("method.router.top_k = 3: must be 1 to 2", [](C& c) {
    c.experts_by_layer = {1, 2};
    c.router.top_k = 3;
  });
  CHECK(contains(error_of([] { (void)moe::method("mola2"); }),
                 "method.name = 'mola2': no such method; the table has full, lora"));
}

TEST_CASE("attach reports what it matched") {
  const std::string report = random_mini(small_method("mole_none"), DType::f32).attachment.report;
  CAPTURE(report);
  // 4 Linears with 3 experts of rank 2 each: 4 * 3 * 2 * (128 + 256) parameters.
  CHECK(contains(report, "up_proj    4 Linears, 3 experts of rank 2, 9216 parameters, 3072 active"));
  CHECK(contains(report, "router     4 routers, 1548 parameters"));
}

TEST_CASE("experts_by_layer assigns experts to equal blocks of layers") {
  moe::MethodConfig method = small_method("mole_scaled");
  method.experts_by_layer = {1, 3};
  Mini mini = random_mini(method, DType::f32);
  for (const auto& slot : mini.arena.slots()) {
    CAPTURE(slot.name);
    const bool late = contains(slot.name, "layers.2.") || contains(slot.name, "layers.3.");
    if (slot.name.ends_with("lora_A.weight")) CHECK(slot.shape[0] == (late ? 6 : 2));
    if (is_router(slot.name)) CHECK(late);
  }
  CHECK(routings_of(mini, Batch(golden_samples(), DType::f32)).size() == 2);
  method.experts_by_layer = {4, 3, 2, 1};
  Mini falling = random_mini(method, DType::f32);
  for (int64_t i = 0; i < 4; ++i) {
    const auto& a =
        falling.arena.slot(fmt::format("language_model.model.layers.{}.mlp.up_proj.lora_A.weight", i));
    CHECK(a.shape[0] == 2 * (4 - i));
  }
}

// Parameter counts of LLaVA-MoLE on LLaVA-1.5-7B, with width d, FFN width f and L layers.
TEST_CASE("parameter counts of the 7B model") {
  const int64_t d = 4096, f = 11008, L = 32;
  const int64_t attention = L * 4 * (d + d), ffn = L * 3 * (d + f);  // parameters per unit of rank
  const auto routers = [&](int64_t E) { return L * E * (d + 1); };
  struct Row {
    int64_t rank, experts;
    double lora, mole, active;  // millions, rounded to 0.01
  };
  for (const auto& row : {Row{16, 3, 39.98, 86.77, 40.37},
                          {32, 2, 79.95, 126.62, 80.22},
                          {32, 3, 79.95, 173.15, 80.35},
                          {32, 5, 79.95, 266.21, 80.61},
                          {32, 8, 79.95, 405.80, 81.00},
                          {64, 3, 159.91, 345.90, 160.30},
                          {128, 3, 319.82, 691.40, 320.21}}) {
    CAPTURE(row.rank);
    CAPTURE(row.experts);
    moe::MethodConfig lora = moe::method("lora"), mole = moe::method("mole");
    for (moe::MethodConfig* c : {&lora, &mole}) {
      c->rank = row.rank;
      c->lora_targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
    }
    mole.experts = row.experts;
    const auto plain = counts_of(lora), mixture = counts_of(mole);
    CHECK(plain.trainable == row.rank * (attention + ffn));
    CHECK(plain.active == plain.trainable);
    CHECK(mixture.trainable == row.rank * (attention + row.experts * ffn) + routers(row.experts));
    CHECK(mixture.active == row.rank * (attention + ffn) + routers(row.experts));
    CHECK(static_cast<double>(plain.trainable) / 1e6 == doctest::Approx(row.lora).epsilon(6e-3 / row.lora));
    CHECK(static_cast<double>(mixture.trainable) / 1e6 == doctest::Approx(row.mole).epsilon(6e-3 / row.mole));
    CHECK(static_cast<double>(mixture.active) / 1e6 ==
          doctest::Approx(row.active).epsilon(6e-3 / row.active));
    // The decoder, LLaMA-7B, has 6,738,415,616 parameters; the others belong to projector and vision tower.
    const int64_t projector = 1024 * d + d + d * d + d, tower = 303'507'456;
    CHECK(plain.total - plain.trainable == 6'738'415'616 + projector + tower);
  }
}
