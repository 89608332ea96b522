// Identities of mixtures of LoRA experts, exact or up to rounding, in f64 unless a test states otherwise. The
// tolerance 1e-12 allows for the growth of f64 rounding (1e-16) through four layers.
#include "moe/lora.h"
#include "tests/support/mini_llava.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

constexpr double kRounding = 1e-12;

moe::MethodConfig per_sample(moe::MethodConfig c) {
  c.router.granularity = moe::Granularity::sample;
  return c;
}
moe::MethodConfig per_linear(moe::MethodConfig c) {
  c.router.placement = moe::RouterPlacement::linear;
  return c;
}
// Every method of the golden values that has a router, and combinations that none of them has.
std::vector<std::pair<std::string, moe::MethodConfig>> mixtures() {
  std::vector<std::pair<std::string, moe::MethodConfig>> all;
  for (const GoldenCase& c : golden_cases()) {
    if (c.method.experts > 1 && c.method.expert != moe::ExpertKind::shard) all.emplace_back(c.name, c.method);
  }
  const moe::MethodConfig scaled = small_method("mole_scaled");
  moe::MethodConfig top2 = scaled, layered = scaled, mola_by_layer = small_method("mola");
  top2.router.top_k = 2;
  layered.experts_by_layer = {1, 2, 3, 4};
  mola_by_layer.experts_by_layer = moe::method("mola").experts_by_layer;
  all.insert(all.end(), {{"top 2", top2},
                         {"router per linear", per_linear(scaled)},
                         {"mola by layer", mola_by_layer},
                         {"experts by layer", layered}});
  return all;
}

}  // namespace

TEST_CASE_TEMPLATE("at step 0 any LoRA method equals the frozen model exactly", T, float, double) {
  constexpr DType dtype = DTypeOf<T>::value;
  const Tensor frozen = frozen_hidden(dtype);
  auto methods = mixtures();
  methods.emplace_back("lora", small_method("lora"));
  for (const auto& [name, method] : methods) {
    CAPTURE(name);
    moe::MethodConfig everywhere = method;
    const auto& experts = everywhere.expert_targets;
    if (std::find(experts.begin(), experts.end(), "q_proj") == experts.end())
      everywhere.lora_targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
    everywhere.dropout = 0.5;  // with B = 0, dropout has no effect
    Mini mini = random_mini(everywhere, dtype);
    mini.training = true;
    const Tensor hidden = evaluate(mini, batch(dtype)).hidden.value();
    // The weights of FFN experts sum to 1 only up to rounding.
    if (method.expert == moe::ExpertKind::ffn)
      CHECK(relative_error(hidden, frozen) < (dtype == DType::f64 ? kRounding : 1e-5));
    else
      CHECK(distance(hidden, frozen) == 0);
  }
}

TEST_CASE("a mixture with one expert trains like plain LoRA") {
  moe::MethodConfig one = small_method("mole_scaled");
  one.experts = 1;
  Mini mixture = random_mini(one, DType::f64), plain = random_mini(small_method("lora"), DType::f64);
  CHECK(mixture.arena.slots().size() == plain.arena.slots().size());
  TrainingSteps a(mixture, 1e-2), b(plain, 1e-2);
  for (int i = 0; i < 3; ++i) CHECK(a.step(batch(), 0.1) == b.step(batch(), 0.1));
  CHECK(same_bits(mixture.arena.values, plain.arena.values));
}

TEST_CASE("the balance loss of uniform routing has its analytic value") {
  for (const auto scope : {moe::BalanceScope::sample, moe::BalanceScope::batch}) {
    for (const auto pool :
         {moe::BalancePool::all_layers, moe::BalancePool::layer, moe::BalancePool::router}) {
      Mini mini = random_mini(small_method("mole_none"), DType::f64);
      zero_routers(mini);
      // All probabilities are 1/E, so whatever was chosen: sum_e C_e / E = 1/E.
      CHECK(evaluate(mini, batch(), 0, {.scope = scope, .pool = pool}).balance.value().item() ==
            doctest::Approx(1.0 / 3).epsilon(1e-14));
      CHECK(evaluate(mini, batch(), 0, {.scope = scope, .pool = pool, .times_experts = true})
                .balance.value()
                .item() == doctest::Approx(1).epsilon(1e-14));
    }
  }
}

