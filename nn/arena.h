#pragma once
// The trainable parameters of a model in two flat tensors, values and gradients, at stable addresses: one
// fused optimiser launch, one gradient norm, and later buckets and shards, all without copying.
#include <string>
#include <vector>

#include "nn/layers.h"

namespace burrow::nn {

class ParameterArena {
 public:
  // Where one parameter lies.
  struct Slot {
    std::string name;
    Role role;
    Shape shape;
    int64_t begin = 0, end = 0;  // elements of the arena; the gap to the next slot is padding that stays zero
  };
  ParameterArena() = default;
  // Moves the parameters' values into the arena (f32, or f64 where they are f64) and turns each into a leaf
  // whose gradient is a slice of `grads`.
  explicit ParameterArena(const std::vector<Parameter>& parameters);

  const std::vector<Slot>& slots() const { return slots_; }
  // By the parameter's name; throws when there is none.
  const Slot& slot(const std::string& name) const;
  int64_t parameter_count() const;  // without padding
  Tensor value(const Slot& s) const { return values.slice_rows(s.begin, s.end).reshape(s.shape); }
  Tensor grad(const Slot& s) const { return grads.slice_rows(s.begin, s.end).reshape(s.shape); }

  Tensor values, grads;  // [elements]

 private:
  std::vector<Slot> slots_;
};

}  // namespace burrow::nn
