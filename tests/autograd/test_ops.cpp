// Registers every row of op_cases.cpp as a test case, on the CPU and on CUDA; tests kernels without
// gradients. A run without arguments fails if a kernel of kernels.def was never called.
#include "tensor/cuda/cudnn.h"
#include "tensor/device.h"
#include "tests/autograd/op_harness.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

// ---- kernels without a gradient, against their formulas

TEST_CASE_TEMPLATE("kernel: argmax and top_k_mask choose the first of equal values", T, float, double) {
  const Tensor x = Tensor::of({2, 4}, std::vector<T>{1, 3, 3, 2, -1, -1, -1, -1});
  Tensor index = Tensor::empty({2}, DType::i32), mask = Tensor::empty(x.shape(), x.dtype());
  kernel::argmax(index, x);
  CHECK(values_of(index) == Values{1, 0});
  kernel::top_k_mask(mask, x, 1);
  CHECK(values_of(mask) == Values{0, 1, 0, 0, 1, 0, 0, 0});
  kernel::top_k_mask(mask, x, 3);
  CHECK(values_of(mask) == Values{0, 1, 1, 1, 1, 1, 1, 0});
}

TEST_CASE_TEMPLATE("kernel: sum_squares and adamw", T, float, double) {
  constexpr DType dtype = DTypeOf<T>::value;
  const Tensor g = normal("g", {37}, dtype);
  Tensor value = normal("value", {37}, dtype), m = Tensor::zeros({37}, dtype), v = m.clone();
  Tensor sum = Tensor::zeros({1}, DType::f64);
  kernel::sum_squares(sum, g);
  CHECK(sum.item() == doctest::Approx(norm(g) * norm(g)).epsilon(1e-12));
  const Values g0 = values_of(g);
  Values want = values_of(value), m0(37, 0), v0(37, 0);
  for (int step = 1; step <= 3; ++step) {
    kernel::adamw(value, m, v, g, {.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8, .weight_decay = 0.1}, step, 0.01,
                  0.5);
    for (size_t i = 0; i < want.size(); ++i) {
      const double gradient = 0.5 * g0[i];
      m0[i] = 0.9 * m0[i] + 0.1 * gradient;
      v0[i] = 0.98 * v0[i] + 0.02 * gradient * gradient;
      const double m_hat = m0[i] / (1 - std::pow(0.9, step)), v_hat = v0[i] / (1 - std::pow(0.98, step));
      want[i] -= 0.01 * (m_hat / (std::sqrt(v_hat) + 1e-8) + 0.1 * want[i]);
    }
  }
  check_near("value", value, want);
  check_near("m", m, m0);
  check_near("v", v, v0);
}

TEST_CASE_TEMPLATE("linear_log_prob equals the negative cross entropy", T, float, double) {
  const Tensor x = normal("x", {7, 5}, DTypeOf<T>::value), w = normal("w", {11, 5}, x.dtype());
  const Tensor target = random_index(7, 0, 11);
  double sum = 0;
  for (const double p : values_of(linear_log_prob(x, w, target, 3))) sum += p;
  CHECK(-sum == doctest::Approx(linear_cross_entropy(Var(x), Var(w), target).value().item()).epsilon(1e-6));
}

TEST_CASE("gate mode none passes no gradient to the router") {
  const Var logits = Var::leaf(normal("z", {4, 3}), Tensor::zeros({4, 3}, DType::f64));
  const Routed r = route(logits, {}, {index_of({0, 0, 1, 0}), 2});
  CHECK_FALSE(r.weights.needs_grad());
  CHECK_FALSE(r.mean_weights.needs_grad());
  CHECK(r.probs.needs_grad());
}

TEST_CASE_TEMPLATE("kernel: route_sums equals the sums of route", T, float, double) {
  const Tensor group = random_index(700, -1, 3);
  const Routed r = route(Var(normal("z", {700, 3}, DTypeOf<T>::value)), {}, {group, 3});
  Tensor sums = Tensor::empty(r.sums.shape(), r.sums.dtype());
  kernel::route_sums(sums, r.probs.value(), r.chosen, r.weights.value(), group);
  CHECK(same_bits(sums, r.sums));
}

