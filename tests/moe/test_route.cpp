// The fused op route() against a composition of ops, and its sums against counting.
#include "moe/router.h"
#include "tensor/route_rows.h"
#include "tests/support/kernel_testing.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

using Choice = RouteRule::Choice;

// Sizes with full and partial blocks of rows, groups that span several blocks, and a group without rows.
constexpr int64_t kRows = 700, kExperts = 5, kGroups = 4;
Tensor groups_across_blocks() {
  std::vector<int32_t> group;
  for (int64_t n = 0; n < kRows; ++n) group.push_back(n % 97 == 0 ? -1 : n < 300 ? 0 : n < 301 ? 3 : 1);
  return index_of(group);
}

// The result of route(), computed op by op.
Routed composed(const Var& logits, const RouteRule& rule, const moe::EntropyConfig& entropy,
                const RouteGroups& groups) {
  Routed r;
  r.probs = softmax(logits);
  r.entropy = moe::entropy_of(r.probs, entropy);
  const Tensor& P = r.probs.value();
  r.chosen = Tensor::zeros(P.shape(), P.dtype());
  for (int64_t n = 0; n < P.dim(0); ++n) {
    Values row(P.data<double>() + n * P.dim(1), P.data<double>() + (n + 1) * P.dim(1));
    const double h = r.entropy.value().data<double>()[n];
    double before = 0;
    for (int64_t rank = 0; rank < P.dim(1); ++rank) {
      const auto e = std::max_element(row.begin(), row.end()) - row.begin();
      const double sum = before + row[static_cast<size_t>(e)];
      const bool kept = rule.crossing ? before < rule.top_p : sum <= rule.top_p;
      const bool hybrid = rule.choice == Choice::hybrid && (h > rule.entropy_threshold || kept);
      const bool first = rule.choice == Choice::first;
      const int64_t place = first ? rank : e;
      r.chosen.data<double>()[n * P.dim(1) + place] = hybrid || rank < rule.k;
      before = sum;
      row[static_cast<size_t>(e)] = -1;
    }
  }
  r.weights = Var(r.chosen);
  const Var scaled = mul(r.probs, r.weights);
  if (rule.soft) r.weights = r.probs;
  if (!rule.soft && rule.gate == GateMode::scaled) r.weights = scaled;
  if (!rule.soft && rule.gate == GateMode::straight_through) {  // value M, gradient of M p
    const Var without(add(r.weights, scale(scaled, -1)).value());
    r.weights = add(scaled, without);
  }
  if (rule.normalise) r.weights = normalise_rows(r.weights);
  Tensor of = groups.of.clone();
  for (int64_t n = 0; groups.one_mean && n < of.numel(); ++n)
    of.data<int32_t>()[n] = std::min(of.data<int32_t>()[n], 0);
  const int64_t means = groups.one_mean ? 1 : groups.count;
  r.mean_probs = group_mean(r.probs, of, means);
  r.mean_weights = group_mean(r.weights, of, means);
  r.mean_chosen = group_mean(Var(r.chosen), of, means).value();
  return r;
}

// A scalar that depends on every output with a gradient, each multiplied by its own random cotangent.
Var loss_of(const Routed& r) {
  Var loss;
  for (const auto& [name, v] : {std::pair{"probs", r.probs},
                                {"weights", r.weights},
                                {"entropy", r.entropy},
                                {"mean_probs", r.mean_probs},
                                {"mean_weights", r.mean_weights}}) {
    if (!v.needs_grad()) continue;
    const Var term = dot(v, Var(normal(std::string("dy.") + name, v.shape())));
    loss = loss.defined() ? add(loss, term) : term;
  }
  return loss;
}

void compare(const RouteRule& rule, const moe::EntropyConfig& entropy, bool one_mean) {
  const RouteGroups groups{groups_across_blocks(), kGroups, one_mean};
  const Tensor logits = normal("logits", {kRows, kExperts});
  Tensor gradients[2];
  Routed results[2];
  for (const int i : {0, 1}) {
    gradients[i] = Tensor::zeros(logits.shape(), DType::f64);
    const Var z = Var::leaf(logits, gradients[i]);
    results[i] = i == 0 ? route(z, rule, groups) : composed(z, rule, entropy, groups);
    backward(loss_of(results[i]));
  }
  const auto same = [](const char* what, const Tensor& got, const Tensor& want) {
    check_below("route against its ops", relative_error(got, want), 1e-12, what);
  };
  CHECK(same_bits(results[0].chosen, results[1].chosen));
  same("probs", results[0].probs.value(), results[1].probs.value());
  same("weights", results[0].weights.value(), results[1].weights.value());
  same("entropy", results[0].entropy.value(), results[1].entropy.value());
  same("mean_probs", results[0].mean_probs.value(), results[1].mean_probs.value());
  same("mean_weights", results[0].mean_weights.value(), results[1].mean_weights.value());
  same("mean_chosen", results[0].mean_chosen, results[1].mean_chosen);
  same("dlogits", gradients[0], gradients[1]);
}

}  // namespace

