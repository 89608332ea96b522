// FactorLLM, whose experts are blocks of a dense FFN: identities of the split, the mixture and the
// Prior-Approximate loss, in f64 unless a test states otherwise. Golden values are in test_golden.cpp.
#include <algorithm>

#include "moe/shards.h"
#include "tensor/profile.h"
#include "tests/support/mini_llava.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

constexpr double kRounding = 1e-12;
constexpr moe::Split kSplits[] = {moe::Split::contiguous, moe::Split::random, moe::Split::clustered};

moe::MethodConfig blocks(int64_t experts, int64_t k, moe::Split split = moe::Split::contiguous) {
  moe::MethodConfig c = moe::method("factorllm");
  c.experts = experts;
  c.router.top_k = k;
  c.shard.split = split;
  return c;
}

Tensor hidden_of(Mini& mini, DType dtype = DType::f64) { return evaluate(mini, batch(dtype)).hidden.value(); }

double prior_of(Mini& mini, moe::PriorForm form) {
  return moe::prior_loss(evaluate(mini, batch()).routings, {.weight = 1, .form = form}).value().item();
}

}  // namespace

TEST_CASE("a split assigns every channel once, to blocks of equal size, ascending within each") {
  const Tensor gate = normal("gate", {60, 9});
  for (const moe::Split split : kSplits) {
    for (const int64_t E : {1, 4, 5, 60}) {
      const std::vector<int64_t> order = moe::split_order(gate, E, split, 3);
      CHECK(order == moe::split_order(gate, E, split, 3));
      std::vector<int64_t> sorted = order;
      std::sort(sorted.begin(), sorted.end());
      for (int64_t i = 0; i < 60; ++i) CHECK(sorted[static_cast<size_t>(i)] == i);
      for (int64_t e = 0; e < E; ++e)
        CHECK(std::is_sorted(order.begin() + e * 60 / E, order.begin() + (e + 1) * 60 / E));
      if (split == moe::Split::contiguous || E == 1) CHECK(order == sorted);
    }
  }
}

// The rows are four directions of unequal lengths plus noise far below their distance, in shuffled order.
TEST_CASE("the clustered split finds clusters of equal size") {
  Tensor gate = normal("noise", {40, 6});
  Random random(5);
  std::vector<int64_t> direction(40);
  for (size_t i = 0; i < 40; ++i) direction[i] = static_cast<int64_t>(i % 4);
  random.shuffle(direction);
  for (int64_t i = 0; i < 40; ++i) {
    for (int64_t c = 0; c < 6; ++c) gate.data<double>()[i * 6 + c] *= 0.01;
    gate.data<double>()[i * 6 + direction[static_cast<size_t>(i)]] += 0.5 + static_cast<double>(i);
  }
  const std::vector<int64_t> order = moe::split_order(gate, 4, moe::Split::clustered, 1);
  for (size_t i = 0; i < 40; ++i)
    CHECK(direction[static_cast<size_t>(order[i])] == direction[static_cast<size_t>(order[i / 10 * 10])]);
}

TEST_CASE_TEMPLATE("choosing all blocks equals the dense model, for every split", T, float, double) {
  constexpr DType dtype = DTypeOf<T>::value;
  const Tensor dense = frozen_hidden(dtype);
  for (const moe::Split split : kSplits) {
    for (const int64_t E : {1, 2, 4, 8}) {
      Mini all = random_mini(blocks(E, E, split), dtype);
      CHECK(relative_error(hidden_of(all, dtype), dense) < (dtype == DType::f64 ? kRounding : 1e-5));
      if (E == 1) continue;
      Mini some = random_mini(blocks(E, 1, split), dtype);
      CHECK(relative_error(hidden_of(some, dtype), dense) > 0.05);
    }
  }
}

TEST_CASE("LoRAs of blocks do not change the output at step 0, and only they are trained") {
  moe::MethodConfig full = blocks(4, 2), lora = full;
  lora.shard.train = moe::BlockTraining::lora;
  Mini a = random_mini(full, DType::f64), b = random_mini(lora, DType::f64);
  CHECK(distance(hidden_of(a), hidden_of(b)) == 0);
  for (const auto& slot : a.arena.slots()) CHECK(!contains(slot.name, ".lora_"));
  for (const auto& slot : b.arena.slots()) CHECK((contains(slot.name, ".lora_") || is_router(slot.name)));
  CHECK(b.arena.slots().size() == 4 * (6 + 2));
}

