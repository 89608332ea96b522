#pragma once
// The table of the golden values: each of tests/golden/*.safetensors with the method and the model that made
// it, at E = 3 experts of rank 2 and alpha 4. A method gets its goldens and its identities by a row here.
#include <string>
#include <vector>

#include "moe/config.h"
#include "nn/config.h"

namespace burrow::testing {

struct GoldenCase {
  std::string name;  // of the file
  moe::MethodConfig method;
  nn::ModelConfig model;
};
const std::vector<GoldenCase>& golden_cases();
// The method of a row.
moe::MethodConfig small_method(const std::string& golden);
// A row of the table of methods at these sizes, as it is.
moe::MethodConfig small(const std::string& row);
nn::ModelConfig mini_config();
// The sizes of LLaVA-1.5-7B.
nn::ModelConfig llava_7b();

}  // namespace burrow::testing
