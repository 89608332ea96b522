#pragma once
// Attaching a method to a model: every weight is frozen, the Linears and FFNs that the method targets are
// replaced by versions with experts, and the trainable parameters are listed.
#include "moe/auxiliary.h"
#include "nn/llava.h"

namespace burrow::moe {

struct ParameterCounts {
  int64_t total = 0;  // the whole model, adapters included
  int64_t trainable = 0;
  int64_t active = 0;  // trainable parameters that one token uses at most
};

// The result of attach(). `trainable` points into the model, which must outlive it.
struct Attachment {
  MethodConfig method;
  std::vector<nn::Parameter> trainable;  // in the order in which the model visits its parameters
  ParameterCounts counts;
  std::string report;  // one line for each kind of adapter, with parameter counts
};

// Adds adapters with initial values from (seed, name). Throws when a target of the method matches no Linear.
Attachment attach(nn::Llava& model, const MethodConfig& method, uint64_t seed);

}  // namespace burrow::moe
