// Test cases of the ops that route to experts and compute them; the others are in op_cases.cpp.
#include "moe/router.h"
#include "tests/autograd/op_harness.h"
#include "tests/support/numbers.h"

namespace burrow::testing {
namespace {

ExpertGroups groups(I i) { return {i[0], i[1]}; }

RouteRule route_rule(RouteRule::Choice choice, GateMode gate) {
  RouteRule r;
  r.choice = choice;
  r.k = choice == RouteRule::Choice::hybrid ? 1 : 2;
  r.gate = gate;
  r.entropy = {1.1, 1e-5, 1, false};
  r.wants_entropy = true;
  r.entropy_threshold = 1;
  r.top_p = 0.75;
  return r;
}
// All outputs of route() with a gradient, concatenated: logits [N,E], group i32 [N] of three groups.
OpFunction route_function(RouteRule rule, bool one_mean = false) {
  return [rule, one_mean](X x, I i) {
    RouteRule r = rule;
    const int64_t E = x[0].dim(1);
    r.k = std::min(r.k, E);
    if (E > 1) r.entropy.unit = moe::entropy_rule({}, E).unit;
    const Routed out = route(x[0], r, {i[0], 3, one_mean});
    const Tensor& h = out.entropy.value();
    const Var spread = linear(out.entropy, Var(Tensor::full({E, 1}, 1, h.dtype(), h.device())));
    return concat_rows({out.probs, out.weights, spread, out.mean_probs, out.mean_weights});
  };
}

Var lora_experts(X x, I) {  // x a b weights
  return linear(scale_experts(linear(x[0], x[1]), x[3], 3.0 / 2), x[2]);
}

// The same, grouped by expert; without groups, all rows choose all experts.
Var grouped_lora_experts(X x, I i) {
  const Tensor& weights = x[3].value();
  const ExpertGroups g =
      i.empty() ? group_by_expert(Tensor::full(weights.shape(), 1, weights.dtype(), weights.device()),
                                  weights.dim(1))
                : groups(i);
  const Tensor &a = x[1].value(), &b = x[2].value(), &in = x[0].value();
  const Var no_x(Tensor::empty({in.dim(0), 0}, in.dtype(), in.device())),
      no_w(Tensor::empty({b.dim(0), 0}, b.dtype(), b.device()));
  const double R = static_cast<double>(a.dim(0) / weights.dim(1));
  const Var h = grouped_scale(grouped_linear(x[0], x[1], g), x[3], g, 3 / R);
  return linear_with_grouped_lora(no_x, no_w, {}, h, x[2], g);
}

// The groups of N rows that each choose K experts among the first `used` of E.
std::vector<Tensor> groups_of(int64_t N, int64_t E, int64_t K, int64_t used) {
  Tensor chosen = Tensor::zeros({N, E}, DType::f64);
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t k = 0; k < K; ++k) chosen.data<double>()[n * E + (n * n + k) % used] = 1;
  }
  const ExpertGroups g = group_by_expert(chosen, K);
  return {g.order, g.offsets};
}

OpFunction entropy_function(moe::EntropyType type, double index) {
  moe::EntropyConfig c;
  c.type = type;
  c.index = index;
  return [c](X x, I) { return moe::entropy_of(softmax(x[0]), c); };
}

// Entropies from logits. Near q = 1 an entropy is a difference over q - 1, which amplifies rounding.
std::vector<OpCase> entropy_cases() {
  constexpr const char* kCancels = "a difference of nearly equal sums over q - 1 = 0.1";
  const std::vector<OpSize> logits{{"aligned", {{8, 4}}, {}},
                                   {"odd", {{7, 3}}, {}},
                                   {"two experts", {{3, 2}}, {}},
                                   {"no rows", {{0, 3}}, {}}};
  std::vector<OpCase> cases;
  for (const auto& [name, type, index] : {std::tuple{"tsallis_entropy", moe::EntropyType::tsallis, 1.1},
                                          {"renyi_entropy", moe::EntropyType::renyi, 1.5},
                                          {"shannon_entropy", moe::EntropyType::tsallis, 1.0}}) {
    cases.push_back({.name = name,
                     .inputs = {"logits"},
                     .function = entropy_function(type, index),
                     .sizes = logits,
                     .golden = name,
                     .f32 = 1e-5,
                     .why = kCancels,
                     .routing = true});
  }
  return cases;
}

