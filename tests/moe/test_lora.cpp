#include "moe/lora.h"
#include "tensor/rng.h"
#include "tests/support/mini_llava.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

// Three Linears on one input, computed together and one by one: same values, gradients and dropout.
TEST_CASE("experts on one input share its dropout and the product with their A matrices") {
  const int64_t C = 7, rows[] = {6, 3, 6};
  const auto source = nn::random_weights(5, DType::f64);
  const Segments segments = Batch({golden_samples()[3]}, DType::f64).segments;
  nn::Pass pass(segments);
  pass.training = true;
  const int64_t N = segments.rows();
  const moe::MethodConfig method = small_method("mole_scaled");
  const Var x = Var::leaf(normal("x", {N, C}), Tensor::zeros({N, C}, DType::f64));
  std::vector<Var> leaves;
  const auto leaf = [&](const Tensor& t) {
    leaves.push_back(Var::leaf(t, Tensor::zeros(t.shape(), t.dtype())));
    return leaves.back();
  };
  using Adapter = moe::LoraProjections::Adapter;
  std::vector<nn::Linear> linears;
  std::vector<Adapter> adapters;
  for (const char* part : {"q", "k", "v"}) {
    nn::Linear base(std::string("self_attn.") + part + "_proj", C, rows[linears.size()], false, *source);
    moe::LoraBank bank(base, 1, method, 3);
    bank.a = leaf(bank.a.value());
    bank.b = leaf(normal(base.name, bank.b.shape()));
    linears.push_back(std::move(base));
    adapters.push_back({std::move(bank), std::nullopt});
  }
  leaves.push_back(x);
  const auto projections = [&](size_t first, size_t count) {
    std::vector<nn::Linear> some(linears.begin() + static_cast<int64_t>(first),
                                 linears.begin() + static_cast<int64_t>(first + count));
    return moe::LoraProjections({"self_attn.input", std::move(some)},
                                {adapters.begin() + static_cast<int64_t>(first),
                                 adapters.begin() + static_cast<int64_t>(first + count)},
                                0.3);
  };
  struct Result {
    std::vector<Tensor> values;
    int64_t dropouts, products;
  };
  const auto run = [&](const std::vector<moe::LoraProjections>& parts) {
    Result r;
    reset_kernel_calls();
    Var sum;
    for (const auto& part : parts) {
      for (const Var& y : part(x, nullptr, pass)) {
        r.values.push_back(y.value());
        sum = sum.defined() ? add(sum, dot(y, y)) : dot(y, y);
      }
    }
    r.dropouts = kernel_calls(KernelId::dropout);
    r.products = kernel_calls(KernelId::matmul_nt);
    for (const Var& l : leaves) Tensor(l.grad()).zero();
    backward(sum);
    for (const Var& l : leaves) r.values.push_back(l.grad().clone());
    return r;
  };
  std::vector<moe::LoraProjections> alone, at_once;
  for (size_t i = 0; i < 3; ++i) alone.push_back(projections(i, 1));
  at_once.push_back(projections(0, 3));
  const Result apart = run(alone), together = run(at_once);
  CHECK(apart.dropouts == 3);
  CHECK(apart.products == 9);
  CHECK(together.dropouts == 1);
  CHECK(together.products == 7);
  for (size_t i = 0; i < apart.values.size(); ++i) {
    CAPTURE(i);
    CHECK(relative_error(together.values[i], apart.values[i]) < 1e-14);
  }
}

// The mask's key is part of what a seed means: another name of an input would change every run with dropout.
TEST_CASE("dropout is drawn by the input's name, which q, k and v share, and gate and up") {
  moe::MethodConfig method = small_method("lora_attention");
  method.dropout = 0.3;
  const Mini mini = generated_mini(method, DType::f64);
  const std::string layer = "language_model.model.layers.1.";
  const nn::DecoderBlock& block = mini.model->decoder.blocks[1];
  const std::vector<std::pair<const nn::Projections*, std::string>> inputs{
      {block.qkv.get(), layer + "self_attn.input"},
      {block.o.get(), layer + "self_attn.o_proj.input"},
      {block.ffn->gate_up.get(), layer + "mlp.input"},
      {block.ffn->down.get(), layer + "mlp.down_proj.input"}};
  nn::Pass pass(batch().segments);
  pass.training = true;
  pass.seed = 5;
  pass.step = 9;
  for (const auto& [projections, name] : inputs) {
    CAPTURE(name);
    const int64_t C = projections->linears[0].in();
    const Var x(normal("x", {batch().segments.rows(), C}));
    const Var dropped = dropout(x, pass.ordinal, pass.position, random_key(5, 9, name), 0.3);
    const std::vector<Var> y = (*projections)(x, nullptr, pass);
    for (size_t i = 0; i < y.size(); ++i) {
      const nn::Linear& base = projections->linears[i];
      const auto value = [&](const char* side) {
        return Var(mini.arena.value(mini.arena.slot(base.name + side)));
      };
      const Var delta = linear(linear(dropped, value(".lora_A.weight")), value(".lora_B.weight"));
      const Var want = add(base(x), scale(delta, method.alpha / static_cast<double>(method.rank)));
      CHECK_MESSAGE(relative_error(y[i].value(), want.value()) < 1e-13, base.name);
    }
  }
}
