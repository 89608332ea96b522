#pragma once
// Access to f32 and bf16 elements; arithmetic is f32. The dtype of activations is a template parameter
// (visit_device). Parameters, their gradients and accumulators may be f32 with bf16 activations; their dtype
// is a run-time flag that is the same for all threads, so that the branch is cheap next to the memory access.
#include "tensor/checks.h"
#include "tensor/cuda/launch.cuh"
#include "tensor/kernels.h"

namespace burrow::cuda {

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return static_cast<float>(x); }

// The device pointer of a tensor; null if undefined. kernels.h has checked that the tensor is on the device.
template <class T>
T* device_data(const Tensor& t) {
  return t.defined() ? reinterpret_cast<T*>(t.bytes()) : nullptr;
}

// Calls f(T{}) with T = float or bf16.
template <class F>
void visit_device(const char* op, DType t, F&& f) {
  switch (t) {
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(bf16{});
    default:
      fail("[{}] dtype {} is not supported on CUDA (f32, bf16 are)", op, name_of(t));
  }
}

// f32 or bf16 elements to read and write; p is null if the tensor is undefined.
struct Floats {
  void* p = nullptr;
  bool half = false;

  __device__ float operator[](int64_t i) const {
    return half ? static_cast<float>(static_cast<const bf16*>(p)[i]) : static_cast<const float*>(p)[i];
  }
  __device__ void set(int64_t i, float value) const {
    if (half)
      static_cast<bf16*>(p)[i] = bf16(value);
    else
      static_cast<float*>(p)[i] = value;
  }
};

// V elements that a thread loads or stores in one instruction. A packet is 16 bytes, which keeps enough bytes
// in flight to saturate the memory bandwidth.
template <class T>
constexpr int kPacket = 16 / sizeof(T);
template <class T, int V>
struct alignas(V * sizeof(T)) Run {
  T v[V];
};
template <int V, class T>
__device__ Run<T, V> load_run(const T* p) {
  return *reinterpret_cast<const Run<T, V>*>(p);
}
template <class T, int V>
__device__ void store_run(T* p, const Run<T, V>& run) {
  *reinterpret_cast<Run<T, V>*>(p) = run;
}
inline bool aligned(const Tensor& t) { return reinterpret_cast<uintptr_t>(t.bytes()) % 16 == 0; }
// Calls f(std::integral_constant<int, V>) with the elements per access for rows of C elements: a packet, or 1
// if the rows of a tensor are not aligned to packets. Undefined tensors are ignored.
template <class T, class F, class... Tensors>
void visit_runs(int64_t C, F&& f, const Tensors&... tensors) {
  if (C % kPacket<T> == 0 && ((!tensors.defined() || aligned(tensors)) && ...))
    f(std::integral_constant<int, kPacket<T>>{});
  else
    f(std::integral_constant<int, 1>{});
}

// A tensor of n f32 or bf16 elements in any shape as Floats; throws for others, null if undefined.
inline Floats floats_of(const char* op, const char* name, const Tensor& t, int64_t n) {
  if (!t.defined()) return {};
  BURROW_CHECK(t.numel() == n && (t.dtype() == DType::f32 || t.dtype() == DType::bf16),
               "[{}] {} is {} {}, expected f32 or bf16 ({})", op, name, t.dtype(), t.shape(), n);
  return {t.bytes(), t.dtype() == DType::bf16};
}

// A temporary of n elements, freed in stream order: after the launches that use it.
template <class T>
struct Scratch {
  Tensor tensor;
  explicit Scratch(int64_t n) : tensor(Tensor::empty({n}, DTypeOf<T>::value, Device::cuda, "scratch")) {}
  T* data() const { return device_data<T>(tensor); }
};

}  // namespace burrow::cuda