TEST_CASE("the balance loss of certain routing to one expert is 1") {
  const int64_t N = batch().segments.rows();
  Tensor certain = Tensor::zeros({N, 4}, DType::f64);
  for (int64_t n = 0; n < N; ++n) certain.data<double>()[n * 4 + 2] = 1;
  const std::vector<nn::Routing> routings{{"r", 0, Var(certain), Var(certain), certain}};
  const nn::Pass pass(batch().segments);
  CHECK(moe::balance_loss(routings, pass, {}).value().item() == doctest::Approx(1).epsilon(1e-14));
  CHECK(moe::balance_loss(routings, pass, {.times_experts = true}).value().item() ==
        doctest::Approx(4).epsilon(1e-14));
}

TEST_CASE("without gate gradient and balance loss, router gradients are 0") {
  for (const auto& method : {small_method("mole_none"), per_sample(small_method("mole_none")),
                             per_linear(small_method("mole_none"))}) {
    Mini mini = generated_mini(method, DType::f64);
    gradients_of(mini, evaluate(mini, batch()).total);
    for (const auto& slot : mini.arena.slots()) {
      CAPTURE(slot.name);
      CHECK((norm(mini.arena.grad(slot)) == 0) == is_router(slot.name));
    }
    gradients_of(mini, evaluate(mini, batch(), 0.1).total);
    for (const auto& slot : mini.arena.slots()) CHECK(norm(mini.arena.grad(slot)) > 0);
  }
}

TEST_CASE("a mixture of equal experts whose weights sum to 1 equals one expert") {
  moe::MethodConfig plain = small_method("lora"), attention = small_method("lora");
  attention.lora_targets = small_method("mixlora").lora_targets;
  for (const auto& [mixture, single] : {std::pair{small_method("dense"), plain},
                                        {small_method("mixlora"), attention},
                                        {small_method("loramoe"), plain}}) {
    Mini many = generated_mini(mixture, DType::f64), one = generated_mini(single, DType::f64);
    for (const auto& slot : one.arena.slots()) {  // copy A [R,in] and B [out,R] to every expert
      const Tensor value = one.arena.value(slot);
      Tensor to = many.arena.value(many.arena.slot(slot.name));
      const int64_t E = to.numel() / value.numel(), cols = to.dim(1), part = value.dim(1);
      const bool is_a = part == cols;
      for (int64_t i = 0; i < to.numel(); ++i) {
        const int64_t row = i / cols, col = i % cols, rows = to.dim(0) / (is_a ? E : 1);
        to.data<double>()[i] = value.data<double>()[row % rows * part + col % part];
      }
    }
    CHECK(relative_error(evaluate(many, batch()).hidden.value(), evaluate(one, batch()).hidden.value()) <
          kRounding);
  }
}

// The loop computes y = W x + b + (alpha/R) sum_e w_e B_e (A_e x) for each expert and row.
TEST_CASE("masked execution equals a loop over experts") {
  const int64_t N = 9, in = 7, out = 5, E = 4, R = 3;
  const auto source = nn::random_weights(5, DType::f64);
  nn::Linear base("block.mlp.up_proj", in, out, true, *source);
  base.bias = Var(normal("bias", {out}));
  moe::MethodConfig method = small_method("mole_scaled");
  method.rank = R;
  moe::LoraBank bank(base, E, method, 3);
  bank.b = Var(normal("b", {out, E * R}));
  Tensor weights = normal("weights", {N, E});
  for (int64_t i = 0; i < N * E; i += 2) weights.data<double>()[i] = 0;  // experts that are not selected
  const Tensor x = normal("x", {N, in});
  const Values vx = values_of(x), w = values_of(base.weight.value()), bias = values_of(base.bias.value()),
               a = values_of(bank.a.value()), b = values_of(bank.b.value()), gate = values_of(weights);
  const auto at = [](const Values& v, int64_t cols, int64_t i, int64_t j) {
    return v[static_cast<size_t>(i * cols + j)];
  };
  Tensor want = Tensor::empty({N, out}, DType::f64);
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t o = 0; o < out; ++o) {
      double y = bias[static_cast<size_t>(o)];
      for (int64_t c = 0; c < in; ++c) y += at(w, in, o, c) * at(vx, in, n, c);
      for (int64_t e = 0; e < E; ++e) {
        double delta = 0;
        for (int64_t r = e * R; r < (e + 1) * R; ++r) {
          double h = 0;
          for (int64_t c = 0; c < in; ++c) h += at(a, in, r, c) * at(vx, in, n, c);
          delta += at(b, E * R, o, r) * h;
        }
        y += method.alpha / static_cast<double>(R) * at(gate, E, n, e) * delta;
      }
      want.data<double>()[n * out + o] = y;
    }
  }
  const nn::Routing routing{"router", 0, {}, Var(weights), {}};
  CHECK(relative_error(bank.masked(base, Var(x), linear(Var(x), bank.a), &routing).value(), want) < 1e-14);
}