// Merging adds the LoRA of block e to its weights: W_e + (alpha/R) B_e A_e.
TEST_CASE("merging the LoRAs of blocks into their weights does not change the model") {
  moe::MethodConfig lora = blocks(4, 2);
  lora.shard.train = moe::BlockTraining::lora;
  Mini mini = generated_mini(lora, DType::f64);
  const Tensor unmerged = hidden_of(mini);
  Mini merged = generated_mini(lora, DType::f64);
  std::map<std::string, Tensor> weights;
  merged.model->parameters([&](const nn::Parameter& p) {
    if (p.role != nn::Role::teacher) weights[p.name] = p.var->value();
  });
  for (auto& [name, weight] : weights) {
    if (!contains(name, ".experts.") || contains(name, ".lora_")) continue;
    const std::string site = name.substr(0, name.rfind(".weight"));
    Tensor b = weights.at(site + ".lora_B.weight");
    const Tensor a = weights.at(site + ".lora_A.weight");
    const int64_t out = weight.dim(0) / 4, R = lora.rank;
    for (int64_t e = 0; e < 4; ++e) {
      Tensor delta = Tensor::empty({out, weight.dim(1)}, DType::f64),
             to = weight.slice_rows(e * out, (e + 1) * out);
      kernel::matmul_nn(delta, b.slice_rows(e * out, (e + 1) * out), a.slice_rows(e * R, (e + 1) * R), false);
      kernel::accumulate(to, delta, lora.alpha / static_cast<double>(R));
    }
    b.zero();
  }
  CHECK(relative_error(hidden_of(merged), unmerged) < kRounding);
}

// The reference sums block outputs S_e row by row with plain products: (E/k) sum over chosen e of S_e.
TEST_CASE("the mixture of blocks equals a loop over rows and chosen blocks, with and without rescale") {
  const int64_t N = 7, C = 6, F = 8, E = 4, K = 2;
  for (const bool rescale : {true, false}) {
    moe::MethodConfig method = blocks(E, K);
    method.shard.rescale = rescale;
    method.prior.weight = 0;
    const auto source = nn::random_weights(5, DType::f64);
    nn::FeedForward dense("mlp", C, F, 1, *source);
    const Tensor gate = dense.gate_proj().weight.value(), up = dense.up_proj().weight.value(),
                 down = dense.down_proj().weight.value();
    const Segments segments = one_sequence(N);
    nn::Pass pass(segments);
    moe::Router router("mlp.router", 0, C, E, method, DType::f64, 1);
    const moe::ShardedFeedForward ffn(std::move(dense), std::move(router), method, 1, false);
    const Tensor x = normal("x", {N, C});
    const Tensor got = ffn(Var(x), pass).value();
    const Values chosen = values_of(pass.routings.at(0).chosen), vx = values_of(x), vg = values_of(gate),
                 vu = values_of(up), vd = values_of(down);
    Tensor want = Tensor::zeros({N, C}, DType::f64);
    const auto at = [](const Values& v, int64_t cols, int64_t i, int64_t j) {
      return v[static_cast<size_t>(i * cols + j)];
    };
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t f = 0; f < F; ++f) {
        if (at(chosen, E, n, f / (F / E)) == 0) continue;
        double g = 0, u = 0;
        for (int64_t c = 0; c < C; ++c)
          g += at(vx, C, n, c) * at(vg, C, f, c), u += at(vx, C, n, c) * at(vu, C, f, c);
        const double h = g / (1 + std::exp(-g)) * u * (rescale ? static_cast<double>(E) / K : 1);
        for (int64_t c = 0; c < C; ++c) want.data<double>()[n * C + c] += h * at(vd, F, c, f);
      }
    }
    CHECK(relative_error(got, want) < 1e-14);
  }
}

TEST_CASE("selection 'first' equals a narrower dense FFN") {
  moe::MethodConfig first = blocks(4, 2);
  first.router.selection = moe::Selection::first;
  first.shard.rescale = false;
  Mini mini = random_mini(first, DType::f64);
  nn::ModelConfig narrow = mini_config();
  narrow.decoder.mlp_width = 128;
  const auto source = nn::random_weights(1, DType::f64);
  nn::Llava wide(mini_config(), *source), dense(narrow, *source);
  std::map<std::string, Tensor> values;
  wide.parameters([&](const nn::Parameter& p) { values[p.name] = p.var->value(); });
  dense.parameters([&](const nn::Parameter& p) {
    const Tensor& v = values.at(p.name);
    if (v.shape() == p.var->shape()) return void(*p.var = Var(v));
    Tensor part = p.var->value();
    for (int64_t i = 0; i < part.dim(0); ++i)
      for (int64_t j = 0; j < part.dim(1); ++j)
        part.data<double>()[i * part.dim(1) + j] = v.data<double>()[i * v.dim(1) + j];
  });
  CHECK(relative_error(hidden_of(mini), hidden_of(dense)) < kRounding);
}

