// Where grouped execution of LoRA experts overtakes masked: forward and backward of one adapted Linear of
// N tokens, C channels in and out, K of E experts per token, without the frozen product that both share.
// Not a test; run on a quiet machine:  bench_experts [C [K]]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "autograd/ops.h"
#include "tensor/rng.h"

using namespace burrow;

namespace {

struct Sizes {
  int64_t C, N, R, E, K;
};

Tensor random_tensor(const Shape& shape) {
  static Random random(1);
  Tensor t = Tensor::empty(shape, DType::f32);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(random.normal());
  return t;
}
Var leaf(const Shape& shape) { return Var::leaf(random_tensor(shape), Tensor::zeros(shape, DType::f32)); }

// K experts for each row, at random.
Tensor random_choice(int64_t N, int64_t E, int64_t K) {
  Random random(2);
  Tensor chosen = Tensor::zeros({N, E}, DType::f32);
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t k = 0; k < K;) {
      float& at = chosen.data<float>()[n * E + static_cast<int64_t>(random.below(static_cast<uint32_t>(E)))];
      k += at == 0;
      at = 1;
    }
  }
  return chosen;
}

double microseconds(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

// The fastest call of each, in turns, since the machine's speed drifts.
std::pair<double, double> fastest(const std::function<void()>& f, const std::function<void()>& g) {
  constexpr double kEnough = 60e3;  // microseconds
  f(), g();
  double best_f = 1e30, best_g = 1e30;
  int calls = 0;
  for (double spent = 0; calls < 5 || (spent < kEnough && calls < 50); ++calls) {
    const double a = microseconds(f), b = microseconds(g);
    best_f = std::min(best_f, a), best_g = std::min(best_g, b);
    spent += a + b;
  }
  return {best_f, best_g};
}

std::pair<double, double> masked_and_grouped(const Sizes& s) {
  const Var x = leaf({s.N, s.C}), a = leaf({s.E * s.R, s.C}), b = leaf({s.C, s.E * s.R});
  const Tensor chosen = random_choice(s.N, s.E, s.K), dy = random_tensor({s.N, s.C});
  const Var weights = Var::leaf(chosen, Tensor::zeros(chosen.shape(), DType::f32));
  // A frozen Linear of no input stands for the product that both ways share.
  const Var no_x(Tensor::empty({s.N, 0}, DType::f32)), no_w(Tensor::empty({s.C, 0}, DType::f32));
  const auto masked = [&] {
    backward(linear_with_lora(no_x, no_w, {}, scale_experts(linear(x, a), weights, 2), b), dy);
  };
  const auto grouped = [&] {
    const ExpertGroups groups = group_by_expert(chosen, s.K);
    const Var h = grouped_scale(grouped_linear(x, a, groups), weights, groups, 2);
    backward(linear_with_grouped_lora(no_x, no_w, {}, h, b, groups), dy);
  };
  return fastest(masked, grouped);
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t only = argc > 1 ? std::stoll(argv[1]) : 0, K = argc > 2 ? std::stoll(argv[2]) : 1;
  fmt::print("masked / grouped, time of forward and backward (> 1: grouped is faster), K = {}\n", K);
  for (const int64_t C : {128, 512, 1024}) {
    for (const int64_t N : {400, 2048}) {
      if (only > 0 && C != only) continue;
      fmt::print("\nC = {}, N = {}\n{:>6}", C, N, "R \\ E");
      for (const int64_t E : {1, 2, 3, 4, 6, 8, 16, 32, 64}) fmt::print("{:>7}", E);
      for (const int64_t R : {2, 4, 8, 16, 32}) {
        fmt::print("\n{:>6}", R);
        for (const int64_t E : {1, 2, 3, 4, 6, 8, 16, 32, 64}) {
          if (E < K) {
            fmt::print("{:>7}", "");
            continue;
          }
          const auto [masked, grouped] = masked_and_grouped({C, N, R, E, K});
          fmt::print("{:>7.2f}", masked / grouped);
          std::fflush(stdout);
        }
      }
      fmt::print("\n");
    }
  }
}
