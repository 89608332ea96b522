// The functions of cudnn.h in a build without cuDNN: the library is never used, and requesting it throws.
// Nothing is computed here.
#include "tensor/cuda/cudnn.h"

namespace burrow::cuda {
namespace {

constexpr const char* kAbsent =
    "this build has no cuDNN: configure with -DBURROW_CUDA=ON where cudnn.h and cudnn_frontend.h are found";

bool refuse() {
  if (options().attention == AttentionBy::cudnn) fail("[attention] {}", kAbsent);
  return false;
}

}  // namespace

CudnnInfo cudnn_info() { return {.absent = kAbsent}; }
bool attention_by_cudnn(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                        const AttentionRanges&, const AttentionShape&) {
  return refuse();
}
bool attention_backward_by_cudnn(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                 const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                 const AttentionRanges&, const AttentionShape&) {
  return refuse();
}
int64_t attention_calls_by_cudnn() { return 0; }
std::string cudnn_objections(const FusedProblem&, int) { return kAbsent; }

}  // namespace burrow::cuda
