#include "tests/autograd/op_harness.h"

#include "tests/support/golden_data.h"
#include "tests/support/guarded_memory.h"
#include "tests/support/numbers.h"

namespace burrow::testing {
namespace {

// How an input enters the graph: as a leaf whose gradient is 0 or not, or as the result of another op, whose
// gradient is not allocated yet.
enum class Entry { leaf, filled_leaf, intermediate };

struct Problem {  // a case at one size, with its values
  std::string what;
  const OpCase* op;
  std::vector<Tensor> x, index;
  Tensor dy;
};
struct Result {
  Tensor y;
  std::vector<Tensor> grads;  // undefined if not requested
  int64_t kernels = 0;
};

constexpr uint32_t kAll = ~0u;
constexpr double kFilled = 0.25;

int64_t total_kernel_calls() {
  int64_t sum = 0;
  for (const auto& [name, calls] : kernel_calls()) sum += calls;
  return sum;
}

Result run(const Problem& p, uint32_t wanted = kAll, Entry entry = Entry::leaf) {
  const double start = entry == Entry::filled_leaf ? kFilled : 0;
  Result r;
  std::vector<Var> vars;
  for (size_t i = 0; i < p.x.size(); ++i) {
    const Tensor& x = p.x[i];
    const bool wants = wanted >> i & 1;
    r.grads.push_back(wants ? Tensor::full(x.shape(), start, sum_type(x.dtype()), x.device()) : Tensor{});
    Var v = wants ? Var::leaf(x, r.grads[i]) : Var(x);
    vars.push_back(wants && entry == Entry::intermediate ? reshape(v, x.shape()) : v);
  }
  const int64_t before = total_kernel_calls();
  const Var y = p.op->function(vars, p.index);
  REQUIRE(y.needs_grad());
  backward(y, p.dy.to(y.value().dtype()));
  r.kernels = total_kernel_calls() - before;
  r.y = y.value();
  return r;
}

Problem make_problem(const OpCase& op, const OpSize& size) {
  Problem p{fmt::format("{}, {}", op.name, size.label), &op, {}, size.index, {}};
  REQUIRE(size.shapes.size() == op.inputs.size());
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    p.x.push_back(normal(op.name + "." + op.inputs[i], size.shapes[i]));
  }
  NoGrad no_grad;
  const Var y = op.function({p.x.begin(), p.x.end()}, p.index);
  p.dy = normal(op.name + ".dy", y.shape());
  return p;
}

Problem converted(const Problem& p, DType dtype) {
  Problem q = p;
  for (Tensor& t : q.x) t = t.to(dtype);
  q.dy = q.dy.to(dtype);
  return q;
}
// In bf16, with the case's parameters in f32.
Problem with_parameters(const Problem& p) {
  Problem q = converted(p, DType::bf16);
  for (size_t i = 0; i < q.x.size(); ++i) {
    if (std::ranges::count(p.op->parameters, p.op->inputs[i])) q.x[i] = p.x[i].to(DType::f32);
  }
  return q;
}
Problem on(const Problem& p, Device device) {
  Problem q = p;
  for (Tensor& t : q.x) t = t.to(device);
  for (Tensor& t : q.index) t = t.to(device);
  q.dy = q.dy.to(device);
  return q;
}

// ---- the gradient against central differences

// d/dh of sum(dy f(x + h direction)) at h = 0, along a direction of input i. The step balances the truncation
// error, h^2, against the rounding error, 1e-16 / h.
double difference(const Problem& p, size_t i, const Tensor& direction) {
  NoGrad no_grad;
  constexpr double h = 2e-5;
  const OpFunction& f = p.op->surrogate ? p.op->surrogate : p.op->function;
  Values side[2];
  for (const int s : {0, 1}) {
    std::vector<Var> vars(p.x.begin(), p.x.end());
    Tensor moved = p.x[i].clone();
    kernel::accumulate(moved, direction, s == 0 ? h : -h);
    vars[i] = Var(moved);
    side[s] = values_of(f(vars, p.index).value());
  }
  const Values dy = values_of(p.dy);
  double sum = 0;
  for (size_t k = 0; k < dy.size(); ++k) sum += dy[k] * (side[0][k] - side[1][k]);
  return sum / (2 * h);
}

// Element by element, or along a few random directions if there are too many.
void check_gradient(const Problem& p, size_t i, const Tensor& gradient) {
  constexpr int64_t kElements = 400;
  constexpr int kDirections = 4;
  const int64_t n = gradient.numel();
  const bool each = n <= kElements;
  double error = 0;
  for (int64_t k = 0; k < (each ? n : kDirections); ++k) {
    Tensor direction = Tensor::zeros(gradient.shape(), DType::f64);
    if (each)
      direction.data<double>()[k] = 1;
    else
      direction = normal(fmt::format("direction.{}", k), gradient.shape());
    Tensor slope = Tensor::empty({1}, DType::f64);
    kernel::dot(slope, gradient, direction, 1);
    const double e = difference(p, i, direction) - slope.item();
    error += e * e;
  }
  // The floor is for gradients that are 0, such as that of the softmax of one number.
  check_below("gradient", std::sqrt(error) / std::max(norm(gradient), 1e-2), 1e-7,
              p.what + ", " + p.op->inputs[i]);
}

// ---- memory and graph

std::vector<Tensor> tensors_of(const Result& r) {
  std::vector<Tensor> all{r.y};
  all.insert(all.end(), r.grads.begin(), r.grads.end());
  return all;
}
void check_equal(const Result& a, const Result& b, const std::string& what) {
  const std::vector<Tensor> all_a = tensors_of(a), all_b = tensors_of(b);
  for (size_t i = 0; i < all_a.size(); ++i) {
    CHECK_MESSAGE(same_bits(all_a[i], all_b[i]), what, ": ", i == 0 ? "y" : "gradient ", i == 0 ? 0 : i - 1);
  }
}

// Two runs must agree, one in memory filled with NaN, one in memory filled with a finite value.
void check_memory(const Problem& p) {
  Result results[2];
  for (const int i : {0, 1}) {
    const GuardedMemory memory(i == 0 ? kFillNan : kFillFinite);
    results[i] = run(p);
    REQUIRE(memory.blocks() > 0);  // otherwise allocations were not intercepted: the linker option is missing
    const std::vector<std::string> damaged = memory.damaged();
    CHECK_MESSAGE(damaged.empty(), p.what, ": written outside of '", damaged.empty() ? "" : damaged[0], "'");
  }
  check_equal(results[0], results[1], p.what + ": two runs differ");
}

// Gradients requested one at a time, added to existing ones, and through another op.
void check_entries(const Problem& p, const Result& together) {
  const size_t n = p.x.size();
  for (size_t i = 0; n > 1 && i < n; ++i) {
    const Result alone = run(p, 1u << i);
    const std::string what = p.what + ", only " + p.op->inputs[i];
    // A fused kernel may evaluate the same formula in another order if one output is not wanted.
    check_below("gradient alone", relative_error(alone.grads[i], together.grads[i]), 1e-14, what);
    CHECK_MESSAGE((p.op->own_kernels ? alone.kernels < together.kernels : alone.kernels <= together.kernels),
                  what, ": ", alone.kernels, " kernels, together ", together.kernels);
  }
  check_equal(run(p, kAll, Entry::intermediate), together, p.what + ": as an intermediate");
  const Result added = run(p, kAll, Entry::filled_leaf);
  for (size_t i = 0; i < n; ++i) {
    Tensor sum = Tensor::full(p.x[i].shape(), kFilled, DType::f64);
    kernel::accumulate(sum, together.grads[i], 1);
    check_below("added gradient", relative_error(added.grads[i], sum), 1e-13,
                p.what + ", " + p.op->inputs[i]);
  }
}

void check_against(const std::string& kind, const Result& got, const Result& want, double bound,
                   const Problem& p) {
  const std::vector<Tensor> all_got = tensors_of(got), all_want = tensors_of(want);
  for (size_t i = 0; i < all_got.size(); ++i) {
    // The floor is for values near 1 that cancel, as in the gradient of the softmax of one number.
    check_below(kind, relative_error(all_got[i], all_want[i], 0.1), bound,
                p.what + ", " + (i == 0 ? "y" : "d_" + p.op->inputs[i - 1]));
  }
}

void check_size(const OpCase& op, const OpSize& size) {
  const Problem p = make_problem(op, size);
  const Result result = run(p);
  for (size_t i = 0; i < p.x.size(); ++i) check_gradient(p, i, result.grads[i]);
  check_entries(p, result);
  check_memory(p);
  const Problem single = converted(p, DType::f32);
  check_memory(single);
  check_against("f32 against f64", run(single), run(converted(single, DType::f64)), op.f32, p);
}

// ---- PyTorch's values

OpSize golden_size(const OpCase& op) {
  const auto& tensors = golden_file("ops").tensors;
  const std::string prefix = "op." + op.golden + ".";
  OpSize size{"golden", {}, {}};
  for (const std::string& name : op.inputs) size.shapes.push_back(tensors.at(prefix + "d_" + name).shape());
  for (const std::string& name : op.golden_index) size.index.push_back(tensors.at(prefix + name));
  return size;
}

void check_golden(const OpCase& op, const OpSize& size) {
  const auto& tensors = golden_file("ops").tensors;
  const std::string prefix = "op." + op.golden + ".";
  Problem p{op.name + ", golden", &op, {}, size.index, {}};
  Result want{tensors.at(prefix + "y"), {}, 0};
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    p.x.push_back(generated(prefix + op.inputs[i], size.shapes[i], 4));
    want.grads.push_back(tensors.at(prefix + "d_" + op.inputs[i]));
  }
  p.dy = generated(prefix + "dy", want.y.shape(), 4);
  check_against("golden in f64", run(p), want, 1e-12, p);
  // The inputs are rounded to f32, too, which a sum with cancellation amplifies.
  check_against("golden in f32", run(converted(p, DType::f32)), want, 2e-5, p);
}

}  // namespace

