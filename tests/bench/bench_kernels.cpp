// How fast each kernel is in f32 on one thread, on the shapes of a small model's training step: 390 tokens in
// 16 sequences, 128 channels, 4 heads of 32, 256 channels in the FFN, a vocabulary of 109, LoRA of rank 2
// with 3 experts. Not a test; run on a quiet machine:  bench_kernels [part of a name]
#include <fmt/format.h>
#include <omp.h>

#include <chrono>
#include <string_view>

#include "tensor/kernels.h"
#include "tensor/rng.h"

using namespace burrow;

namespace {

constexpr int64_t N = 390, C = 128, F = 256, H = 4, D = 32, V = 109;
std::string_view only;

Tensor random_tensor(Shape shape) {
  static Random random(1);
  Tensor t = Tensor::empty(std::move(shape), DType::f32);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(random.normal());
  return t;
}

// The fastest of 9 batches, each long enough for the clock. `amount` is operations (flops) or bytes.
template <class F>
void bench(const std::string& name, double amount, const char* unit, F&& f) {
  if (name.find(only) == std::string::npos) return;
  using Clock = std::chrono::steady_clock;
  const auto seconds = [&](int times) {
    const auto start = Clock::now();
    for (int i = 0; i < times; ++i) f();
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  seconds(3);
  const int times = std::max(1, static_cast<int>(0.005 / (seconds(10) / 10)));
  double best = 1e30;
  for (int i = 0; i < 9; ++i) best = std::min(best, seconds(times) / times);
  fmt::print("{:<44}{:>9.1f} us {:>8.1f} {}\n", name, best * 1e6, amount / best * 1e-9, unit);
}

void matmuls() {
  const std::vector<std::pair<int64_t, int64_t>> sizes{
      {128, 128}, {256, 128}, {128, 256}, {109, 128}, {2, 128},  {6, 128}, {16, 128},
      {24, 256},  {128, 2},   {128, 6},   {256, 6},   {128, 16}, {128, 24}};
  for (const auto& [O, I] : sizes) {
    Tensor x = random_tensor({N, I}), w = random_tensor({O, I}), y = random_tensor({N, O}),
           dw = random_tensor({O, I});
    const double flops = 2.0 * N * O * I;
    const std::string size = fmt::format("N={} O={} C={}", N, O, I);
    bench("matmul_nt " + size, flops, "GFLOP/s", [&] { kernel::matmul_nt(y, x, w, {}, false); });
    bench("matmul_nn " + size, flops, "GFLOP/s", [&] { kernel::matmul_nn(x, y, w, false); });
    bench("matmul_tn " + size, flops, "GFLOP/s", [&] { kernel::matmul_tn(dw, y, x, false); });
  }
}

void row_wise() {
  const double row = 4.0 * N * C, wide = 4.0 * N * F;
  Tensor a = random_tensor({N, C}), b = random_tensor({N, C}), y = random_tensor({N, C}),
         w = random_tensor({C});
  Tensor bias = random_tensor({C}), r = random_tensor({N}), m = random_tensor({N}), dw = random_tensor({C}),
         sum = random_tensor({N, C}), none;
  Tensor db = random_tensor({C}), one = random_tensor({1}), big = random_tensor({N, F}),
         g = random_tensor({N, F});
  Tensor u = random_tensor({N, F}), du = random_tensor({N, F}), out = random_tensor({N, F});
  for (const auto& [name, op] :
       {std::pair{"silu", Unary::silu}, {"gelu", Unary::gelu}, {"quick_gelu", Unary::quick_gelu}}) {
    bench(fmt::format("unary {}", name), 2 * wide, "GB/s", [&, o = op] { kernel::unary(out, big, o); });
    bench(fmt::format("unary_backward {}", name), 3 * wide, "GB/s",
          [&, o = op] { kernel::unary_backward(out, g, big, o); });
  }
  bench("swiglu", 3 * wide, "GB/s", [&] { kernel::swiglu(out, g, u); });
  bench("swiglu_backward", 5 * wide, "GB/s", [&] { kernel::swiglu_backward(out, du, big, g, u); });
  bench("add", 3 * row, "GB/s", [&] { kernel::add(y, a, b); });
  bench("scale", 2 * row, "GB/s", [&] { kernel::scale(y, a, 0.5); });
  bench("scale_by", 2 * row, "GB/s", [&] { kernel::scale_by(y, a, one, 0.5, false); });
  bench("mul", 3 * row, "GB/s", [&] { kernel::mul(y, a, b); });
  bench("accumulate", 3 * row, "GB/s", [&] { kernel::accumulate(y, a, 1e-9); });
  bench("sum_rows", row, "GB/s", [&] { kernel::sum_rows(dw, a, false); });
  bench("rms_norm", 2 * row, "GB/s", [&] { kernel::rms_norm(y, r, none, a, {}, w, 1e-5); });
  bench("rms_norm of a sum", 4 * row, "GB/s", [&] { kernel::rms_norm(y, r, sum, a, b, w, 1e-5); });
  bench("rms_norm_backward dx", 3 * row, "GB/s", [&] { kernel::rms_norm_backward(y, none, b, {}, a, w, r); });
  bench("rms_norm_backward dx dw", 5 * row, "GB/s",
        [&] { kernel::rms_norm_backward(y, dw, b, {}, a, w, r); });
  bench("layer_norm", 2 * row, "GB/s", [&] { kernel::layer_norm(y, m, r, a, w, bias, 1e-5); });
  bench("layer_norm_backward dx", 3 * row, "GB/s",
        [&] { kernel::layer_norm_backward(y, none, none, b, a, w, m, r); });
  bench("layer_norm_backward all", 5 * row, "GB/s",
        [&] { kernel::layer_norm_backward(y, dw, db, b, a, w, m, r); });
  bench("dot", 2 * row, "GB/s", [&] { kernel::dot(one, a, b, 1); });
  Tensor square = Tensor::zeros({1}, DType::f64);
  bench("sum_squares", row, "GB/s", [&] { kernel::sum_squares(square, a); });
  std::vector<int32_t> ordinals(N), groups(N), places(N), index(N);
  for (int32_t n = 0; n < N; ++n) {
    const auto i = static_cast<size_t>(n);
    ordinals[i] = groups[i] = n / 25, places[i] = n % 25, index[i] = (n * 37) % 109;
  }
  const Tensor ordinal = Tensor::of({N}, ordinals), position = Tensor::of({N}, places),
               group = Tensor::of({N}, groups);
  const Tensor rows = Tensor::of({N}, index);
  bench("dropout", 2 * row, "GB/s", [&] { kernel::dropout(y, a, ordinal, position, 1, 0.05); });
  Tensor mean = random_tensor({16, C}), count = random_tensor({16}), table = random_tensor({V, C});
  bench("group_mean", row, "GB/s", [&] { kernel::group_mean(mean, count, a, group); });
  bench("group_mean_backward", row, "GB/s", [&] { kernel::group_mean_backward(y, mean, count, group); });
  bench("gather_rows", 2 * row, "GB/s", [&] { kernel::gather_rows(y, table, rows); });
  bench("scatter_rows", 3 * row, "GB/s", [&] { kernel::scatter_rows(table, a, rows, true); });
  bench("embedding", 2 * row, "GB/s", [&] { kernel::embedding(y, table, none, rows); });
  bench("embedding_backward", 3 * row, "GB/s", [&] { kernel::embedding_backward(table, none, a, rows); });
  bench("rope", 2 * row, "GB/s", [&] { kernel::rope(y, a, position, H, 1e4, false); });
  Tensor logits = random_tensor({N, V}), p = random_tensor({N, V}), loss = random_tensor({N});
  Tensor best = Tensor::zeros({N}, DType::i32);
  bench("softmax", 8.0 * N * V, "GB/s", [&] { kernel::softmax(p, logits); });
  bench("softmax_backward", 12.0 * N * V, "GB/s", [&] { kernel::softmax_backward(p, logits, logits); });
  bench("cross_entropy", 8.0 * N * V, "GB/s", [&] { kernel::cross_entropy(loss, p, logits, rows); });
  bench("argmax", 4.0 * N * V, "GB/s", [&] { kernel::argmax(best, logits); });
}

void routing() {
  const int64_t E = 3, R = 2;
  Tensor logits = random_tensor({N, E}), probs = random_tensor({N, E}), mask = random_tensor({N, E});
  Tensor h = random_tensor({N, E * R}), y = random_tensor({N, E * R}), weights = random_tensor({N, E});
  bench("softmax E=3", 8.0 * N * E, "GB/s", [&] { kernel::softmax(probs, logits); });
  bench("softmax_backward E=3", 12.0 * N * E, "GB/s", [&] { kernel::softmax_backward(mask, logits, probs); });
  bench("top_k_mask k=1", 8.0 * N * E, "GB/s", [&] { kernel::top_k_mask(mask, probs, 1); });
  RouteTensors routed{.probs = probs, .chosen = mask, .weights = weights};
  bench("route k=1", 16.0 * N * E, "GB/s", [&] { kernel::route(routed, logits, {}, {}); });
  bench("scale_experts", 8.0 * N * E * R, "GB/s", [&] { kernel::scale_experts(y, h, probs, 2); });
  bench("scale_experts_backward", 16.0 * N * E * R, "GB/s",
        [&] { kernel::scale_experts_backward(y, mask, h, h, probs, 2); });
}

void attention(int64_t sequences, int64_t length) {
  const int64_t rows = sequences * length;
  std::vector<int32_t> cuts, places;
  for (int64_t b = 0; b <= sequences; ++b) cuts.push_back(static_cast<int32_t>(b * length));
  for (int64_t n = 0; n < rows; ++n) places.push_back(static_cast<int32_t>(n % length));
  const Tensor offsets = Tensor::of({sequences + 1}, cuts), positions = Tensor::of({rows}, places);
  const AttentionRanges ranges{offsets, offsets, positions, positions};
  Tensor q = random_tensor({rows, C}), k = random_tensor({rows, C}), v = random_tensor({rows, C});
  Tensor dy = random_tensor({rows, C}), y = random_tensor({rows, C}), lse = random_tensor({rows, H});
  Tensor dq = random_tensor({rows, C}), dk = random_tensor({rows, C}), dv = random_tensor({rows, C});
  for (const bool causal : {true, false}) {
    const AttentionShape shape{H, H, D, causal, 0.17};
    const double flops = 4.0 * static_cast<double>(rows * length * C) / (causal ? 2 : 1);
    const std::string size = fmt::format("{} x {} {}", sequences, length, causal ? "causal" : "full");
    bench("attention " + size, flops, "GFLOP/s", [&] { kernel::attention(y, lse, q, k, v, ranges, shape); });
    bench("attention_backward " + size, 2.5 * flops, "GFLOP/s",
          [&] { kernel::attention_backward(dq, dk, dv, dy, y, lse, q, k, v, ranges, shape); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) only = argv[1];
  omp_set_num_threads(1);
  matmuls();
  row_wise();
  routing();
  attention(16, 24);
  attention(2, 192);
  attention(1, 2048);
  const int64_t parameters = 100'000;
  Tensor p = random_tensor({parameters}), m = Tensor::zeros({parameters}, DType::f32), v = m.clone();
  const Tensor grad = random_tensor({parameters});
  bench("adamw 100k", 28.0 * parameters, "GB/s", [&] { kernel::adamw(p, m, v, grad, {}, 10, 1e-4, 1); });
}
