// Methods of the table: known results of their routing rules, special cases and parameter counts.
#include "tensor/row_ops.h"
#include "tests/support/mini_llava.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

constexpr double kRounding = 1e-12;

// The routing of rows of logits: the router's weight is the identity.
nn::Routing routing_of(const std::vector<double>& logits, int64_t experts, const moe::MethodConfig& method) {
  moe::Router router("r", 0, experts, experts, method, DType::f64, 1);
  Tensor w = Tensor::zeros({experts, experts}, DType::f64);
  for (int64_t e = 0; e < experts; ++e) w.data<double>()[e * experts + e] = 1;
  router.weight = Var(w);
  router.bias = {};
  const int64_t N = static_cast<int64_t>(logits.size()) / experts;
  const Segments segments = one_sequence(N);
  return router.route(Var(Tensor::of({N, experts}, logits)), nn::Pass(segments));
}

// Checks that values and gradients of the task loss are equal.
void check_same_model(const moe::MethodConfig& a, const moe::MethodConfig& b, double bound = kRounding) {
  Mini x = generated_mini(a, DType::f64), y = generated_mini(b, DType::f64);
  const Losses lx = evaluate(x, batch()), ly = evaluate(y, batch());
  CHECK(relative_error(lx.hidden.value(), ly.hidden.value()) < bound);
  backward(lx.task);
  backward(ly.task);
  CHECK(norm(y.arena.grads) > 0);
  CHECK(relative_error(x.arena.grads, y.arena.grads) < bound);
}

}  // namespace

// Six rows of six logits with the paper's constants; expected values have six digits.
TEST_CASE("dynmole: known routings") {
  const moe::MethodConfig& method = moe::method("dynmole");
  const std::vector<double> logits{0,   0,  0,  0,  0,   0,  2, 1,  0,  0,  0,  0,  3, 2, 1, 0, 0, 0,
                                   1.2, .8, .5, .1, -.4, -1, 1, .9, .8, -3, -3, -3, 5, 0, 0, 0, 0, 0};
  const nn::Routing r = routing_of(logits, 6, method);
  const std::vector<double> entropy{0.999664, 0.779902, 0.643022, 0.884423, 0.677719, 0.097812};
  const std::vector<std::vector<double>> weights{{1.0 / 6, 1.0 / 6, 1.0 / 6, 1.0 / 6, 1.0 / 6, 1.0 / 6},
                                                 {0.523774, 0.192686, 0, 0, 0, 0},
                                                 {0.605116, 0.222610, 0, 0, 0, 0},
                                                 {0.355559, 0.238338, 0, 0, 0, 0},
                                                 {0.359904, 0.325655, 0, 0, 0, 0},
                                                 {0.967408, 0.006518, 0, 0, 0, 0}};
  const Values h = values_of(r.entropy.value()), w = values_of(r.weights.value()), c = values_of(r.chosen);
  for (size_t n = 0; n < 6; ++n) {
    CAPTURE(n);
    CHECK(std::abs(h[n] - entropy[n]) < 1e-6);
    for (size_t e = 0; e < 6; ++e) {
      CHECK(std::abs(w[n * 6 + e] - weights[n][e]) < 1e-6);
      CHECK(c[n * 6 + e] == (weights[n][e] > 0 ? 1 : 0));
    }
  }
}

