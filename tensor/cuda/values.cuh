#pragma once
// Elements of either float type of the device. Activations are a template parameter (visit_device: f32 or
// bf16, computed in f32). Parameters, their gradients and accumulators may be f32 beside bf16 activations;
// their dtype is a flag that all threads share, which costs nothing next to the access itself.
#include "tensor/checks.h"
#include "tensor/cuda/launch.cuh"
#include "tensor/kernels.h"

namespace burrow::cuda {

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return static_cast<float>(x); }

// Tensor::data is for the host; the seam has already established that the tensors are on the device.
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
      fail("[{}] dtype {} is not one that CUDA kernels compute in (f32, bf16)", op, name_of(t));
  }
}

// f32 or bf16 elements, to read and write; null where the tensor is undefined.
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

// V elements that a thread reads or writes at once. 16 bytes a thread are what keeps enough of them under way
// to fill the memory's bandwidth.
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
// Calls f with the elements that kernels on rows of C take at once, std::integral_constant<int, V>: a packet,
// or 1 where a tensor's rows do not begin at packets. Undefined tensors do not count.
template <class T, class F, class... Tensors>
void visit_runs(int64_t C, F&& f, const Tensors&... tensors) {
  if (C % kPacket<T> == 0 && ((!tensors.defined() || aligned(tensors)) && ...))
    f(std::integral_constant<int, kPacket<T>>{});
  else
    f(std::integral_constant<int, 1>{});
}

// n f32 or bf16 elements in any shape.
inline Floats floats_of(const char* op, const char* name, const Tensor& t, int64_t n) {
  if (!t.defined()) return {};
  BURROW_CHECK(t.numel() == n && (t.dtype() == DType::f32 || t.dtype() == DType::bf16),
               "[{}] {} is {} {}, expected f32 or bf16 ({})", op, name, t.dtype(), t.shape(), n);
  return {t.bytes(), t.dtype() == DType::bf16};
}

// A temporary of n elements. Freed in the order of the stream, so a launch that uses it may still run.
template <class T>
struct Scratch {
  Tensor tensor;
  explicit Scratch(int64_t n) : tensor(Tensor::empty({n}, DTypeOf<T>::value, Device::cuda, "scratch")) {}
  T* data() const { return device_data<T>(tensor); }
};

}  // namespace burrow::cuda
