#pragma once
// The trainable parameters of a model in two flat tensors at fixed addresses, values and gradients, so that
// the optimiser and the gradient norm need one kernel launch each and no copies.
#include <string>
#include <vector>

#include "nn/layers.h"

namespace burrow::nn {

class ParameterArena {
 public:
  // The range of the arena that holds one parameter.
  struct Slot {
    std::string name;
    Role role;
    Shape shape;
    int64_t begin = 0, end = 0;  // element range; elements up to the next slot are padding and stay zero
  };
  ParameterArena() = default;
  // Moves the parameters' values into the arena (f64 if the first parameter is f64, else f32) and makes each
  // parameter a leaf whose gradient is a slice of `grads`.
  explicit ParameterArena(const std::vector<Parameter>& parameters);

  const std::vector<Slot>& slots() const { return slots_; }
  // The slot of the parameter of this name; throws if there is none.
  const Slot& slot(const std::string& name) const;
  int64_t parameter_count() const;  // without padding
  Tensor value(const Slot& s) const { return values.slice_rows(s.begin, s.end).reshape(s.shape); }
  Tensor grad(const Slot& s) const { return grads.slice_rows(s.begin, s.end).reshape(s.shape); }

  Tensor values, grads;  // [elements]

 private:
  std::vector<Slot> slots_;
};

}  // namespace burrow::nn
