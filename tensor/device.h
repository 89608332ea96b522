#pragma once
// What the host code needs of the CUDA device, without a CUDA header: memory, copies, presence. One of three
// files defines it: tensor/cuda/device.cpp; tensor/cuda/absent.cpp in a build without CUDA; and
// tensor/cuda/emulate/device.cpp, where the CPU stands in for the GPU in tests.
#include <cstddef>
#include <string>

namespace burrow::cuda {

// Whose kernels compute attention: Burrow's, or NVIDIA's for the calls that it can take
// (tensor/cuda/cudnn.h).
enum class AttentionBy { own, cudnn };

// How the device is used; everything is off unless somebody asks.
struct Options {
  bool tf32 = false;     // f32 products on tensor cores: 10 bits of mantissa
  bool planned = false;  // no device is needed: memory is counted alone, kernels and copies do nothing
  AttentionBy attention = AttentionBy::own;
};
Options& options();

// The device that is used, or why there is none.
struct DeviceInfo {
  std::string absent = {};  // the reason; empty where there is a device
  std::string name = {};
  int major = 0, minor = 0, multiprocessors = 0;
  size_t memory = 0, free = 0;  // bytes
  int driver = 0, runtime = 0;  // as CUDA counts: 13000 is 13.0
};
DeviceInfo device_info();

// cuDNN as AttentionBy::cudnn finds it, which loads the library.
struct CudnnInfo {
  std::string absent = {};  // why it cannot be used; empty where it can
  size_t version = 0;       // as cuDNN counts: 91900 is 9.19.0
};
CudnnInfo cudnn_info();

bool built();        // compiled with BURROW_CUDA
int device_count();  // 0 without a GPU or a driver

void* allocate(size_t bytes);  // from cudaMallocAsync's pool, which is the caching allocator
void release(void* bytes);
void copy_to_device(void* device, const void* host, size_t bytes);
void copy_to_host(void* host, const void* device, size_t bytes);  // waits for the device
void copy_on_device(void* to, const void* from, size_t bytes);
void fill(void* device, int byte, size_t bytes);  // each of the bytes with this one
void synchronise();

}  // namespace burrow::cuda
