#pragma once
// CUDA's keywords and intrinsics for compiling the .cu files as plain C++, so that tests run the kernels on
// the CPU. The threads of a block are fibers that switch only at barriers; blocks run one after the other.
// Tests on it prove the arithmetic, the bounds (allocations end at a guard page) and, because threads can
// also run in descending order, that results do not depend on the order of threads between barriers.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

struct EmulatedDim {
  unsigned x = 1, y = 1, z = 1;
};
// Set by the scheduler whenever it resumes a thread.
extern EmulatedDim threadIdx, blockIdx, blockDim, gridDim;

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): the names are CUDA's own.
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

namespace burrow::cuda::emulate {

// __shared__ is static: one block runs at a time, so a static variable is that block's shared memory.
enum class Order { rising, falling };
// The order in which blocks, and threads between two barriers, run.
void set_order(Order order);

// Runs body() as every thread of every block.
void run(EmulatedDim blocks, unsigned threads, const std::function<void()>& body);

void block_barrier();  // __syncthreads

constexpr size_t kMostBytes = 32;  // of a lane's value in an exchange
// Exchanges values among the lanes of a warp, all of which must call it. A lane passes `bytes` bytes at
// `value`; the result holds those of lane i at i * kMostBytes and is valid until the lane's next call.
const unsigned char* exchange(const void* value, size_t bytes);
unsigned ballot(bool vote);

// The lanes' values, indexed by lane.
template <class T>
struct Lanes {
  const unsigned char* given;
  T operator[](unsigned lane) const {
    T value;
    std::memcpy(&value, given + lane % 32 * kMostBytes, sizeof(T));
    return value;
  }
};
// Exchanges the values of all lanes of the warp.
template <class T>
Lanes<T> of_lanes(const T& value) {
  static_assert(sizeof(T) <= kMostBytes);
  return {exchange(&value, sizeof(T))};
}

// An asynchronous copy to shared memory: the first `bytes` of `whole` bytes, the rest 0. It is made only in
// finish_copies, so that a kernel that does not wait reads the old contents.
void copy_later(void* to, const void* from, size_t bytes, size_t whole);
void finish_copies();

}  // namespace burrow::cuda::emulate

inline void __syncthreads() { burrow::cuda::emulate::block_barrier(); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return burrow::cuda::emulate::of_lanes(value)[(threadIdx.x % 32) ^ static_cast<unsigned>(mask)];
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return burrow::cuda::emulate::of_lanes(value)[static_cast<unsigned>(lane)];
}
inline unsigned __ballot_sync(unsigned, int vote) { return burrow::cuda::emulate::ballot(vote != 0); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