TEST_CASE("dynmole: keep_crossing decides about the expert that exceeds top_p") {
  const std::vector<double> logits{std::log(0.6), std::log(0.3), std::log(0.1)};
  moe::MethodConfig method = moe::method("dynmole");
  method.experts = 3;
  method.router.entropy_threshold = 1;
  method.router.top_k = 1;
  const auto kept = [&](double top_p, bool crossing) {
    method.router.top_p = top_p;
    method.router.keep_crossing = crossing;
    double sum = 0;
    for (const double c : values_of(routing_of(logits, 3, method).chosen)) sum += c;
    return sum;
  };
  CHECK(kept(0.5, false) == 1);  // 0.6 exceeds top_p, but at least top_k = 1 is kept
  CHECK(kept(0.7, false) == 1);
  CHECK(kept(0.7, true) == 2);
  CHECK(kept(0.95, false) == 2);
  CHECK(kept(0.95, true) == 3);
  method.router.normalise = true;
  method.router.top_p = 0.95;
  method.router.keep_crossing = false;
  const Values w = values_of(routing_of(logits, 3, method).weights.value());
  CHECK(w[0] == doctest::Approx(2.0 / 3));
  CHECK(w[1] == doctest::Approx(1.0 / 3));
  CHECK(w[2] == 0);
}

TEST_CASE("active experts are those with non-zero weight, for every selection") {
  const Segments& segments = batch().segments;
  for (const char* name : {"mole", "mola", "mixlora", "loramoe", "dense", "dynmole", "adamole", "ldmole"}) {
    CAPTURE(name);
    moe::MethodConfig method = moe::method(name);
    method.experts = 4;
    method.experts_by_layer = {};
    Mini mini = generated_mini(method, DType::f64);
    const std::vector<nn::Routing> routings = routings_of(mini, batch());
    const auto statistics = moe::routing_statistics(routings, nn::Pass(segments), 2);
    REQUIRE(!statistics.empty());
    double all = 0, rows = 0;
    for (size_t i = 0; i < statistics.size(); ++i) {
      Values active(2);
      const Values w = values_of(routings[i].weights.value());
      for (size_t j = 0; j < w.size(); ++j) {
        const auto sample = static_cast<size_t>(segments.sequence[j / 4]);
        active[static_cast<size_t>(segments.dataset[sample])] += w[j] != 0;
      }
      for (const size_t d : {0, 1}) {
        CHECK(statistics[i].active[d] == doctest::Approx(active[d]));
        all += active[d];
        rows += statistics[i].rows[d];
      }
    }
    if (method.router.selection == moe::Selection::soft) CHECK(all == 4 * rows);
    if (method.router.selection == moe::Selection::top_k)
      CHECK(all == static_cast<double>(method.router.top_k) * rows);
    if (method.router.selection == moe::Selection::hybrid) CHECK((all > 2 * rows && all <= 4 * rows));
  }
}

TEST_CASE("the scale and type of the entropy") {
  const std::vector<double> even{0, 0, 0, 0, 0, 0};
  moe::MethodConfig method = moe::method("dynmole");
  const auto entropy = [&] { return routing_of(even, 6, method).entropy.value().item(); };
  method.entropy.eps = 0;
  CHECK(entropy() == doctest::Approx(1).epsilon(1e-13));
  method.entropy.normalise = false;
  CHECK(entropy() == doctest::Approx(1.640412).epsilon(1e-6));  // (1 - 6^-0.1) / 0.1
  method.entropy.index = 1;
  CHECK(entropy() == doctest::Approx(std::log(6)).epsilon(1e-13));
  method.entropy = {.type = moe::EntropyType::renyi, .index = 0.5, .eps = 0, .normalise = false};
  CHECK(entropy() == doctest::Approx(std::log(6)).epsilon(1e-13));
  // Both entropies tend to Shannon's for q -> 1.
  const std::vector<double> uneven{2, 1, 0, -1, 0, 0.5};
  const auto at = [&](moe::EntropyType type, double q) {
    method.entropy = {.type = type, .index = q, .eps = 0};
    return routing_of(uneven, 6, method).entropy.value().item();
  };
  for (const auto type : {moe::EntropyType::tsallis, moe::EntropyType::renyi})
    CHECK(at(type, 1 + 1e-6) == doctest::Approx(at(type, 1)).epsilon(1e-5));
}

