// Recomputation in the backward pass: recompute() itself, and decoder blocks with their routings.
#include "tests/support/mini_llava.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

using Vars = std::vector<Var>;

Var random_leaf(const char* name, const Shape& shape) {
  return Var::leaf(normal(name, shape), Tensor::zeros(shape, DType::f64));
}
void zero_gradient(const Var& leaf) {
  Tensor gradient = leaf.grad();
  gradient.zero();
}
Tensor ones(const Shape& shape) { return Tensor::full(shape, 1, DType::f64); }
size_t live() { return memory_report(Device::cpu).live; }

}  // namespace

TEST_CASE("recompute: a captured leaf is enough to record, and outputs that need no gradient are constants") {
  const Var w = random_leaf("w", {4, 3}), x(normal("x", {5, 3}));
  std::vector<bool> runs;
  const auto f = [&](const Vars& in, bool again) {
    runs.push_back(again);
    CHECK_FALSE(in[0].needs_grad());
    return Vars{linear(in[0], w), unary(in[0], Unary::exp), unary(linear(in[0], w), Unary::silu)};
  };
  const Vars y = recompute(f, {x});
  CHECK(y[0].needs_grad());
  CHECK_FALSE(y[1].needs_grad());
  CHECK(y[2].needs_grad());
  CHECK(runs == std::vector<bool>{false});
  backward(y[0], ones({5, 4}));  // no gradient reaches y[2]
  CHECK(runs == std::vector<bool>{false, true});
  const Tensor got = w.grad().clone();
  zero_gradient(w);
  backward(linear(x, w), ones({5, 4}));
  CHECK(same_bits(got, w.grad()));
  CHECK_FALSE(recompute([](const Vars& in, bool) { return Vars{scale(in[0], 2)}; }, {x})[0].needs_grad());
}

TEST_CASE("recompute: an input that is an output or passed twice, and nested calls") {
  const Var a = random_leaf("a", {6}), b = random_leaf("b", {6});
  const auto inner = [](const Vars& in, bool) { return Vars{mul(in[0], in[1])}; };
  const auto outer = [&](const Vars& in, bool) {
    return Vars{recompute(inner, {in[0], unary(in[1], Unary::silu)})[0], in[2]};
  };
  const auto gradients = [&](const std::function<Var()>& f) {
    zero_gradient(a);
    zero_gradient(b);
    backward(f(), ones({6}));
    return std::pair{a.grad().clone(), b.grad().clone()};
  };
  const auto got = gradients([&] {
    const Vars y = recompute(outer, {a, b, a});
    return add(y[0], y[1]);
  });
  const auto want = gradients([&] { return add(mul(a, unary(b, Unary::silu)), a); });
  CHECK(relative_error(got.first, want.first) < 1e-15);
  CHECK(relative_error(got.second, want.second) < 1e-15);
}

TEST_CASE("recompute with recording off calls the function and keeps nothing") {
  const Var a = random_leaf("a", {6});
  int runs = 0;
  const NoGrad no_grad;
  const Vars y = recompute(
      [&](const Vars& in, bool again) {
        ++runs;
        CHECK_FALSE(again);
        return Vars{mul(in[0], in[0])};
      },
      {a});
  CHECK(runs == 1);
  CHECK_FALSE(y[0].needs_grad());
}

TEST_CASE("recompute keeps only inputs and frees each part's graph before building the next") {
  const Var x = random_leaf("x", {64, 64});
  const size_t matrix = x.value().nbytes(), before = live();
  const auto f = [](const Vars& in, bool) {
    Var y = in[0];
    for (int i = 0; i < 10; ++i) y = unary(y, Unary::silu);  // each keeps its input
    return Vars{y};
  };
  Var y = x;
  for (int part = 0; part < 4; ++part) y = recompute(f, {y})[0];
  CHECK(live() - before == 4 * matrix);
  const Tensor dy = ones(y.shape());
  reset_memory_peak(Device::cpu);
  const size_t start = live();
  backward(y, dy);
  // Nine inputs kept by one part, its output during the second run, and incoming and outgoing gradients.
  CHECK(memory_report(Device::cpu).peak - start <= 12 * matrix);
  CHECK(live() - before == 2 * matrix);  // y and dy
}

TEST_CASE("recompute: an error if the second run has a different number of outputs") {
  const Var x = random_leaf("x", {2});
  const Vars y =
      recompute([](const Vars& in, bool again) { return again ? Vars{} : Vars{scale(in[0], 2)}; }, {x});
  CHECK(
      contains(error_of([&] { backward(y[0], ones({2})); }), "[recompute] 1 outputs, but 0 when recomputed"));
  backward(scale(x, 1), ones({2}));  // the thread records as before
  CHECK(values_of(x.grad()) == Values{1, 1});
}

TEST_CASE("a decoder with recomputed layers has the same gradients and less memory") {
  for (const GoldenCase& c : golden_cases()) {
    moe::MethodConfig method = c.method;
    if (method.expert != moe::ExpertKind::shard) method.dropout = 0.2;
    CAPTURE(c.name);
    Tensor want;
    double loss = 0;
    size_t last = SIZE_MAX, decisions = 0;
    for (const int64_t layers : {0, 1, 2, 4}) {
      CAPTURE(layers);
      Mini mini = generated_mini(method, DType::f64, c.model);
      mini.training = true;
      mini.recompute_layers = layers;
      mini.arena.grads.zero();
      reset_memory_peak(Device::cpu);
      const size_t start = live();
      OwnLosses l = evaluate_own(mini, batch());
      if (layers == 0) decisions = l.routings.size();
      CHECK(l.routings.size() == decisions);
      const Var total = l.total;
      l = {};
      backward(total);
      const size_t peak = memory_report(Device::cpu).peak - start;
      if (layers == 0) {
        want = mini.arena.grads.clone();
        loss = total.value().item();
      }
      CHECK(total.value().item() == loss);
      CHECK(same_bits(mini.arena.grads, want));
      CHECK(peak < last);
      last = peak;
    }
  }
}
