#pragma once
// CUDA's words for kernels that are compiled as plain C++ and run on the CPU: the same .cu files, for tests
// where there is no GPU. A block's threads are fibers, which change places only at barriers; blocks run one
// after the other. What this proves is the arithmetic, the bounds (allocations end at a guard page) and,
// since threads also run in falling order, that results do not depend on the order of threads between
// barriers.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

struct EmulatedDim {
  unsigned x = 1, y = 1, z = 1;
};
// Set by the scheduler each time that a thread goes on.
extern EmulatedDim threadIdx, blockIdx, blockDim, gridDim;

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): the names are CUDA's own.
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

namespace burrow::cuda::emulate {

// One thread at a time is alive in the process, so a static variable is a block's shared memory.
enum class Order { rising, falling };
// The order in which blocks, and threads between two barriers, run.
void set_order(Order order);

// Runs body() as every thread of every block.
void run(EmulatedDim blocks, unsigned threads, const std::function<void()>& body);

void block_barrier();  // where __syncthreads stands

constexpr size_t kMostBytes = 32;  // of a lane's value in an exchange
// Every lane gives `bytes` bytes at `value`; the result, to be read until the lane gives again, has those of
// lane i at i * kMostBytes. All lanes of the warp must come here.
const unsigned char* exchange(const void* value, size_t bytes);
unsigned ballot(bool vote);

// The lanes' values by the number of the lane.
template <class T>
struct Lanes {
  const unsigned char* given;
  T operator[](unsigned lane) const {
    T value;
    std::memcpy(&value, given + lane % 32 * kMostBytes, sizeof(T));
    return value;
  }
};
// Each lane gives its value.
template <class T>
Lanes<T> of_lanes(const T& value) {
  static_assert(sizeof(T) <= kMostBytes);
  return {exchange(&value, sizeof(T))};
}

// The thread's copies to shared memory that run beside it: the first `bytes` of `whole`, the rest 0. They are
// made when it waits for them, so that a kernel that does not wait finds what was there before.
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