// A frozen bf16 weight must give the results of an f32 weight with the rounded values.
TEST_CASE_TEMPLATE("bf16 weights", T, float, double) {
  constexpr DType dtype = DTypeOf<T>::value;
  const Tensor half = normal("w", {13, 8}).to(DType::bf16), whole = half.to(dtype);
  const Tensor x = normal("x", {5, 8}, dtype), target = index_of({0, 12, 3, 3, 7}),
               id = index_of({2, -1, 12});
  const auto gradient_of = [&](const auto& f) {
    const Var leaf = Var::leaf(x, Tensor::zeros(x.shape(), dtype));
    const Var y = f(leaf);
    backward(y, normal("dy", y.shape(), dtype));
    return std::pair{y.value(), leaf.grad()};
  };
  const auto compare = [&](const char* what, const auto& f) {
    const auto [y, dx] = gradient_of([&](const Var& v) { return f(v, Var(half)); });
    const auto [want_y, want_dx] = gradient_of([&](const Var& v) { return f(v, Var(whole)); });
    // The conversion is exact; only the order of a sum may differ.
    check_below("bf16 weights", relative_error(y, want_y), dtype == DType::f64 ? 1e-14 : 1e-6, what);
    check_below("bf16 weights", relative_error(dx, want_dx), dtype == DType::f64 ? 1e-14 : 1e-6, what);
  };
  compare("linear", [](const Var& v, const Var& w) { return linear(v, w); });
  compare("linear_cross_entropy",
          [&](const Var& v, const Var& w) { return linear_cross_entropy(v, w, target, 2); });
  compare("embedding", [&](const Var& v, const Var& w) { return embedding(w, v, id); });
}

// ---- registration of rows as test cases

namespace {

constexpr size_t kMostRows = 80;

template <size_t Row>
void run_on_cpu() {
  check_op(op_cases()[Row]);
}
template <size_t Row>
void run_on_cuda() {
  if (!check_op_on_cuda(op_cases()[Row])) MESSAGE("SKIPPED (no CUDA kernel yet): ", op_cases()[Row].name);
}

template <size_t Row>
void register_row(bool device) {
  if (Row >= op_cases().size()) return;
  static const std::string name = "op: " + op_cases()[Row].name,
                           cuda_name = "op on CUDA: " + op_cases()[Row].name;
  using doctest::detail::TestCase;
  const auto& suite = doctest_detail_test_suite_ns::getCurrentTestSuite();
  doctest::detail::regTest(TestCase(run_on_cpu<Row>, __FILE__, __LINE__, suite) * name.c_str());
  doctest::detail::regTest(TestCase(run_on_cuda<Row>, __FILE__, __LINE__, suite) * cuda_name.c_str() *
                           doctest::skip(!device));
  if (!device) fmt::print("SKIPPED (no CUDA device): {}\n", cuda_name);
}
template <size_t... Rows>
void register_rows(std::index_sequence<Rows...>, bool device) {
  BURROW_CHECK(op_cases().size() <= sizeof...(Rows), "more rows than test cases: raise kMostRows");
  (register_row<Rows>(device), ...);
}

bool every_kernel_was_called() {
  bool all = true;
  for (const auto& [name, calls] : kernel_calls()) {
    if (calls == 0) fmt::print("FAILED: no test of an op calls the kernel '{}' of kernels.def\n", name);
    all = all && calls > 0;
  }
  return all;
}

// Switches attention on the device to cuDNN; prints the reason and returns false if it is unavailable.
bool choose_cudnn() {
  const cuda::CudnnInfo info = cuda::cudnn_info();
  if (!info.absent.empty()) fmt::print("SKIPPED ({}): attention's rows by cuDNN\n", info.absent);
  cuda::options().attention = cuda::AttentionBy::cudnn;
  return info.absent.empty();
}

}  // namespace

// --cuda runs the rows on the device and returns 77 (skipped) without one. --cuda --fast does so with TF32 in
// f32 products. --cuda --cudnn runs attention's rows, by cuDNN if it supports the sizes; returns 77 without
// cuDNN.
int main(int argc, char** argv) {
  const bool device = cuda::built() && cuda::device_count() > 0;
  const bool only_cuda = (argc == 2 || argc == 3) && std::string_view(argv[1]) == "--cuda";
  const bool only_cudnn = only_cuda && argc == 3 && std::string_view(argv[2]) == "--cudnn";
  cuda::options().tf32 = only_cuda && argc == 3 && std::string_view(argv[2]) == "--fast";
  register_rows(std::make_index_sequence<kMostRows>(), device);
  if ((only_cuda && !device) || (only_cudnn && !choose_cudnn())) return 77;
  doctest::Context context(argc, argv);
  if (only_cuda) context.addFilter("test-case", only_cudnn ? "op on CUDA: attention*" : "op on CUDA: *");
  const int result = context.run();
  if (only_cudnn && cuda::attention_calls_by_cudnn() == 0) {
    fmt::print("FAILED: cuDNN took none of attention's rows\n");
    return 1;
  }
  if (context.shouldExit()) return result;
  worst_errors().print();
  const bool full = argc == 1;  // arguments may filter test cases
  return full && !every_kernel_was_called() ? 1 : result;
}
