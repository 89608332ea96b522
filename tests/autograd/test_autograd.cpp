// The graph: accumulation, sharing and lifetime of gradients and closures. Ops are tested in test_ops.
#include "autograd/ops.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

Var leaf_of(const Values& values) {
  const auto n = static_cast<int64_t>(values.size());
  return Var::leaf(Tensor::of({n}, values), Tensor::zeros({n}, DType::f64));
}
Var random_leaf(const char* name, const Shape& shape) {
  return Var::leaf(normal(name, shape), Tensor::zeros(shape, DType::f64));
}
Var constant(const char* name, const Shape& shape) { return Var(normal(name, shape)); }
Tensor ones(const Shape& shape) { return Tensor::full(shape, 1, DType::f64); }

size_t live() { return memory_report(Device::cpu).live; }
int64_t calls(KernelId id) { return kernel_calls(id); }

}  // namespace

TEST_CASE("gradients of a variable that is used twice accumulate") {
  const Var x = leaf_of({2, -3});
  const Var y = mul(x, x);                 // x²
  backward(add(add(y, y), x), ones({2}));  // 2x² + x
  CHECK(values_of(x.grad()) == Values{9, -11});
  backward(scale(x, 5), ones({2}));  // a second graph adds to the gradient of the first
  CHECK(values_of(x.grad()) == Values{14, -6});
}

TEST_CASE("an intermediate that is used twice runs its backward once") {
  const Var x = leaf_of({1, 2});
  int runs = 0;
  const Var y = record("twice", x.value(), {x}, [&](const Tensor& dy, Grads& g) {
    ++runs;
    g.add(0, dy);
  });
  backward(add(add(scale(y, 2), scale(y, 3)), y), ones({2}));
  CHECK(runs == 1);
  CHECK(values_of(x.grad()) == Values{6, 6});
}

// add hands the very same tensor to both of its inputs; one of them then gets more, or has it already.
TEST_CASE("a gradient that two edges share is never overwritten") {
  const Var seven(Tensor::full({1, 1}, 7, DType::f64));
  const Tensor first_row = index_of({0});
  const std::vector<std::pair<const char*, std::function<Var(const Var&)>>> more{
      {"added by add", [](const Var& u) { return scale(u, 7); }},
      {"added by a kernel into its target", [&](const Var& u) { return linear(u, seven); }},
      {"added by a kernel that only adds",
       [&](const Var& u) { return mul(gather_rows(u, first_row), seven); }}};
  for (const auto& [name, seven_times] : more) {
    for (const bool first : {false, true}) {
      INFO("name = ", name, ", first = ", first);
      const Var a = leaf_of({1}), b = leaf_of({10});
      const Var u = reshape(a, {1, 1}), v = reshape(b, {1, 1});
      const Var shared = add(u, v), extra = seven_times(u);
      backward(first ? add(shared, extra) : add(extra, shared), ones({1, 1}));
      CHECK(a.grad().item() == 8);
      CHECK(b.grad().item() == 1);
    }
  }
}

TEST_CASE("the caller's cotangent is never overwritten") {
  const Var x = leaf_of({1, 2});
  const Tensor dy = ones({2});
  const Var y = scale(x, 1);
  backward(add(y, y), dy);
  CHECK(values_of(dy) == Values{1, 1});
  CHECK(values_of(x.grad()) == Values{2, 2});
}

TEST_CASE("an intermediate that no gradient needs is freed at once") {
  const Var x = random_leaf("x", {64, 64});
  const size_t before = live(), matrix = x.value().nbytes();
  Var y = scale(x, 2);
  for (int i = 0; i < 10; ++i) y = scale(y, 2);  // scale's closure captures no tensor
  CHECK(live() - before == matrix);
  const Var w = constant("w", {64, 64});
  const size_t with_weight = live();
  y = linear(y, w);  // keeps no x, because the weight is frozen
  CHECK(live() == with_weight);
  y = mul(y, y);  // keeps its input
  CHECK(live() == with_weight + matrix);
}