TEST_CASE("dynmole reduces to loramoe, and to top-2 without normalisation") {
  moe::MethodConfig dynmole = small_method("dynmole"), top2 = dynmole;
  dynmole.router.entropy_threshold = -1;  // below the minimum, which is negative because of eps
  check_same_model(dynmole, small_method("loramoe"));
  dynmole.router.entropy_threshold = 1;
  dynmole.router.top_p = 0;
  dynmole.router.top_k = top2.router.top_k = 2;
  top2.router.selection = moe::Selection::top_k;
  check_same_model(dynmole, top2);
}

// Ensures that the golden values of dynmole cover both branches of hybrid selection.
TEST_CASE("dynmole: rows of the miniature use both branches") {
  Mini mini = generated_mini(small_method("dynmole"), DType::f64);
  std::map<double, int> rows_by_count;
  const std::vector<nn::Routing> routings = routings_of(mini, batch());
  CHECK(routings.size() == 12);  // one router per Linear
  for (const nn::Routing& r : routings)
    for (const double k : values_of(sum_columns(Var(r.chosen)).value())) ++rows_by_count[k];
  for (const double k : {1, 2, 3}) CHECK(rows_by_count[k] > 20);
}

TEST_CASE("entropy loss: 1 for equal probabilities; its gradient reduces entropy") {
  moe::MethodConfig method = moe::method("dynmole");
  method.entropy.eps = 0;
  const Tensor even = Tensor::full({5, 4}, 0.25, DType::f64);
  const std::vector<nn::Routing> routings{{"r", 0, Var(even), Var(even), even}};
  CHECK(moe::entropy_loss(routings, method.entropy).value().item() == doctest::Approx(1).epsilon(1e-13));
  Tensor logits = Tensor::of({1, 3}, std::vector<double>{1, 0, 0}),
         gradient = Tensor::zeros({1, 3}, DType::f64);
  const Var probs = softmax(Var::leaf(logits, gradient));
  const std::vector<nn::Routing> uneven{{"r", 0, probs, probs, logits}};
  backward(moe::entropy_loss(uneven, method.entropy));
  CHECK(gradient.data<double>()[0] < 0);
  CHECK(gradient.data<double>()[1] > 0);
}

TEST_CASE("settings of the entropy that make no sense are refused") {
  const auto message = [](auto set) { return check_error("dynmole", set); };
  using C = moe::MethodConfig;
  CHECK(contains(message([](C& c) { c.entropy.index = 0; }), "method.entropy.index = 0"));
  CHECK(contains(message([](C& c) { c.entropy.eps = -1; }), "method.entropy.eps = -1"));
  CHECK(contains(message([](C& c) { c.entropy.weight = -1; }), "method.entropy.weight = -1"));
  CHECK(contains(message([](C& c) { c.router.top_p = -1; }), "method.router.top_p = -1"));
  CHECK(contains(message([](C& c) { c.execution = moe::Execution::grouped; }),
                 "method.router.selection = 'hybrid'"));
}

TEST_CASE("normalised top-k equals dense for k = E, and gate none for k = 1") {
  const std::vector<std::pair<moe::MethodConfig, int64_t>> cases{{small_method("dense"), 3},
                                                                 {small_method("mole_none"), 1}};
  for (const auto& [plain, k] : cases) {
    moe::MethodConfig normalised = plain;
    normalised.router.selection = moe::Selection::top_k;
    normalised.router.gate = GateMode::scaled;
    normalised.router.normalise = true;
    normalised.router.top_k = k;
    check_same_model(normalised, plain);
  }
}

// Mixtral computes the weights as a softmax over the k largest logits.
TEST_CASE("normalised top-k is the softmax over the k largest logits") {
  const Values w = values_of(routing_of({2, -1, 0.5, 1}, 4, small_method("mola")).weights.value());
  CHECK(w[0] == doctest::Approx(1 / (1 + std::exp(-1))));
  CHECK(w[3] == doctest::Approx(1 / (1 + std::exp(1))));
  CHECK(w[1] + w[2] == 0);
}

