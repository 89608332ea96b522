#pragma once
// The inputs of the golden values, made again from their names (tests/golden/README.md), and the files.
#include <string>

#include "nn/weights.h"
#include "tensor/safetensors.h"

namespace burrow::testing {

// Uniform in [-scale/2, scale/2), a function of the name alone: f64.
Tensor generated(const std::string& name, const Shape& shape, double scale);
// A parameter of the miniature model; its kind, and so its scale, is read off its name.
Tensor generated_parameter(const std::string& name, const Shape& shape, int64_t rank);
// A tensor in ten numbers: L2 norm, sum against the generated tensor `<name>.probe`, first 8 elements. f64
// [10]
Tensor digest(const std::string& name, const Tensor& x);

// Generated parameters as the initial values of a model.
class GeneratedWeights : public nn::WeightSource {
 public:
  explicit GeneratedWeights(DType dtype) : dtype_(dtype) {}
  Tensor take(const std::string& name, const Shape& shape, nn::Init, int64_t) override {
    return generated_parameter(name, shape, 1).to(dtype_);
  }

 private:
  DType dtype_;
};

// tests/golden/<name>.safetensors, read once.
const SafetensorsFile& golden_file(const std::string& name);

}  // namespace burrow::testing