TEST_CASE("ops whose inputs need no gradient keep nothing") {
  const Var x = constant("x", {64, 64}), w = constant("w", {64, 64});
  const size_t before = live();
  Var y = linear(x, w);
  for (int i = 0; i < 3; ++i) y = mul(unary(y, Unary::silu), y);
  CHECK_FALSE(y.needs_grad());
  CHECK(live() - before == x.value().nbytes());
}

TEST_CASE("backward frees closures and gradients after use") {
  const Var x = random_leaf("x", {64, 64});
  const size_t matrix = x.value().nbytes(), before = live();
  Var y = x;
  for (int i = 0; i < 8; ++i) y = unary(y, Unary::silu);  // each keeps its input
  CHECK(live() - before == 8 * matrix);
  const Tensor dy = ones(y.shape());
  reset_memory_peak(Device::cpu);
  const size_t start = live();
  backward(y, dy);
  // At the peak a closure's incoming and outgoing gradients exist, besides tensors of closures not yet run.
  CHECK(memory_report(Device::cpu).peak - start <= 2 * matrix);
  CHECK(live() - before == 2 * matrix);  // y and dy; closures and intermediates are freed
}

TEST_CASE("a second backward throws") {
  const Var x = leaf_of({3});
  const Var y = mul(x, x), z = scale(y, 2);
  backward(z);
  CHECK(contains(error_of([&] { backward(z); }), "[backward] scale: this graph was already consumed"));
  const Var through = scale(y, 3);  // a new op on a consumed part
  CHECK(contains(error_of([&] { backward(through); }), "[backward] mul: this graph was already consumed"));
  CHECK(x.grad().item() == 12);  // neither added anything
}

TEST_CASE("backward's own errors") {
  CHECK(contains(error_of([] { backward(Var(ones({1}))); }), "[backward] the root needs no gradient"));
  const Var y = scale(leaf_of({1, 2}), 2);
  CHECK(contains(error_of([&] { backward(y); }), "[backward] the root has shape (2)"));
  CHECK(contains(error_of([&] { backward(y, ones({3})); }), "gradient (3)"));
  CHECK(contains(error_of([&] { (void)y.grad(); }), "only leaves have a gradient"));
  CHECK(contains(error_of([] { Var::leaf(ones({2}), ones({3})); }), "[leaf] value (2) and gradient (3)"));
}

TEST_CASE("a closure of several outputs receives undefined gradients for unused ones") {
  const Var x = leaf_of({1, 2});
  const auto halves = [&](std::vector<bool>& reached) {
    return record("halves", {ones({1}), ones({1})}, {x}, [&reached](std::span<const Tensor> dy, Grads& g) {
      reached = {dy[0].defined(), dy[1].defined()};
      Tensor dx = g.like(0);
      dx.zero();
      for (size_t i = 0; i < 2; ++i) {
        if (dy[i].defined()) dx.data<double>()[i] = dy[i].item();
      }
      g.add(0, dx);
    });
  };
  std::vector<bool> reached;
  const std::vector<Var> both = halves(reached);
  backward(add(scale(both[0], 3), scale(both[1], 5)));
  CHECK(reached == std::vector<bool>{true, true});
  CHECK(values_of(x.grad()) == Values{3, 5});
  const std::vector<Var> second = halves(reached);
  backward(scale(second[1], 7));
  CHECK(reached == std::vector<bool>{false, true});
  CHECK(values_of(x.grad()) == Values{3, 12});
}

TEST_CASE("backward from several roots runs shared nodes once") {
  const Var x = leaf_of({1, 2});
  int runs = 0;
  const Var y = record("once", x.value(), {x}, [&](const Tensor& dy, Grads& g) {
    ++runs;
    g.add(0, dy);
  });
  const Tensor dy = Tensor::of({2}, std::vector<double>{1, 10});
  backward(std::vector<Root>{{scale(y, 2), dy}, {y, dy}, {scale(y, 3), dy}, {x, dy}});
  CHECK(runs == 1);
  CHECK(values_of(x.grad()) == Values{7, 70});
  CHECK(values_of(dy) == Values{1, 10});
  CHECK(contains(error_of([&] {
                   backward(std::vector<Root>{{scale(x, 1), dy}, {Var(dy), dy}});
                 }),
                 "[backward] the root needs no gradient"));
  CHECK(values_of(x.grad()) == Values{7, 70});
}

