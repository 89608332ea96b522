#pragma once
// What the host code needs of the CUDA device, without a CUDA header: memory, copies, presence.
// Built without CUDA, `device.cpp` defines the same functions to say so.
#include <cstddef>

namespace burrow::cuda {

bool built();        // compiled with BURROW_CUDA
int device_count();  // 0 without a GPU or a driver

void* allocate(size_t bytes);  // from cudaMallocAsync's pool, which is the caching allocator
void release(void* bytes);
void copy_to_device(void* device, const void* host, size_t bytes);
void copy_to_host(void* host, const void* device, size_t bytes);
void copy_on_device(void* to, const void* from, size_t bytes);
void zero(void* device, size_t bytes);
void synchronise();

}  // namespace burrow::cuda