TEST_CASE("route equals a composition of ops, for every choice, gate and entropy") {
  for (const Choice choice : {Choice::top_k, Choice::first, Choice::hybrid}) {
    for (const GateMode gate : {GateMode::none, GateMode::straight_through, GateMode::scaled}) {
      for (const int64_t k : {1, 3}) {
        for (const bool normalise : {false, true}) {
          CAPTURE(static_cast<int>(choice));
          CAPTURE(static_cast<int>(gate));
          moe::EntropyConfig entropy;
          entropy.type = k == 1 ? moe::EntropyType::tsallis : moe::EntropyType::renyi;
          entropy.index = normalise ? 1.5 : 1;
          RouteRule rule{.choice = choice, .k = k, .entropy_threshold = 0.8, .top_p = 0.7};
          rule.crossing = normalise;
          rule.entropy = moe::entropy_rule(entropy, kExperts);
          rule.wants_entropy = true;
          rule.gate = gate;
          rule.normalise = normalise;
          compare(rule, entropy, normalise);
          rule.soft = choice == Choice::top_k;
          compare(rule, entropy, !normalise);
        }
      }
    }
  }
}

TEST_CASE_TEMPLATE("route's sums are counts and sums over the rows of each group", T, float, double) {
  constexpr DType dtype = DTypeOf<T>::value;
  const Tensor group = groups_across_blocks();
  RouteRule rule{.choice = Choice::hybrid, .k = 1, .entropy_threshold = 1.5, .top_p = 0.8};
  rule.gate = GateMode::scaled;
  const Routed r = route(Var(normal("logits", {kRows, kExperts}, dtype)), rule, {group, kGroups});
  Values want(static_cast<size_t>(kGroups * (kExperts + 3)), 0);
  for (int64_t n = 0; n < kRows; ++n) {
    const int32_t g = group.data<int32_t>()[n];
    if (g < 0) continue;
    double* row = want.data() + g * (kExperts + 3);
    for (int64_t e = 0; e < kExperts; ++e) {
      const auto p = static_cast<double>(r.probs.value().data<T>()[n * kExperts + e]);
      row[e] += r.chosen.data<T>()[n * kExperts + e] != 0;
      row[kExperts] += r.weights.value().data<T>()[n * kExperts + e] != 0;
      row[kExperts + 1] -= p * std::log(p);
    }
    row[kExperts + 2] += 1;
  }
  check_near("sums", r.sums, want);
}

TEST_CASE_TEMPLATE("entropy of a row", T, float, double) {
  const auto shannon = [](std::vector<T> p) {
    return row::entropy<T>([&](int64_t e) { return p[static_cast<size_t>(e)]; }, std::ssize(p), {});
  };
  CHECK(shannon({T(0.5), T(0.5)}) == doctest::Approx(std::log(2)));
  CHECK(shannon({1, 0}) == 0);
  CHECK(shannon({T(0.25), T(0.75)}) == doctest::Approx(-0.25 * std::log(0.25) - 0.75 * std::log(0.75)));
}

// Entropies above and below the threshold; the probabilities are exact in floating point.
TEST_CASE_TEMPLATE("hybrid chooses all experts if the entropy is high, else up to top_p", T, float, double) {
  const Tensor logits =
      Tensor::of({2, 3}, Values{std::log(0.3), std::log(0.5), std::log(0.2), 0, 0, 0}).to(DTypeOf<T>::value);
  const RouteRule rule{.choice = Choice::hybrid, .k = 1, .entropy_threshold = 1.05, .top_p = 0.8125};
  CHECK(values_of(route(Var(logits), rule).chosen) == Values{1, 1, 0, 1, 1, 1});
}

TEST_CASE("the finite check names route") {
  set_finite_check(true);
  const Tensor logits = Tensor::of({1, 3}, Values{std::nan(""), 0, 0});
  CHECK(contains(error_of([&] { route(Var(logits), {}); }), "[route] output (1, 3) holds nan"));
  set_finite_check(false);
}

TEST_CASE("errors of route") {
  const Var logits(normal("logits", {3, 4}));
  const auto message = [&](const RouteRule& rule, const RouteGroups& groups) {
    return error_of([&] { route(logits, rule, groups); });
  };
  CHECK(contains(message({.k = 5}, {}), "[route] k is 5, for logits (3, 4)"));
  CHECK(contains(message({.k = 0}, {}), "[route] k is 0"));
  CHECK(contains(message({}, {index_of({0, 2, 0}), 2}), "[route] group[1] is 2, expected -1 <= group < 2"));
  CHECK(contains(message({}, {index_of({0, 1}), 2}), "[route] group is"));
}