// Uniform routing results in 1 per layer, for any number of experts.
TEST_CASE("mola: the balance loss is a sum over layers") {
  moe::MethodConfig method = small_method("mola");
  method.experts_by_layer = {2, 4};
  Mini mini = random_mini(method, DType::f64);
  zero_routers(mini);
  const OwnLosses l = evaluate_own(mini, batch());
  CHECK(l.terms.at("balance").value().item() == doctest::Approx(4).epsilon(1e-13));
  CHECK(l.total.value().item() == doctest::Approx(l.task.value().item() + 0.004).epsilon(1e-13));
}

// Published counts for LLaMA-2-7B, which has the sizes of LLaVA-1.5-7B's decoder; built without weights.
TEST_CASE("published parameter counts of the 7B model") {
  const auto counts = [](const char* name, int64_t rank, auto set) {
    moe::MethodConfig c = moe::method(name);
    c.rank = rank;
    set(c);
    nn::Llava model(llava_7b(), *nn::shapes_only(DType::f32));
    return moe::attach(model, c, 0).counts;
  };
  using C = moe::MethodConfig;
  using Layers = std::vector<int64_t>;
  // MoLA (arXiv 2402.08562), section 5: rank 8, routers included; and LoRA of rank 64 on the same Linears.
  for (const Layers& twenty : {Layers{2, 4, 6, 8}, {8, 6, 4, 2}, {8, 2, 2, 8}, {2, 8, 8, 2}, {5, 5, 5, 5}})
    CHECK(counts("mola", 8, [&](C& c) { c.experts_by_layer = twenty; }).trainable == 105'635'840);
  CHECK(counts("mola", 8, [](C& c) { c.experts_by_layer = {8, 8, 8, 8}; }).trainable == 169'017'344);
  CHECK(counts("mola", 8, [](C& c) { c.experts_by_layer = {4, 4, 4, 4}; }).trainable == 84'508'672);
  const auto lora = [](C& c) { c.lora_targets = {"q_proj", "k_proj", "v_proj", "o_proj"}; };
  CHECK(counts("lora", 64, lora).trainable == 159'907'840);
  CHECK(counts("lora", 80, lora).trainable == 199'884'800);
  CHECK(counts("loramoe", 24, [](C&) {}).trainable == 208'797'696 + 3'686'400);
  // MixLoRA (arXiv 2404.15159): 8 experts of rank 16, LoRA of rank 16 on attention, routers of 8 * 4096.
  CHECK(counts("mixlora", 16, [](C&) {}).trainable == 202'375'168 + 1'048'576);
  // DynMoLE (arXiv 2504.00661): 6 experts of rank 24 on the FFN, beside routers of 6 (4096 + 4096 + 11008).
  CHECK(counts("dynmole", 24, [](C&) {}).trainable == 208'797'696 + 3'686'400);
}

// Two samples of different types, two experts; all rows of a sample have the same weights.
TEST_CASE("loramoe: the localised balancing constraint by hand") {
  Segments s;
  s.offsets = {0, 2, 5};
  s.position = {0, 1, 0, 1, 2};
  s.sequence = {0, 0, 1, 1, 1};
  s.kind.assign(5, TokenKind::prompt);
  s.ordinal = {0, 1};
  s.dataset = {0, 1};
  const nn::Pass pass(s);
  const Tensor w = Tensor::of({5, 2}, std::vector<double>{0.9, 0.1, 0.7, 0.3, 0.2, 0.8, 0.4, 0.6, 0.3, 0.7});
  const std::vector<nn::Routing> routings{{"r", 0, Var(w), Var(w), w}};
  moe::LocalisedConfig config{.weight = 1, .delta = 0.1, .types = {}};
  const double z[] = {1.1 * 1.6, 0.9 * 0.4, 0.9 * 0.9, 1.1 * 2.1};
  const double mean = (z[0] + z[1] + z[2] + z[3]) / 4;
  double squares = 0;
  for (const double v : z) squares += (v - mean) * (v - mean);
  const double want = squares / 3 / (mean * mean + 1e-10);
  const auto loss = [&] { return moe::localised_loss(routings, pass, config, 2).value().item(); };
  CHECK(loss() == doctest::Approx(want).epsilon(1e-13));
  config.types = {1, 0};  // swaps the types of the experts
  CHECK(loss() != doctest::Approx(want));
  config.types = {0, 2};
  CHECK(contains(error_of(loss), "method.localised.types: 3 types need at least as many experts"));
  config.types = {0};
  CHECK(contains(error_of(loss), "method.localised.types: 1 values for 2 data sets"));
}