std::vector<OpCase> route_cases() {
  using Choice = RouteRule::Choice;
  constexpr const char* kCancels = "an entropy's difference of nearly equal sums over q - 1 = 0.1";
  Tensor many = random_index(300, -1, 3);
  const std::vector<OpSize> sizes{{"aligned", {{8, 4}}, {index_of({0, 0, 0, 1, 1, 2, 2, 2})}},
                                  {"odd, an empty group", {{7, 3}}, {index_of({2, 0, -1, 2, 0, 0, -1})}},
                                  {"several blocks of rows", {{300, 8}}, {many}},
                                  {"one expert", {{3, 1}}, {index_of({1, 0, 1})}},
                                  {"no rows", {{0, 3}}, {index_of({})}}};
  RouteRule weighed = route_rule(Choice::top_k, GateMode::scaled);
  weighed.normalise = true;
  RouteRule soft = route_rule(Choice::top_k, GateMode::scaled);
  soft.soft = true;
  soft.entropy = {1.5, 0, 1, true};
  RouteRule shannon = route_rule(Choice::first, GateMode::scaled);
  shannon.entropy = {1, 1e-5, 1, false};
  const RouteRule hybrid = route_rule(Choice::hybrid, GateMode::scaled);
  const auto row = [&](const char* name, const OpFunction& f) {
    return OpCase{.name = name,
                  .inputs = {"logits"},
                  .function = f,
                  .sizes = sizes,
                  .f32 = 1e-5,
                  .why = kCancels,
                  .routing = true};
  };
  std::vector<OpCase> cases{
      row("route, weights over their sum", route_function(weighed)),
      row("route, soft, one mean", route_function(soft, true)), row("route, hybrid", route_function(hybrid)),
      row("route, the first", route_function(shannon, true)),
      row("route, straight through", route_function(route_rule(Choice::top_k, GateMode::straight_through)))};
  cases[0].golden = "route";
  cases[0].golden_index = {"group"};
  cases[4].surrogate = route_function(route_rule(Choice::top_k, GateMode::scaled));
  return cases;
}

}  // namespace

