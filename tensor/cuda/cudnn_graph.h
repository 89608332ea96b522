#pragma once
// The graphs of cuDNN's fused attention. Included by tensor/cuda/cudnn* alone.
#include <cudnn_frontend.h>

#include "tensor/cuda/cudnn.h"

namespace burrow::cuda {

// The ids of tensors in a graph; an execution maps each to an address.
enum FusedTensor : int64_t {
  kQ = 1,
  kK,
  kV,
  kY,
  kLse,
  kDy,
  kDq,
  kDk,
  kDv,
  kQBegins,
  kKBegins,
  kLseBegins,
  kQLengths,
  kKLengths
};

// The forward or the backward graph of a problem, for devices of this compute capability (90 is 9.0).
std::shared_ptr<cudnn_frontend::graph::Graph> fused_graph(const FusedProblem& problem, int capability);

}  // namespace burrow::cuda
