#pragma once
// Reductions over the team of threads that share a row: a warp for rows of up to 1024 elements, else a block.
// Every reduction is a tree of fixed shape, so its bits depend only on the length of the row; every thread of
// the team gets the result.
#include "tensor/cuda/launch.cuh"

namespace burrow::cuda {

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  __device__ float operator()(float a, float b) const { return a > b ? a : b; }
};

template <class T, class Combine>
__device__ T warp_reduce(T value, Combine combine) {
  for (int step = 16; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

// Team is 32 (a warp) or kThreads (a block); all its threads must call it.
template <int Team, class T, class Combine>
__device__ T team_reduce(T value, Combine combine) {
  value = warp_reduce(value, combine);
  if constexpr (Team > 32) {
    __shared__ T of_warp[Team / 32];
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();  // all warps have written
    value = of_warp[0];
    for (int w = 1; w < Team / 32; ++w) value = combine(value, of_warp[w]);
    __syncthreads();  // all threads have read of_warp, which the next reduction overwrites
  }
  return value;
}
template <int Team, class T>
__device__ T team_sum(T value) {
  return team_reduce<Team>(value, Sum{});
}

// A thread's row and its rank in the team of that row.
template <int Team>
__device__ int64_t team_row() {
  return int64_t{blockIdx.x} * (kThreads / Team) + threadIdx.x / Team;
}
template <int Team>
__device__ int team_rank() {
  return static_cast<int>(threadIdx.x % Team);
}

// Calls f(std::integral_constant<int, Team>) with the team size for rows of C elements.
template <class F>
void visit_team(int64_t C, F&& f) {
  if (C <= 1024)
    f(std::integral_constant<int, 32>{});
  else
    f(std::integral_constant<int, kThreads>{});
}
// The grid with a team for each of N rows.
template <int Team>
Grid teams(int64_t N) {
  return {ceil_div(N, kThreads / Team)};
}

}  // namespace burrow::cuda