void check_op(const OpCase& op) {
  for (const OpSize& size : op.sizes) check_size(op, size);
  if (op.golden.empty()) return;
  const OpSize size = golden_size(op);
  check_size(op, size);
  check_golden(op, size);
}

namespace {

Result to_cpu(Result r) {
  r.y = r.y.to(Device::cpu);
  for (Tensor& g : r.grads) g = g.to(Device::cpu);
  return r;
}

// Two runs on the device must agree to the bit, in memory filled with NaN and with a finite value. If the GPU
// is emulated, the threads of the second run in descending order, so that a missing barrier shows.
Result run_twice_on_cuda(const Problem& p) {
  const Problem there = on(p, Device::cuda);
  Result results[2];
  for (const int i : {0, 1}) {
    const GuardedMemory memory(i == 0 ? kFillNan : kFillFinite);
    set_thread_order(i == 0);
    results[i] = to_cpu(run(there));
  }
  set_thread_order(true);
  check_equal(results[0], results[1], p.what + ": two runs on CUDA differ");
  return results[0];
}

struct Precision {
  DType dtype;
  const char* kind;
  double bound;
  bool parameters = false;  // the case's parameters stay f32
};
std::vector<Precision> precisions(const OpCase& op) {
  if (cuda::options().tf32) return {{DType::f32, "CUDA with TF32", 1e-3}};
  std::vector<Precision> all{{DType::f32, "CUDA in f32", 1e-5}};
  if (!op.routing) all.push_back({DType::bf16, "CUDA in bf16", 1e-2});
  if (!op.parameters.empty()) all.push_back({DType::bf16, "CUDA, parameters in f32", 1e-2, true});
  return all;
}

}  // namespace

bool check_op_on_cuda(const OpCase& op) {
  std::vector<OpSize> sizes = op.sizes;
  if (!op.golden.empty()) sizes.push_back(golden_size(op));
  for (const OpSize& size : sizes) {
    const Problem problem = make_problem(op, size);
    try {
      for (const auto& [dtype, kind, bound, parameters] : precisions(op)) {
        const Problem p = parameters ? with_parameters(problem) : converted(problem, dtype);
        check_against(kind, run_twice_on_cuda(p), run(converted(p, DType::f64)), bound, p);
      }
    } catch (const Error& e) {
      if (contains(e.what(), "has no CUDA kernel yet")) return false;
      throw;
    }
  }
  return true;
}

Tensor offsets_of(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> offsets{0};
  for (const int32_t n : lengths) offsets.push_back(offsets.back() + n);
  return index_of(offsets);
}

}  // namespace burrow::testing