std::vector<OpCase> routing_cases() {
  const std::vector<OpSize> probs{{"aligned", {{8, 4}}, {}},
                                  {"odd", {{7, 3}}, {}},
                                  {"one expert", {{3, 1}}, {}},
                                  {"no rows", {{0, 3}}, {}}};
  std::vector<OpCase> cases{
      {.name = "softmax",
       .inputs = {"x"},
       .function = [](X x, I) { return softmax(x[0]); },
       .sizes = {{"aligned", {{4, 64}}, {}},
                 {"odd", {{5, 37}}, {}},
                 {"one class", {{3, 1}}, {}},
                 {"long rows", {{3, 1100}}, {}},
                 {"no rows", {{0, 3}}, {}}},
       .golden = "softmax"},
      {.name = "scale_experts",
       .inputs = {"h", "weights"},
       .function = [](X x, I) { return scale_experts(x[0], x[1], 1.5); },
       .sizes = {{"aligned", {{8, 32}, {8, 4}}, {}},
                 {"odd", {{5, 9}, {5, 3}}, {}},
                 {"one expert", {{4, 5}, {4, 1}}, {}},
                 {"no rows", {{0, 6}, {0, 3}}, {}}}},
      {.name = "sparsegen",
       .inputs = {"u", "x"},
       .function = [](X x, I) { return moe::sparsegen(x[0], unary(x[1], Unary::log_sigmoid)); },
       .sizes = {{"aligned", {{8, 4}, {8, 1}}, {}},
                 {"odd", {{7, 3}, {7, 1}}, {}},
                 {"one expert", {{3, 1}, {3, 1}}, {}},
                 {"no rows", {{0, 3}, {0, 1}}, {}}},
       .routing = true},
      {.name = "normalise_rows",
       .inputs = {"logits"},
       .function = [](X x, I) { return normalise_rows(softmax(x[0])); },
       .sizes = probs},
      {.name = "lora_experts",
       .inputs = {"x", "a", "b", "weights"},
       .function = lora_experts,
       .sizes = {{"aligned", {{8, 32}, {12, 32}, {16, 12}, {8, 3}}, {}}},
       .golden = "lora_experts",
       .why = kSums,
       .own_kernels = true},
      {.name = "lora_experts, grouped",
       .inputs = {"x", "a", "b", "weights"},
       .function = grouped_lora_experts,
       .sizes = {{"aligned", {{8, 32}, {12, 32}, {16, 12}, {8, 3}}, groups_of(8, 3, 1, 3)},
                 {"odd, two experts a row", {{11, 37}, {20, 37}, {19, 20}, {11, 4}}, groups_of(11, 4, 2, 4)},
                 {"empty experts", {{7, 9}, {15, 9}, {5, 15}, {7, 5}}, groups_of(7, 5, 2, 3)},
                 {"several tiles", {{90, 40}, {80, 40}, {70, 80}, {90, 2}}, groups_of(90, 2, 1, 2)},
                 {"one expert takes all", {{9, 5}, {8, 5}, {6, 8}, {9, 4}}, groups_of(9, 4, 1, 1)},
                 {"one expert", {{4, 5}, {3, 5}, {6, 3}, {4, 1}}, groups_of(4, 1, 1, 1)},
                 {"no rows", {{0, 4}, {6, 4}, {5, 6}, {0, 3}}, groups_of(0, 3, 1, 1)}},
       .golden = "lora_experts",
       .why = kSums,
       .own_kernels = true},
      {.name = "grouped_linear, blocks of an FFN",
       .inputs = {"x", "a"},
       .function = [](X x, I i) { return grouped_linear(x[0], x[1], groups(i)); },
       .sizes = {{"few rows", {{2, 17}, {192, 17}}, groups_of(2, 3, 1, 2)},
                 {"odd, two blocks a row", {{9, 5}, {260, 5}}, groups_of(9, 4, 2, 3)},
                 {"no rows", {{0, 5}, {128, 5}}, groups_of(0, 2, 1, 1)}},
       .why = kSums,
       .own_kernels = true},
      {.name = "grouped_swiglu",
       .inputs = {"gate", "up", "weights"},
       .function = [](X x, I i) { return grouped_swiglu(x[0], x[1], x[2], groups(i)); },
       .sizes = {{"aligned", {{16, 32}, {16, 32}, {8, 4}}, groups_of(8, 4, 2, 4)},
                 {"odd, an empty expert", {{14, 7}, {14, 7}, {7, 5}}, groups_of(7, 5, 2, 3)},
                 {"long rows", {{3, 1100}, {3, 1100}, {3, 2}}, groups_of(3, 2, 1, 2)},
                 {"no rows", {{0, 4}, {0, 4}, {0, 3}}, groups_of(0, 3, 1, 1)}},
       .golden = "grouped_swiglu",
       .golden_index = {"order", "offsets"},
       .why = kSums},
      {.name = "spread_with_grouped_lora",
       .inputs = {"y", "h", "b"},
       .function = [](X x, I i) { return spread_with_grouped_lora(x[0], x[1], x[2], groups(i)); },
       .sizes = {{"odd", {{7, 11}, {14, 2}, {11, 8}}, groups_of(7, 4, 2, 3)},
                 {"empty experts", {{7, 5}, {14, 3}, {5, 15}}, groups_of(7, 5, 2, 3)},
                 {"no rows", {{0, 5}, {0, 2}, {5, 6}}, groups_of(0, 3, 1, 1)}},
       .why = kSums,
       .own_kernels = true},
      {.name = "linear_with_grouped_lora",
       .inputs = {"x", "w", "bias", "h", "b"},
       .function = [](X x, I i) { return linear_with_grouped_lora(x[0], x[1], x[2], x[3], x[4], groups(i)); },
       .sizes = {{"odd", {{7, 9}, {11, 9}, {11}, {14, 2}, {11, 8}}, groups_of(7, 4, 2, 3)}},
       .why = kSums,
       .own_kernels = true,
       .parameters = {"bias"}},
  };
  for (OpCase& c : route_cases()) cases.push_back(std::move(c));
  for (OpCase& c : entropy_cases()) cases.push_back(std::move(c));
  return cases;
}

}  // namespace burrow::testing
