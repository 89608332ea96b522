#pragma once
// Attaching a method to a model: everything is frozen, the Linears and FFNs that the method names are
// replaced by those with experts, and what is trained is listed.
#include "moe/auxiliary.h"
#include "nn/llava.h"

namespace burrow::moe {

struct ParameterCounts {
  int64_t total = 0;  // of the model with its adapters
  int64_t trainable = 0;
  int64_t active = 0;  // trainable parameters that one token uses, at most where a rule says how many experts
};

// What attach did to a model. The parameters are the model's: it must live as long.
struct Attachment {
  MethodConfig method;
  std::vector<nn::Parameter> trainable;  // in the order of the model
  ParameterCounts counts;
  std::string report;  // what matched, with parameter counts: one line each
};

// Draws the adapters' initial values from (seed, name). A pattern that matches nothing is an error.
Attachment attach(nn::Llava& model, const MethodConfig& method, uint64_t seed);

}  // namespace burrow::moe
