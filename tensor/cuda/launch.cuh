#pragma once
// What every .cu file shares: grid arithmetic and the checked launch.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "tensor/check.h"

namespace burrow::cuda {

struct Grid {
  unsigned blocks, threads;
};

// One thread per element, up to a grid that fills the device many times over; kernels stride by the grid,
// so any n is covered.
inline Grid elements(int64_t n) {
  return {static_cast<unsigned>(std::min<int64_t>((n + 255) / 256, 65535)), 256};
}

template <class... P, class... A>
void launch(const char* op, void (*kernel)(P...), Grid grid, A... args) {
  if (grid.blocks == 0) return;  // empty tensors are legal
  kernel<<<grid.blocks, grid.threads>>>(static_cast<P>(args)...);
  const cudaError_t status = cudaGetLastError();
  BURROW_CHECK(status == cudaSuccess, "[{}] launch of {} blocks of {} threads: {}", op, grid.blocks,
               grid.threads, cudaGetErrorString(status));
}

}  // namespace burrow::cuda
