#pragma once
// The checks that every differentiable op must pass. A row of the table in op_cases.cpp is a case; for each
// of its sizes the harness checks
//   - the gradient against central differences in f64, with a random cotangent
//   - values and gradients against PyTorch's, if tests/golden/ops.safetensors has the case
//   - f32 against f64
//   - that nothing is written outside of an allocation, that outputs are written completely
//   - that two runs are equal to the bit
//   - that gradients requested one at a time are the same and cost less, and that they add to existing ones
//   - on CUDA, if there is a device: f32 and bf16, or f32 if TF32 is allowed, against f64 on the CPU, in two
//     runs that are equal to the bit whatever the memory held before
#include <functional>
#include <string>
#include <vector>

#include "autograd/ops.h"

namespace burrow::testing {

// The inputs of an op, and its i32 arguments.
using X = const std::vector<Var>&;
using I = const std::vector<Tensor>&;
using OpFunction = std::function<Var(X x, I index)>;

constexpr const char* kSums = "sums of up to some hundred terms, each rounded by 6e-8";

struct OpSize {
  std::string label;
  std::vector<Shape> shapes;  // shapes of the inputs
  std::vector<Tensor> index;  // i32 arguments of the function
};

struct OpCase {
  std::string name;
  std::vector<std::string> inputs;  // the differentiable ones
  OpFunction function;
  std::vector<OpSize> sizes;
  // Name of the case in the golden file, whose size is tested, too; names of its index inputs.
  std::string golden = {};
  std::vector<std::string> golden_index = {};
  // Largest relative error of f32 against f64, per tensor.
  double f32 = 1e-6;
  const char* why = "a few roundings of 6e-8, none of them amplified";
  // The gradient of each input has its own kernels, so that fewer must run if one is not wanted.
  bool own_kernels = false;
  // Inputs that training keeps in f32 with bf16 activations; CUDA in bf16 is also tested with these in f32.
  std::vector<std::string> parameters = {};
  // Part of routing, which is f32 whatever the dtype of activations, so that bf16 is not tested.
  bool routing = false;
  // The function whose derivative the gradient is, if that is not `function`.
  OpFunction surrogate = nullptr;
};

std::vector<OpCase> routing_cases();    // op_cases_routing.cpp
const std::vector<OpCase>& op_cases();  // the table, op_cases.cpp

void check_op(const OpCase& op);
// Compares values and gradients of each of the case's sizes on the device with the CPU's in f64, by relative
// error: f32 within 1e-5 and bf16 within 1e-2 or, with TF32 allowed (cuda::options), f32 alone within 1e-3.
// False if a kernel of the case exists only on the CPU.
bool check_op_on_cuda(const OpCase& op);

// Offsets of sequences of these lengths: i32 [B+1].
Tensor offsets_of(const std::vector<int32_t>& lengths);

}  // namespace burrow::testing
