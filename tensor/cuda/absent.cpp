// The CUDA backend of a build without CUDA: every kernel and every function of device.h that needs a GPU
// throws. Nothing is computed here.
#include "tensor/cuda/cudnn.h"
#include "tensor/device.h"
#include "tensor/kernels.h"

namespace burrow::cuda {
namespace {

[[noreturn]] void absent() { fail("[cuda] this build has no CUDA: configure with -DBURROW_CUDA=ON"); }

}  // namespace

bool built() { return false; }
int device_count() { return 0; }
DeviceInfo device_info() { return {.absent = "this build has no CUDA: configure with -DBURROW_CUDA=ON"}; }
void* allocate(size_t) { absent(); }
void release(void*) {}
void copy_to_device(void*, const void*, size_t) { absent(); }
void copy_to_host(void*, const void*, size_t) { absent(); }
void copy_on_device(void*, const void*, size_t) { absent(); }
void fill(void*, int, size_t) { absent(); }
void synchronise() { absent(); }

RaggedRows ragged_rows(const AttentionRanges&, const AttentionShape&, int64_t) { absent(); }

#define KERNEL(backends, name, params, args)                             \
  void name params {                                                     \
    (void)detail::common_device(#name, BURROW_UNWRAP args);              \
    fail("[{}] a tensor is on cuda, and this build has no CUDA", #name); \
  }
#include "tensor/kernels.def"
#undef KERNEL

}  // namespace burrow::cuda