// Compares values and gradients of a model, for each gate, granularity and number of experts per token.
TEST_CASE_TEMPLATE("grouped execution equals masked execution", T, float, double) {
  constexpr DType dtype = DTypeOf<T>::value;
  const double bound = dtype == DType::f64 ? kRounding : 1e-5;
  for (auto& [name, method] : mixtures()) {
    if (method.router.selection != moe::Selection::top_k || method.expert == moe::ExpertKind::ffn) continue;
    CAPTURE(name);
    Losses losses[2];
    Tensor gradients[2];
    for (const bool grouped : {false, true}) {
      moe::MethodConfig c = method;
      c.execution = grouped ? moe::Execution::grouped : moe::Execution::masked;
      c.dropout = 0.2;
      Mini mini = generated_mini(c, dtype);
      mini.training = true;
      reset_kernel_calls();
      losses[grouped] = evaluate(mini, batch(dtype), 0.1);
      CHECK((kernel_calls(KernelId::group_by_expert) > 0) == grouped);
      CHECK((kernel_calls(KernelId::grouped_scale) > 0) == grouped);
      mini.arena.grads.zero();
      backward(losses[grouped].total);
      gradients[grouped] = mini.arena.grads;
      for (const auto& slot : mini.arena.slots()) {
        const bool idle = c.router.gate == GateMode::none && is_router(slot.name);
        if (!grouped) continue;
        CAPTURE(slot.name);
        const Tensor masked = Tensor::view(
            gradients[0].storage(), static_cast<size_t>(slot.begin) * size_of(dtype), slot.shape, dtype);
        CHECK(relative_error(mini.arena.grad(slot), masked, 1e-3) < bound);
        CHECK((norm(masked) > 0 || idle));
      }
    }
    CHECK(relative_error(losses[1].hidden.value(), losses[0].hidden.value()) < bound);
    CHECK(relative_error(losses[1].total.value(), losses[0].total.value()) < bound);
  }
}

TEST_CASE("the choice of execution depends on config and device only") {
  moe::MethodConfig c = small_method("mole_none");
  const auto grouped = [&](int64_t experts, Device device = Device::cpu) {
    return moe::executes_grouped(c, experts, device);
  };
  CHECK(grouped(3));
  CHECK_FALSE(grouped(2));
  c.router.top_k = 2;
  CHECK_FALSE(grouped(5));
  CHECK(grouped(6));
  c.rank = 32;  // on a GPU, grouped if E*R exceeds 256
  CHECK_FALSE(grouped(8, Device::cuda));
  CHECK(grouped(9, Device::cuda));
  CHECK(grouped(8));
  c.execution = moe::Execution::masked;
  CHECK_FALSE(grouped(64));
  CHECK_FALSE(grouped(64, Device::cuda));
  c.execution = moe::Execution::grouped;
  CHECK(grouped(2));
  CHECK(grouped(2, Device::cuda));
  c = small_method("dense");
  CHECK_FALSE(grouped(64));
  c.execution = moe::Execution::grouped;
  c.router.selection = moe::Selection::soft;
  CHECK(contains(error_of([&] { moe::check(c); }),
                 "method.execution = 'grouped' with method.router.selection = 'soft'"));
}

TEST_CASE("merging LoRA into the weights does not change the model") {
  moe::MethodConfig method = small_method("lora");
  method.lora_targets = {"q_proj", "v_proj"};
  Mini mini = generated_mini(method, DType::f64);
  const Tensor unmerged = evaluate(mini, batch()).hidden.value();
  std::map<std::string, Tensor> merged;
  for (const auto& slot : mini.arena.slots()) {  // the model visits B directly after A
    if (!slot.name.ends_with(".lora_A.weight")) continue;
    const std::string linear = slot.name.substr(0, slot.name.size() - std::string(".lora_A.weight").size());
    const Tensor a = mini.arena.value(slot), b = mini.arena.value(mini.arena.slot(linear + ".lora_B.weight"));
    Tensor delta = Tensor::empty({b.dim(0), a.dim(1)}, DType::f64);
    kernel::matmul_nn(delta, b, a, false);
    merged[linear + ".weight"] = delta;
  }
  GeneratedWeights source(DType::f64);
  nn::Llava model(mini_config(), source);
  size_t added = 0;
  model.parameters([&](const nn::Parameter& p) {
    if (!merged.contains(p.name)) return;
    Tensor w = p.var->value();
    kernel::accumulate(w, merged.at(p.name), method.alpha / static_cast<double>(method.rank));
    ++added;
  });
  CHECK(added == 4 * 5);
  CHECK(relative_error(hidden_of(model), unmerged) < kRounding);
}

