#include "nn/arena.h"

namespace burrow::nn {

ParameterArena::ParameterArena(const std::vector<Parameter>& parameters) {
  constexpr int64_t kAlign = 16;  // elements: a cache line of f32
  BURROW_CHECK(!parameters.empty(), "[arena] no parameter is trainable");
  int64_t at = 0;
  for (const Parameter& p : parameters) {
    slots_.push_back({p.name, p.role, p.var->shape(), at, at + p.var->value().numel()});
    at = (slots_.back().end + kAlign - 1) / kAlign * kAlign;
  }
  const Tensor& first = parameters[0].var->value();
  const DType dtype = first.dtype() == DType::f64 ? DType::f64 : DType::f32;
  values = Tensor::zeros({at}, dtype, first.device(), "parameters");
  grads = Tensor::zeros({at}, dtype, first.device(), "gradients");
  for (size_t i = 0; i < slots_.size(); ++i) {
    Tensor mine = value(slots_[i]);
    mine.copy_from(parameters[i].var->value().to(dtype));
    *parameters[i].var = Var::leaf(mine, grad(slots_[i]));
  }
}

const ParameterArena::Slot& ParameterArena::slot(const std::string& name) const {
  for (const Slot& s : slots_) {
    if (s.name == name) return s;
  }
  fail("[arena] no trainable parameter '{}'", name);
}

int64_t ParameterArena::parameter_count() const {
  int64_t count = 0;
  for (const Slot& s : slots_) count += s.end - s.begin;
  return count;
}

}  // namespace burrow::nn
