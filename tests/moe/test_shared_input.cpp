#include "moe/experts.h"
#include "tests/support/mini_llava.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

// What three Linears compute of one input, computed once: the same values, gradients and dropout.
TEST_CASE("experts on one input share its dropout and their narrow product") {
  const int64_t C = 7, rows[] = {6, 3, 6};
  const auto source = nn::random_weights(5, DType::f64);
  const Segments segments = Batch({golden_samples()[3]}, DType::f64).segments;
  nn::Pass pass(segments);
  pass.training = true;
  const int64_t N = segments.rows();
  moe::MethodConfig method = mole_method(GateMode::scaled);
  method.rank = 2;
  method.dropout = 0.3;
  std::vector<std::unique_ptr<moe::AdaptedLinear>> linears;
  std::vector<moe::LoraExperts*> readers;
  std::vector<Var> leaves;
  const Var x = Var::leaf(normal("x", {N, C}), Tensor::zeros({N, C}, DType::f64));
  for (const char* part : {"q", "k", "v"}) {
    const std::string name = std::string("block.self_attn.") + part + "_proj";
    nn::Linear base(name, C, rows[linears.size()], false, *source);
    moe::LoraExperts bank(name, base, 1, method, 3);
    const auto leaf = [](const Tensor& t) { return Var::leaf(t, Tensor::zeros(t.shape(), t.dtype())); };
    bank.a = leaf(bank.a.value());
    bank.b = leaf(normal(name, bank.b.shape()));
    linears.push_back(std::make_unique<moe::AdaptedLinear>(std::move(base), std::move(bank), nullptr));
    readers.push_back(&linears.back()->experts);
    leaves.insert(leaves.end(), {readers.back()->a, readers.back()->b});
  }
  leaves.push_back(x);
  struct Result {
    std::vector<Tensor> values;
    int64_t dropouts, products;
  };
  const auto run = [&] {
    Result r;
    reset_kernel_calls();
    Var sum;
    for (const auto& linear : linears) {
      const Var y = (*linear)(x, pass), squares = dot(y, y);
      r.values.push_back(y.value());
      sum = sum.defined() ? add(sum, squares) : squares;
    }
    r.dropouts = kernel_calls(KernelId::dropout);
    r.products = kernel_calls(KernelId::matmul_nt);
    for (const Var& leaf : leaves) Tensor(leaf.grad()).zero();
    backward(sum);
    for (const Var& leaf : leaves) r.values.push_back(leaf.grad().clone());
    return r;
  };
  const Result apart = run();
  CHECK(apart.dropouts == 3);
  CHECK(apart.products == 9);
  moe::SharedInput::among(readers);
  const Result together = run();
  CHECK(together.dropouts == 1);
  CHECK(together.products == 7);
  for (size_t i = 0; i < apart.values.size(); ++i) {
    CAPTURE(i);
    CHECK(relative_error(together.values[i], apart.values[i]) < 1e-14);
  }
  // Asked twice for the same rows, with other weights in between: nothing is remembered.
  const Tensor before = (*linears[0])(x, pass).value();
  Tensor a = readers[0]->a.value();
  a.zero();
  CHECK(relative_error((*linears[0])(x, pass).value(), before) > 1e-3);
  CHECK(values_of((*linears[0])(x, pass).value()) == values_of(linear(x, linears[0]->weight).value()));
}