TEST_CASE("a step changes trainable parameters only") {
  moe::MethodConfig method = small_method("mole_scaled");
  method.train_projector = true;
  Mini mini = generated_mini(method, DType::f32);
  const auto snapshot = [&] {
    std::map<std::string, Tensor> all;
    mini.model->parameters([&](const nn::Parameter& p) { all[p.name] = p.var->value().clone(); });
    return all;
  };
  const auto before = snapshot();
  TrainingSteps(mini, 1e-2).step(batch(DType::f32), 0.1);
  size_t frozen = 0;
  for (const auto& [name, value] : snapshot()) {
    const bool trained =
        contains(name, ".lora_") || is_router(name) || name.starts_with("multi_modal_projector.");
    CHECK_MESSAGE(same_bits(value, before.at(name)) == !trained, name);
    frozen += !trained;
  }
  CHECK(frozen == before.size() - mini.arena.slots().size());
}

TEST_CASE("permuting experts together with the router's rows changes nothing") {
  const std::vector<int64_t> permutation{2, 0, 1};
  for (const auto& [name, method] : mixtures()) {
    if (!method.experts_by_layer.empty()) continue;
    CAPTURE(name);
    Mini mini = generated_mini(method, DType::f64), other = generated_mini(method, DType::f64);
    for (const auto& slot : mini.arena.slots()) {
      const Tensor from = mini.arena.value(slot);
      Tensor to = other.arena.value(slot);
      if (contains(slot.name, "self_attn") && !method.lora_targets.empty()) continue;
      if (contains(slot.name, ".threshold.") || contains(slot.name, ".lambda_")) continue;
      const bool columns = slot.name.ends_with("lora_B.weight");  // [out, E*R]; all others by rows
      const int64_t cols = from.cols(), group = (columns ? cols : from.dim(0)) / 3;
      for (int64_t i = 0; i < from.numel(); ++i) {
        int64_t row = i / cols, col = i % cols;
        int64_t& moved = columns ? col : row;
        moved = permutation[static_cast<size_t>(moved / group)] * group + moved % group;
        to.data<double>()[row * cols + col] = from.data<double>()[i];
      }
    }
    const Losses a = evaluate(mini, batch(), 0.1), b = evaluate(other, batch(), 0.1);
    CHECK(relative_error(b.hidden.value(), a.hidden.value()) < kRounding);
    CHECK(relative_error(b.total.value(), a.total.value()) < kRounding);
  }
}

TEST_CASE("accumulation: loss, balance loss and gradients of a step do not depend on its micro-batches") {
  for (auto& [name, method] : mixtures()) {
    CAPTURE(name);
    // With scope batch, the product of means depends on the micro-batches.
    method.balance.weight = method.balance.scope == moe::BalanceScope::sample ? 0.3 : 0;
    method.localised.weight = 0;
    Mini mini = generated_mini(method, DType::f64);
    const OwnLosses whole = evaluate_own(mini, batch());
    std::map<std::string, double> want, got;
    for (const auto& [term, value] : whole.terms) want[term] = value.value().item();
    const double want_total = whole.total.value().item();
    const Tensor gradient = gradients_of(mini, whole.total);
    mini.arena.grads.zero();
    double total = 0;
    for (const Batch& part : batch_halves()) {
      const auto of = [](int64_t n, int64_t all) {
        return static_cast<double>(n) / static_cast<double>(all);
      };
      const double tokens = of(part.rows.numel(), batch().rows.numel());
      const double samples = of(part.segments.count(), 5), rows = of(part.segments.rows(), 117);
      const OwnLosses l = evaluate_own(mini, part, {5, 117, part.rows.numel(), 2});
      const Var sum = add(l.total, scale(l.task, tokens - 1));
      for (const auto& [term, value] : l.terms)
        got[term] += (term == "balance" ? samples : rows) * value.value().item();
      total += sum.value().item();
      backward(sum);
    }
    REQUIRE(got.size() == want.size());
    for (const auto& [term, value] : want) CHECK(got.at(term) == doctest::Approx(value).epsilon(1e-13));
    CHECK(total == doctest::Approx(want_total).epsilon(1e-13));
    CHECK(relative_error(mini.arena.grads, gradient) < kRounding);
  }
}

