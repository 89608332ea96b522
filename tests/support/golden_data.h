#pragma once
// Inputs of the golden values, generated from their names (tests/golden/README.md), and access to the files.
#include <string>

#include "nn/weights.h"
#include "tensor/safetensors.h"

namespace burrow::testing {

// An f64 tensor with values uniform in [-scale/2, scale/2), determined by its name.
Tensor generated(const std::string& name, const Shape& shape, double scale);
// A parameter of the miniature model; the scale follows from the kind of parameter in its name.
Tensor generated_parameter(const std::string& name, const Shape& shape, int64_t rank);
// A summary of a tensor as f64 [10]: L2 norm, dot product with generated `<name>.probe`, first 8 elements.
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

// The contents of tests/golden/<name>.safetensors, read once.
const SafetensorsFile& golden_file(const std::string& name);

}  // namespace burrow::testing