TEST_CASE("backward skips nodes that no gradient reached") {
  const Var x = leaf_of({1});
  bool ran = false;
  const std::vector<Var> outputs =
      record("pair", {ones({1}), ones({1})}, {x}, [](std::span<const Tensor>, Grads&) {});
  const Var silent = record("silent", ones({1}), {outputs[0]}, [&](const Tensor& dy, Grads& g) {
    ran = true;
    g.add(0, dy);
  });
  // The closure of `stop` adds no gradient to its input `silent`.
  const Var stop = record("stop", ones({1}), {silent}, [](const Tensor&, Grads&) {});
  backward(stop);
  CHECK_FALSE(ran);
  CHECK(x.grad().item() == 0);
}

TEST_CASE("NoGrad") {
  const Var x = leaf_of({2});
  {
    const NoGrad outer;
    CHECK_FALSE(mul(x, x).needs_grad());
    { const NoGrad inner; }
    CHECK_FALSE(any_needs_grad({&x}));  // the outer scope still holds after the inner one ended
  }
  CHECK(mul(x, x).needs_grad());
}

TEST_CASE("a frozen weight causes no matmul_tn and no gradient") {
  const Var w = constant("w", {48, 32}), a = random_leaf("a", {4, 32}), b = random_leaf("b", {48, 4});
  const Var x = random_leaf("x", {16, 32});
  const Tensor dy = normal("dy", {16, 48});
  const auto counted = [&](const auto& f) {
    const int64_t tn = calls(KernelId::matmul_tn), nn = calls(KernelId::matmul_nn);
    const Var y = f();
    reset_memory_peak(Device::cpu);
    const size_t start = live();
    backward(y, dy);
    const size_t peak = memory_report(Device::cpu).peak - start;
    return std::tuple{calls(KernelId::matmul_tn) - tn, calls(KernelId::matmul_nn) - nn, peak};
  };
  CHECK(counted([&] { return linear(x, w); }) == std::tuple{0, 1, 0ul});  // adds to the leaf's gradient
  const Var trained = random_leaf("w", {48, 32}), fixed = constant("x", {16, 32});
  CHECK(counted([&] { return linear(fixed, trained); }) == std::tuple{1, 0, 0ul});
  // LoRA on a frozen weight: one matmul_tn each for A and B, one matmul_nn for h and two for x (by w, by A).
  const auto [tn, nn, peak] = counted([&] { return linear_with_lora(x, w, {}, linear(x, a), b); });
  CHECK(tn == 2);
  CHECK(nn == 3);
  CHECK(peak < w.value().nbytes());
}

TEST_CASE("the gradient of an input that needs none is not allocated") {
  const Var x = random_leaf("x", {8, 8}), y = constant("y", {8, 8});
  std::vector<bool> wanted;
  const Var z = record("asks", x.value(), {x, y}, [&](const Tensor& dy, Grads& g) {
    wanted = {g.wants(0), g.wants(1)};
    CHECK_FALSE(g.like(1).defined());
    CHECK_FALSE(g.target(1).tensor.defined());
    CHECK_FALSE(g.accumulator(1).defined());
    g.add(1, dy);  // ignored
    g.add(0, Tensor{});
    g.add(0, dy);
  });
  backward(z, ones({8, 8}));
  CHECK(wanted == std::vector<bool>{true, false});
  CHECK(values_of(x.grad()) == Values(64, 1));
}

TEST_CASE("backward handles a long chain") {
  const Var x = leaf_of({1});
  Var y = x;
  for (int i = 0; i < 20'000; ++i) y = scale(y, 1);
  backward(y);
  CHECK(x.grad().item() == 1);
}