TEST_CASE("only chosen blocks are computed, in prefill and in decoding") {
  const auto flops_of = [](int64_t E, int64_t K, int64_t rows) {
    moe::MethodConfig method = blocks(E, K);
    method.prior.weight = 0;
    Mini mini = random_mini(method, DType::f64);
    const NoGrad no_grad;
    const Segments segments = one_sequence(rows);
    nn::Pass pass(segments);
    start_profile();
    (*mini.model->decoder.blocks[0].ffn)(Var(normal("x", {rows, 128})), pass);
    double flops = 0;
    for (const KernelProfile& k : stop_profile()) flops += k.name == "gather_matmul_nt" ? k.flops : 0;
    return flops;
  };
  for (const int64_t rows : {1, 25}) {
    const double dense = 2.0 * 3 * 128 * 256 * static_cast<double>(rows);
    CHECK(flops_of(1, 1, rows) == dense);
    CHECK(flops_of(4, 1, rows) == dense / 4);
    CHECK(flops_of(4, 2, rows) == dense / 2);
    CHECK(flops_of(8, 2, rows) == dense / 4);
  }
}

TEST_CASE("permuting the blocks changes neither the output nor the labels of the Prior-Approximate loss") {
  const std::vector<int64_t> permutation{2, 0, 3, 1};
  Mini mini = generated_mini(small_method("factorllm"), DType::f64),
       other = generated_mini(small_method("factorllm"), DType::f64);
  for (const auto& slot : mini.arena.slots()) {
    const Tensor from = mini.arena.value(slot);
    const Tensor to = other.arena.value(slot);
    const int64_t rows = from.dim(0) / 4;
    for (int64_t e = 0; e < 4; ++e) {
      const int64_t source = permutation[static_cast<size_t>(e)];
      to.slice_rows(e * rows, (e + 1) * rows).copy_from(from.slice_rows(source * rows, (source + 1) * rows));
    }
  }
  const OwnLosses a = evaluate_own(mini, batch()), b = evaluate_own(other, batch());
  CHECK(relative_error(b.hidden.value(), a.hidden.value()) < kRounding);
  REQUIRE(a.terms.contains("prior"));
  CHECK(relative_error(b.terms.at("prior").value(), a.terms.at("prior").value()) < kRounding);
}

TEST_CASE("with all blocks as labels, the Prior-Approximate loss is minimal for a uniform router") {
  Mini mini = random_mini(blocks(4, 4), DType::f64);
  CHECK(prior_of(mini, moe::PriorForm::kl) > 1e-3);
  zero_routers(mini);
  CHECK(std::abs(prior_of(mini, moe::PriorForm::kl)) < kRounding);
  CHECK(prior_of(mini, moe::PriorForm::cross_entropy) == doctest::Approx(std::log(4)).epsilon(1e-13));
  const Var loss = moe::prior_loss(evaluate(mini, batch()).routings, {.weight = 1});
  for (const double g : values_of(gradients_of(mini, loss))) CHECK(std::abs(g) < kRounding);
}

// softmax of (1, 1, 0, 0) is (0.366, 0.366, 0.134, 0.134).
TEST_CASE("the Prior-Approximate loss of known probabilities") {
  const Var p(Tensor::of({1, 4}, std::vector<double>{0.5, 0.25, 0.15, 0.1}));
  nn::Routing r{"r", 0, p, p, p.value()};
  r.prior = p;
  r.label = Tensor::of({1, 4}, std::vector<double>{1, 1, 0, 0});
  const std::vector<nn::Routing> routings{r};
  const double e = std::exp(1.0), high = e / (2 * e + 2), low = 1 / (2 * e + 2);
  CHECK(high == doctest::Approx(0.366).epsilon(1e-3));
  const double kl = 0.5 * std::log(0.5 / high) + 0.25 * std::log(0.25 / high) + 0.15 * std::log(0.15 / low) +
                    0.1 * std::log(0.1 / low);
  CHECK(moe::prior_loss(routings, {}).value().item() == doctest::Approx(kl).epsilon(1e-13));
  CHECK(moe::prior_loss(routings, {.form = moe::PriorForm::cross_entropy}).value().item() ==
        doctest::Approx(-(std::log(0.5) + std::log(0.25)) / 2).epsilon(1e-13));
}