TEST_CASE("mixlora: what whole FFNs as experts need is said") {
  const auto message = [](auto set) { return check_error("mixlora", set); };
  using C = moe::MethodConfig;
  for (const std::string& said : {message([](C& c) { c.expert_targets = {"up_proj"}; }),
                                  message([](C& c) { c.router.placement = moe::RouterPlacement::linear; }),
                                  message([](C& c) { c.router.selection = moe::Selection::soft; }),
                                  message([](C& c) { c.execution = moe::Execution::masked; })})
    CHECK(contains(said, "method.expert = 'ffn' needs"));
}

TEST_CASE("adamole: weights are the normalised excess over the threshold, or 0 if no expert exceeds it") {
  moe::MethodConfig method = moe::method("adamole");
  method.experts = 3;
  method.router.threshold_max = 0.4;
  const Segments segments = one_sequence(1);
  moe::Router router("r", 0, 3, 3, method, DType::f64, 1);
  router.weight = Var(Tensor::of({3, 3}, std::vector<double>{1, 0, 0, 0, 1, 0, 0, 0, 1}));
  router.threshold_weight = Var(Tensor::zeros({1, 3}, DType::f64));
  router.threshold_bias = Var(Tensor::zeros({1}, DType::f64));  // the threshold is 0.4 / 2
  const auto route = [&](const std::vector<double>& p) {
    std::vector<double> logits;
    for (const double x : p) logits.push_back(std::log(x));
    return router.route(Var(Tensor::of({1, 3}, logits)), nn::Pass(segments));
  };
  const nn::Routing r = route({0.6, 0.3, 0.1});
  const Values w = values_of(r.weights.value());
  CHECK(w[0] == doctest::Approx(0.8));
  CHECK(w[1] == doctest::Approx(0.2));
  CHECK(w[2] == 0);
  CHECK(values_of(r.chosen) == Values{1, 1, 0});
  router.threshold_bias = Var(Tensor::full({1}, 50, DType::f64));  // 0.4
  CHECK(values_of(route({0.35, 0.35, 0.3}).weights.value()) == Values{0, 0, 0});
}

TEST_CASE("sparsegen: simplex projection at lambda 0, one expert near 1, equal weights far below 0") {
  const auto at = [](const std::vector<double>& u, double lambda) {
    const auto E = static_cast<int64_t>(u.size());
    return values_of(
        moe::sparsegen(Var(Tensor::of({1, E}, u)), Var(Tensor::full({1, 1}, lambda, DType::f64))).value());
  };
  const Values p = at({0.9, 0.5, 0.1, -1}, 0);  // support of two, t = (0.9 + 0.5 - 1) / 2
  CHECK(p[0] == doctest::Approx(0.7));
  CHECK(p[1] == doctest::Approx(0.3));
  CHECK(p[2] + p[3] == 0);
  const Values one = at({0.9, 0.5, 0.1, -1}, 0.99);
  CHECK(one[0] == doctest::Approx(1));
  CHECK(one[1] + one[2] + one[3] == 0);
  for (const double alike : at({0.9, 0.5, 0.1, -1}, -1e6))
    CHECK(alike == doctest::Approx(0.25).epsilon(1e-4));
}

