#pragma once
// The CUDA device for host code, without CUDA headers: presence, memory, copies. Defined by
// tensor/cuda/device.cpp, by tensor/cuda/absent.cpp in a build without CUDA, or by
// tensor/cuda/emulate/device.cpp, where the CPU emulates the GPU in tests.
#include <cstddef>
#include <string>

namespace burrow::cuda {

// Which kernels compute attention: our own, or cuDNN's for the calls that it supports (tensor/cuda/cudnn.h).
enum class AttentionBy { own, cudnn };

// How the device is used. The defaults are exact f32 and our own kernels.
struct Options {
  bool tf32 = false;     // f32 products on tensor cores, with 10 bits of mantissa
  bool planned = false;  // needs no device: memory is only counted, kernels and copies do nothing
  AttentionBy attention = AttentionBy::own;
};
Options& options();

// The device in use, or why there is none.
struct DeviceInfo {
  std::string absent = {};  // the reason; empty if there is a device
  std::string name = {};
  int major = 0, minor = 0, multiprocessors = 0;
  size_t memory = 0, free = 0;  // bytes
  int driver = 0, runtime = 0;  // in CUDA's encoding: 13000 is 13.0
};
DeviceInfo device_info();

// Whether cuDNN can be used. cudnn_info() loads the library.
struct CudnnInfo {
  std::string absent = {};  // why it cannot be used; empty if it can
  size_t version = 0;       // in cuDNN's encoding: 91900 is 9.19.0
};
CudnnInfo cudnn_info();

bool built();        // compiled with BURROW_CUDA
int device_count();  // 0 without a GPU or a driver

void* allocate(size_t bytes);  // from cudaMallocAsync's pool, which is the caching allocator
void release(void* bytes);
void copy_to_device(void* device, const void* host, size_t bytes);
void copy_to_host(void* host, const void* device, size_t bytes);  // waits for the device
void copy_on_device(void* to, const void* from, size_t bytes);
void fill(void* device, int byte, size_t bytes);  // sets every byte
void synchronise();

}  // namespace burrow::cuda
