#include "tensor/device.h"

#include "tensor/check.h"

#ifdef BURROW_CUDA
#include <cuda_runtime.h>

#define BURROW_CUDA_CHECK(call)                                           \
  do {                                                                    \
    if (const cudaError_t status = (call); status != cudaSuccess)         \
      ::burrow::fail("[cuda] {}: {}", #call, cudaGetErrorString(status)); \
  } while (0)
#endif

namespace burrow::cuda {

#ifdef BURROW_CUDA

bool built() { return true; }
int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}
void* allocate(size_t bytes) {
  void* p = nullptr;
  BURROW_CUDA_CHECK(cudaMallocAsync(&p, bytes, nullptr));
  return p;
}
void release(void* bytes) { cudaFreeAsync(bytes, nullptr); }  // in destructors: nothing useful to throw
void copy_to_device(void* device, const void* host, size_t bytes) {
  BURROW_CUDA_CHECK(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
}
void copy_to_host(void* host, const void* device, size_t bytes) {
  BURROW_CUDA_CHECK(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
}
void copy_on_device(void* to, const void* from, size_t bytes) {
  BURROW_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, nullptr));
}
void zero(void* device, size_t bytes) { BURROW_CUDA_CHECK(cudaMemsetAsync(device, 0, bytes, nullptr)); }
void synchronise() { BURROW_CUDA_CHECK(cudaDeviceSynchronize()); }

#else

namespace {
[[noreturn]] void absent() { fail("[cuda] this build has no CUDA: configure with -DBURROW_CUDA=ON"); }
}  // namespace

bool built() { return false; }
int device_count() { return 0; }
void* allocate(size_t) { absent(); }
void release(void*) {}
void copy_to_device(void*, const void*, size_t) { absent(); }
void copy_to_host(void*, const void*, size_t) { absent(); }
void copy_on_device(void*, const void*, size_t) { absent(); }
void zero(void*, size_t) { absent(); }
void synchronise() { absent(); }

#endif

}  // namespace burrow::cuda
