#pragma once
// Included by every .cu file: grid arithmetic and the checked launch, for blocks of 256 threads unless a
// kernel says otherwise. Here is also decided whether nvcc compiles the file or, for tests on the CPU, the
// C++ compiler with emulate/emulate.h.
#ifdef BURROW_CUDA_EMULATED
#include "tensor/cuda/emulate/emulate.h"
#else
#include <cuda_runtime.h>
#endif

#include <algorithm>
#include <cstdint>

#include "tensor/check.h"

namespace burrow::cuda {

constexpr int kThreads = 256;  // of a block, unless a kernel says otherwise
constexpr unsigned kAllLanes = 0xffffffffu;

struct Grid {
  int64_t x = 1, y = 1, z = 1;
  unsigned threads = kThreads;
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One thread per element, up to 65535 blocks, which fill any device; kernels stride by the grid, for any n.
inline Grid elements(int64_t n) { return {std::min<int64_t>(ceil_div(n, kThreads), 65535)}; }

// Begin and stride of a kernel's loop over `elements`.
__device__ inline int64_t first_element() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ inline int64_t element_stride() { return int64_t{gridDim.x} * blockDim.x; }

template <class... P, class... A>
void launch(const char* op, void (*kernel)(P...), Grid grid, A... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;  // empty tensors are legal
  BURROW_CHECK(grid.x < (int64_t{1} << 31) && grid.y < 65536 && grid.z < 65536, "[{}] a grid of {} x {} x {}",
               op, grid.x, grid.y, grid.z);
#ifdef BURROW_CUDA_EMULATED
  emulate::run({static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z)},
               grid.threads, [&] { kernel(static_cast<P>(args)...); });
#else
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                    static_cast<unsigned>(grid.z));
  kernel<<<blocks, grid.threads>>>(static_cast<P>(args)...);
  const cudaError_t status = cudaGetLastError();
  BURROW_CHECK(status == cudaSuccess, "[{}] launch of {} x {} x {} blocks of {} threads: {}", op, grid.x,
               grid.y, grid.z, grid.threads, cudaGetErrorString(status));
#endif
}

}  // namespace burrow::cuda
