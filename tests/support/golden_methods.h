#pragma once
// The table of golden values: the method and model of each file tests/golden/*.safetensors, with E = 3
// experts of rank 2 and alpha 4. A row here adds a method to the tests of golden values (test_golden) and of
// identities (test_moe, test_recompute).
#include <string>
#include <vector>

#include "moe/config.h"
#include "nn/config.h"

namespace burrow::testing {

struct GoldenCase {
  std::string name;  // name of the file
  moe::MethodConfig method;
  nn::ModelConfig model;
};
const std::vector<GoldenCase>& golden_cases();
// The method of the row of this name.
moe::MethodConfig small_method(const std::string& golden);
// A method of the table at these sizes, otherwise unchanged.
moe::MethodConfig small(const std::string& row);
nn::ModelConfig mini_config();
// The sizes of LLaVA-1.5-7B.
nn::ModelConfig llava_7b();

}  // namespace burrow::testing
