// Where grouped execution of LoRA experts overtakes masked: forward and backward of one adapted Linear of
// N tokens, C channels in and out, one expert of E per token, without the frozen product that both share.
// Not a test; run on a quiet machine:  bench_experts [repeats]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "autograd/ops.h"
#include "tensor/rng.h"

using namespace burrow;

namespace {

struct Sizes {
  int64_t C, N, R, E;
};

Tensor random_tensor(const Shape& shape) {
  static Random random(1);
  Tensor t = Tensor::empty(shape, DType::f32);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(random.normal());
  return t;
}
Var leaf(const Shape& shape) { return Var::leaf(random_tensor(shape), Tensor::zeros(shape, DType::f32)); }

// One expert for each row, at random.
Tensor random_choice(int64_t N, int64_t E) {
  Random random(2);
  Tensor chosen = Tensor::zeros({N, E}, DType::f32);
  for (int64_t n = 0; n < N; ++n)
    chosen.data<float>()[n * E + static_cast<int64_t>(random.below(static_cast<uint32_t>(E)))] = 1;
  return chosen;
}

// The fastest of some calls, in microseconds.
double time_of(const std::function<void()>& f, int repeats) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30;
  f();
  for (int i = 0; i < repeats; ++i) {
    const auto start = Clock::now();
    f();
    best = std::min(best, std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  return best;
}

std::pair<double, double> masked_and_grouped(const Sizes& s, int repeats) {
  const Var x = leaf({s.N, s.C}), a = leaf({s.E * s.R, s.C}), b = leaf({s.C, s.E * s.R});
  const Tensor chosen = random_choice(s.N, s.E), dy = random_tensor({s.N, s.C});
  const Var weights = Var::leaf(chosen, Tensor::zeros(chosen.shape(), DType::f32));
  // A frozen Linear of no input stands for the product that both ways share.
  const Var no_x(Tensor::empty({s.N, 0}, DType::f32)), no_w(Tensor::empty({s.C, 0}, DType::f32));
  const auto masked = [&] {
    backward(linear_with_lora(no_x, no_w, {}, scale_experts(linear(x, a), weights, 2), b), dy);
  };
  const auto grouped = [&] {
    const ExpertGroups groups = group_by_expert(chosen, 1);
    const Var h = grouped_scale(grouped_linear(x, a, groups), weights, groups, 2);
    backward(linear_with_grouped_lora(no_x, no_w, {}, h, b, groups), dy);
  };
  return {time_of(masked, repeats), time_of(grouped, repeats)};
}

}  // namespace

int main(int argc, char** argv) {
  const int repeats = argc > 1 ? std::stoi(argv[1]) : 7;
  fmt::print("masked / grouped, time of forward and backward (> 1: grouped is faster)\n");
  for (const int64_t C : {128, 512, 1024}) {
    for (const int64_t N : {400, 2048}) {
      fmt::print("\nC = {}, N = {}\n{:>6}", C, N, "R \\ E");
      for (const int64_t E : {1, 2, 3, 4, 8, 16, 32, 64}) fmt::print("{:>7}", E);
      for (const int64_t R : {2, 4, 8, 16, 32}) {
        fmt::print("\n{:>6}", R);
        for (const int64_t E : {1, 2, 3, 4, 8, 16, 32, 64}) {
          const auto [masked, grouped] = masked_and_grouped({C, N, R, E}, repeats);
          fmt::print("{:>7.2f}", masked / grouped);
          std::fflush(stdout);
        }
      }
      fmt::print("\n");
    }
  }
}
