// device.h by the CUDA runtime: memory from its stream-ordered pool, copies, and the properties of the
// device. The library runs all on the default stream; copies to the host wait for the kernels before them.
#include "tensor/device.h"

#include <cuda_runtime.h>

#include "tensor/check.h"

#define BURROW_CUDA_CHECK(call)                                           \
  do {                                                                    \
    if (const cudaError_t status = (call); status != cudaSuccess)         \
      ::burrow::fail("[cuda] {}: {}", #call, cudaGetErrorString(status)); \
  } while (0)

namespace burrow::cuda {
namespace {

// The pool keeps freed blocks, because each step allocates the same blocks again.
void keep_freed_memory() {
  cudaMemPool_t pool = nullptr;
  BURROW_CUDA_CHECK(cudaDeviceGetDefaultMemPool(&pool, 0));
  size_t threshold = ~size_t{0};
  BURROW_CUDA_CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
}

std::string gibibytes(size_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1 << 30));
}

}  // namespace

bool built() { return true; }

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

DeviceInfo device_info() {
  DeviceInfo info;
  cudaDriverGetVersion(&info.driver);
  cudaRuntimeGetVersion(&info.runtime);
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    info.absent = info.driver == 0
                      ? "no NVIDIA driver on this machine"
                      : fmt::format("the driver finds no device: {}", cudaGetErrorString(status));
    return info;
  }
  cudaDeviceProp properties{};
  BURROW_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  info.name = properties.name;
  info.major = properties.major;
  info.minor = properties.minor;
  info.multiprocessors = properties.multiProcessorCount;
  BURROW_CUDA_CHECK(cudaMemGetInfo(&info.free, &info.memory));
  return info;
}

void* allocate(size_t bytes) {
  static const bool kept = [] {
    keep_freed_memory();
    return true;
  }();
  void* p = nullptr;
  const cudaError_t status = cudaMallocAsync(&p, bytes, nullptr);
  if (status == cudaErrorMemoryAllocation && kept) {
    cudaGetLastError();  // clears the error, which is not sticky
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    fail("[memory] out of memory on cuda: {} requested, {} free of {}", gibibytes(bytes), gibibytes(free),
         gibibytes(total));
  }
  BURROW_CHECK(status == cudaSuccess, "[cuda] cudaMallocAsync of {} bytes: {}", bytes,
               cudaGetErrorString(status));
  return p;
}

void release(void* bytes) { cudaFreeAsync(bytes, nullptr); }  // called by destructors, so it does not throw
void copy_to_device(void* device, const void* host, size_t bytes) {
  BURROW_CUDA_CHECK(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
}
void copy_to_host(void* host, const void* device, size_t bytes) {
  BURROW_CUDA_CHECK(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
}
void copy_on_device(void* to, const void* from, size_t bytes) {
  BURROW_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, nullptr));
}
void fill(void* device, int byte, size_t bytes) {
  BURROW_CUDA_CHECK(cudaMemsetAsync(device, byte, bytes, nullptr));
}
void synchronise() { BURROW_CUDA_CHECK(cudaDeviceSynchronize()); }

}  // namespace burrow::cuda