// Dropout depends on the sample's ordinal and the token's position, so it is independent of neighbours, too.
TEST_CASE("a sample's loss does not depend on other samples of the batch") {
  const auto samples = golden_samples();
  for (auto& [name, method] : mixtures()) {
    CAPTURE(name);
    method.dropout = 0.3;
    Mini mini = generated_mini(method, DType::f64);
    const std::vector<double> without = row_losses(mini, batch());
    mini.training = true;
    const std::vector<double> together = row_losses(mini, batch());
    CHECK(together != without);
    size_t row = 0;
    for (const Sample& s : samples) {
      for (const double alone : row_losses(mini, Batch({s}, DType::f64))) {
        CHECK(together[row] == doctest::Approx(alone).epsilon(kRounding));
        ++row;
      }
    }
    CHECK(row == together.size());
    const std::vector<double> reversed =
        row_losses(mini, Batch({samples.rbegin(), samples.rend()}, DType::f64));
    CHECK(
        reversed[0] ==
        doctest::Approx(together[together.size() - 6]).epsilon(kRounding));  // the last has 6 supervised rows
  }
}

TEST_CASE("a routing decision per sample does not read the answer") {
  Mini mini = generated_mini(per_sample(small_method("mole_scaled")), DType::f64);
  std::vector<Sample> samples = golden_samples();
  const auto routings = [&] {
    const Batch b(samples, DType::f64);
    std::vector<Tensor> probs;
    for (const nn::Routing& r : routings_of(mini, b)) probs.push_back(r.probs.value());
    return probs;
  };
  const std::vector<Tensor> before = routings();
  for (Sample& s : samples) {
    for (size_t i = 0; i < s.ids.size(); ++i) {
      if (s.kinds[i] == TokenKind::answer) s.ids[i] = (s.ids[i] + 17) % 110;
    }
  }
  const std::vector<Tensor> after = routings();
  for (size_t l = 0; l < before.size(); ++l) CHECK(same_bits(before[l], after[l]));
  // The router reads the prompt of a sample without an image, and not that of a sample with one.
  for (Sample& s : samples) {
    for (size_t i = 0; i < s.ids.size(); ++i) {
      if (s.kinds[i] == TokenKind::prompt) s.ids[i] = (s.ids[i] + 17) % 110;
    }
  }
  const std::vector<Tensor> other = routings();
  const Segments& segments = batch().segments;
  for (int64_t b = 0; b < 5; ++b) {
    const int64_t row = segments.offsets[static_cast<size_t>(b)];
    bool same = true;
    for (size_t l = 0; l < before.size(); ++l) {
      same = same && same_bits(before[l].slice_rows(row, row + 1), other[l].slice_rows(row, row + 1));
    }
    CHECK(same == (samples[static_cast<size_t>(b)].image >= 0));
  }
}

TEST_CASE("routing decides per sample or per token") {
  for (const bool whole : {false, true}) {
    Mini mini = generated_mini(whole ? per_sample(small_method("mole_scaled")) : small_method("mole_scaled"),
                               DType::f64);
    for (const nn::Routing& r : routings_of(mini, batch())) {
      int64_t differences = 0;  // number of changes between adjacent rows of a sample
      for (int64_t n = 1; n < batch().segments.rows(); ++n) {
        const auto i = static_cast<size_t>(n);
        if (batch().segments.sequence[i] != batch().segments.sequence[i - 1]) continue;
        differences += !same_bits(r.probs.value().slice_rows(n, n + 1), r.probs.value().slice_rows(n - 1, n));
      }
      CHECK(differences == (whole ? 0 : batch().segments.rows() - 5));
    }
  }
}

TEST_CASE("routing statistics count every row once") {
  Mini mini = generated_mini(small_method("mole_scaled"), DType::f64);
  const nn::Pass pass(batch().segments);
  const std::vector<nn::Routing> routings = routings_of(mini, batch());
  auto sum = moe::routing_statistics(routings, pass, 2);
  CHECK(sum.size() == 4);
  moe::add_statistics(sum, moe::routing_statistics(routings, pass, 2));
  for (const moe::RouterStatistics& s : sum) {
    CHECK(s.rows == std::vector<double>{2.0 * 105, 2.0 * 12});
    for (const size_t d : {0, 1})
      CHECK(s.chosen[d][0] + s.chosen[d][1] + s.chosen[d][2] == doctest::Approx(s.rows[d]));
    CHECK(s.active == s.rows);  // top_k = 1
    CHECK(s.entropy[0] > 0);
    CHECK(s.entropy[0] < 2 * 117 * std::log(3));
  }
}