TEST_CASE("the Prior-Approximate loss is the only source of router gradients") {
  Mini mini = generated_mini(small_method("factorllm"), DType::f64);
  const OwnLosses l = evaluate_own(mini, batch());
  gradients_of(mini, l.task);
  for (const auto& slot : mini.arena.slots())
    CHECK((norm(mini.arena.grad(slot)) == 0) == is_router(slot.name));
  gradients_of(mini, evaluate_own(mini, batch()).terms.at("prior"));
  for (const auto& slot : mini.arena.slots())
    CHECK((norm(mini.arena.grad(slot)) > 0) == is_router(slot.name));
  moe::MethodConfig without = small_method("factorllm");
  without.prior.weight = 0;
  Mini untaught = generated_mini(without, DType::f64);
  CHECK(evaluate_own(untaught, batch()).terms.empty());
  CHECK(same_bits(hidden_of(untaught), hidden_of(mini)));  // the teacher changes no output
}

TEST_CASE("the labels are the blocks closest to the dense FFN's output") {
  for (const int64_t far : {0, 1}) {
    Mini mini = random_mini(blocks(2, 1), DType::f64);
    for (const auto& slot : mini.arena.slots()) {  // one block of layer 0 is nowhere near
      if (!contains(slot.name, "layers.0.mlp.experts.down_proj")) continue;
      Tensor block = mini.arena.value(slot).slice_rows(far * 128, far * 128 + 128);
      kernel::scale(block, block, 100);
    }
    const Values label = values_of(evaluate(mini, batch()).routings[0].label);
    REQUIRE(label.size() == 2 * 117);
    for (size_t i = 0; i < label.size(); ++i) CHECK(label[i] == (static_cast<int64_t>(i % 2) == far ? 0 : 1));
  }
}

TEST_CASE("a step's Prior-Approximate loss does not depend on its micro-batches") {
  Mini mini = generated_mini(small_method("factorllm"), DType::f64);
  const OwnLosses whole = evaluate_own(mini, batch());
  double sum = 0;
  for (const Batch& part : batch_halves()) {
    const double rows = static_cast<double>(part.segments.rows()) / 117;
    const OwnLosses l = evaluate_own(mini, part, {5, 117, part.rows.numel(), 2});
    sum += rows * l.terms.at("prior").value().item();
  }
  CHECK(sum == doctest::Approx(whole.terms.at("prior").value().item()).epsilon(1e-13));
}

// bench train writes values through the visit; plan and --dry-run count without memory.
TEST_CASE("the teacher is visited with the model, and neither trained nor counted among its parameters") {
  moe::MethodConfig without = small_method("factorllm");
  without.prior.weight = 0;
  const Mini taught = generated_mini(small_method("factorllm"), DType::f64),
             alone = generated_mini(without, DType::f64);
  CHECK(taught.attachment.counts.total == alone.attachment.counts.total);
  CHECK(taught.attachment.trainable.size() == alone.attachment.trainable.size());
  const auto teachers = [](const Mini& mini) {
    int count = 0;
    mini.model->parameters([&](const nn::Parameter& p) {
      count += p.role == nn::Role::teacher;
      CHECK((p.role != nn::Role::teacher || !p.var->needs_grad()));
    });
    return count;
  };
  CHECK(teachers(taught) == 4 * 3);
  CHECK(teachers(alone) == 0);
}

TEST_CASE("errors of attach and check for blocks") {
  CHECK(contains(attach_error(blocks(3, 1)), "method.experts = 3: must divide the 256 inner channels"));
  moe::MethodConfig lora = blocks(4, 1, moe::Split::random);
  lora.shard.train = moe::BlockTraining::lora;
  CHECK(contains(attach_error(lora), "method.shard.train = 'lora' needs split 'contiguous'"));
  moe::MethodConfig attention = blocks(4, 1);
  attention.lora_targets = {"q_proj"};
  CHECK(contains(attach_error(attention), "needs method.expert = 'shard' and empty method.lora_targets"));
  moe::MethodConfig soft = blocks(4, 1);
  soft.router.selection = moe::Selection::soft;
  CHECK(contains(attach_error(soft), "method.expert = 'shard' needs"));
  moe::MethodConfig dropout = blocks(4, 1);
  dropout.dropout = 0.1;
  CHECK(contains(attach_error(dropout), "method.dropout = 0.1"));
  moe::MethodConfig mole = moe::method("mole");
  mole.prior.weight = 0.1;
  CHECK(contains(attach_error(mole), "method.prior.weight = 0.1"));
}
