#pragma once
// What every differentiable op is held to. A row of the table in op_cases.cpp says what to run; the harness
// checks, for each of its sizes,
//   - the gradient against central differences in f64, under a random cotangent
//   - values and gradients against PyTorch's, where tests/golden/ops.safetensors has the case
//   - f32 against f64
//   - that nothing is written outside of an allocation, that outputs are written in full, and that two runs
//     are equal to the bit
//   - that gradients asked for one at a time are the same and cost less, and that they add to what is there
//   - on CUDA, where there is a device: f32 and bf16, or f32 where TF32 is allowed, against f64 on the CPU,
//   in
//     two runs that are equal to the bit whatever is in the memory first.
#include <functional>
#include <string>
#include <vector>

#include "autograd/ops.h"

namespace burrow::testing {

using OpFunction = std::function<Var(const std::vector<Var>& x, const std::vector<Tensor>& index)>;

struct OpSize {
  std::string label;
  std::vector<Shape> shapes;  // of the inputs
  std::vector<Tensor> index;  // i32, whatever the function makes of them
};

struct OpCase {
  std::string name;
  std::vector<std::string> inputs;  // the differentiable ones
  OpFunction function;
  std::vector<OpSize> sizes;
  // A case of the golden file, whose size is tested like the others; names of its index inputs.
  std::string golden = {};
  std::vector<std::string> golden_index = {};
  // Largest relative error of f32 against f64, per tensor.
  double f32 = 1e-6;
  const char* why = "a few roundings of 6e-8, none of them amplified";
  // The gradient of each input takes kernels of its own, so that an unwanted one must save some.
  bool own_kernels = false;
  // Inputs that training keeps in f32 beside bf16 activations: on CUDA in bf16 the row also runs with them
  // so.
  std::vector<std::string> parameters = {};
  // A part of routing: f32 whatever the dtype of the activations, so that bf16 is not asked of it.
  bool routing = false;
  // The function that the gradient belongs to, where it is not the derivative of `function`.
  OpFunction surrogate = nullptr;
};

std::vector<OpCase> routing_cases();    // of op_cases_routing.cpp
const std::vector<OpCase>& op_cases();  // the table, op_cases.cpp

void check_op(const OpCase& op);
// Each size in f32 (within 1e-5) and in bf16 (1e-2) on the device; with TF32 allowed (cuda::options), in f32
// alone (1e-3). False where a kernel of the
// row exists on the CPU only.
bool check_op_on_cuda(const OpCase& op);

// Offsets of sequences of these lengths: i32 [B+1].
Tensor offsets_of(const std::vector<int32_t>& lengths);

}  // namespace burrow::testing