TEST_CASE("ldmole: routers of one input width share a network, which is counted once") {
  moe::MethodConfig method = small_method("ldmole");
  Mini mini = random_mini(method, DType::f64);
  int networks = 0;
  for (const auto& slot : mini.arena.slots()) networks += slot.name.ends_with(".in.weight");
  CHECK(networks == 2);  // input widths 128 and 256
  // Parameters of routers with 3 experts and of networks with 5 hidden channels.
  CHECK(contains(mini.attachment.report,
                 fmt::format("router     28 routers, {} parameters",
                             4 * 3 * (6 * 128 + 256) + 5 * (128 + 256) + 2 * (5 + 5 + 1))
                     .c_str()));
}

// Compares each selection rule with its definition, expert by expert, on values whose sums are exact.
TEST_CASE_TEMPLATE("rules of selection", T, float, double) {
  constexpr DType dtype = DTypeOf<T>::value;
  const int64_t N = 64, E = 5;
  Tensor probs = Tensor::empty({N, E}, dtype), entropy = Tensor::empty({N}, dtype),
         lambda = Tensor::empty({N}, dtype);
  const Tensor draws = random_index(N * (E + 1), 0, 8);  // few distinct values, to produce ties
  for (int64_t i = 0; i < N * E; ++i) probs.data<T>()[i] = static_cast<T>(draws.data<int32_t>()[i]) / T(32);
  for (int64_t n = 0; n < N; ++n) {
    entropy.data<T>()[n] = static_cast<T>(draws.data<int32_t>()[N * E + n]) / T(8);
    lambda.data<T>()[n] = T(0.984375) - entropy.data<T>()[n];
  }
  const Values p = values_of(probs), h = values_of(entropy), l = values_of(lambda);
  // Rank of expert e in row n, and the sum of the entries with at most that rank.
  const auto place = [&](int64_t n, int64_t e) {
    int64_t rank = 0;
    double sum = 0;
    for (int64_t j = 0; j < E; ++j) {
      const double mine = p[static_cast<size_t>(n * E + e)], other = p[static_cast<size_t>(n * E + j)];
      if (other > mine || (other == mine && j <= e)) ++rank, sum += other;
    }
    return std::pair{rank - 1, sum};
  };
  for (const bool crossing : {false, true}) {
    for (const int64_t k : {0, 1, 3, 5}) {
      Values want;
      for (int64_t n = 0; n < N; ++n) {
        for (int64_t e = 0; e < E; ++e) {
          const auto [rank, sum] = place(n, e);
          const double before = sum - p[static_cast<size_t>(n * E + e)];
          const bool kept = crossing ? before < 0.25 : sum <= 0.25;
          want.push_back(h[static_cast<size_t>(n)] > 0.5 || rank < k || kept);
        }
      }
      Outputs outputs;
      Tensor mask = outputs.template make<T>({N, E});
      for (int64_t n = 0; n < N; ++n) {
        T* of_row = mask.data<T>() + n * E;
        row::hybrid<T>([&](int64_t e) { return probs.data<T>()[n * E + e]; }, E,
                       entropy.data<T>()[n] > T(0.5), 0.25, k, crossing,
                       [=](int64_t e, bool chosen) { of_row[e] = chosen ? T(1) : T(0); });
      }
      check_near("hybrid", mask, want);
    }
  }
  Values want;
  for (int64_t n = 0; n < N; ++n) {
    int64_t support = 0;
    for (int64_t e = 0; e < E; ++e) {
      const auto [rank, sum] = place(n, e);
      const double value = p[static_cast<size_t>(n * E + e)];
      if (1 - l[static_cast<size_t>(n)] + static_cast<double>(rank + 1) * value > sum)
        support = std::max(support, rank + 1);
    }
    for (int64_t e = 0; e < E; ++e) want.push_back(place(n, e).first < support);
  }
  Outputs outputs;
  Tensor mask = outputs.template make<T>({N, E});
  kernel::sparsegen_mask(mask, probs, lambda);
  check_near("sparsegen_mask", mask, want);
  CHECK(contains(error_of([&] { kernel::sparsegen_mask(mask, probs, probs); }), "[sparsegen_mask] lambda"));
}
