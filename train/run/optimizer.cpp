#include "train/run/optimizer.h"

#include <algorithm>
#include <cmath>

namespace burrow::train {

double schedule(const TrainConfig& c, int64_t step, int64_t steps) {
  const double S = static_cast<double>(steps), s = static_cast<double>(step);
  const double rise = std::min(1.0, (s + 1) / (c.warmup * S + 1));
  const double cosine = 0.5 * (1 + std::cos(3.14159265358979323846 * s / S));
  return rise * (c.final_lr + (1 - c.final_lr) * cosine);
}

Optimizer::Optimizer(nn::ParameterArena& arena, const TrainConfig& config)
    : m(Tensor::zeros(arena.values.shape(), arena.values.dtype(), arena.values.device(), "optimizer")),
      v(Tensor::zeros(arena.values.shape(), arena.values.dtype(), arena.values.device(), "optimizer")),
      arena_(arena),
      config_(config) {}

Tensor Optimizer::squared_norm() const {
  Tensor sum = Tensor::zeros({1}, DType::f64, arena_.grads.device());
  kernel::sum_squares(sum, arena_.grads);
  return sum;
}

void Optimizer::step(double norm, double factor) {
  ++steps;
  const double scale = config_.clip > 0 ? std::min(1.0, config_.clip / (norm + 1e-6)) : 1.0;
  const AdamW options{config_.beta1, config_.beta2, config_.eps, config_.weight_decay};
  const auto apply = [&](int64_t begin, int64_t end, double lr) {
    Tensor value = arena_.values.slice_rows(begin, end), m_part = m.slice_rows(begin, end),
           v_part = v.slice_rows(begin, end);
    kernel::adamw(value, m_part, v_part, arena_.grads.slice_rows(begin, end), options, steps, lr, scale);
  };
  if (config_.router_lr <= 0) return apply(0, arena_.values.numel(), config_.lr * factor);
  for (const auto& slot : arena_.slots()) {
    const bool router = slot.role == nn::Role::router;
    apply(slot.begin, slot.end, (router ? config_.router_lr : config_.lr) * factor);
  }
}

}  // namespace burrow::train
