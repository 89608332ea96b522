// Sorting rows by the experts that they chose, and applying expert weights to the sorted rows. A place j is
// an index into that order; how many places an expert has is known only on the device. A thread owns
// elements, or a warp or block owns a place; only group_by_expert has a block per expert.
#include "tensor/cuda/groups.cuh"
#include "tensor/cuda/team.cuh"

namespace burrow::cuda {
namespace {

// The number of true votes of the block's threads before this one; `total` = the number of all true votes. A
// warp counts its votes with one ballot; the counts of the eight warps are added in order.
__device__ int64_t votes_before(bool vote, int64_t& total) {
  __shared__ int of_warp[kThreads / 32];
  const unsigned votes = __ballot_sync(kAllLanes, vote), lane = threadIdx.x % 32;
  if (lane == 0) of_warp[threadIdx.x / 32] = __popc(votes);
  __syncthreads();  // all counts are stored
  int64_t before = __popc(votes & ((1u << lane) - 1));
  total = 0;
  for (unsigned w = 0; w < kThreads / 32; ++w) {
    if (w < threadIdx.x / 32) before += of_warp[w];
    total += of_warp[w];
  }
  __syncthreads();  // all threads have read the counts, which the next call overwrites
  return before;
}

// counts[e] = the number of rows n with chosen[n,e] != 0
// in: chosen [N,E]   out: counts i32 [E], written
// A block owns an expert.
template <class T>
__global__ void count_choices_kernel(int32_t* counts, const T* chosen, int64_t N, int64_t E) {
  const int64_t e = blockIdx.x;
  int count = 0;
  for (int64_t n = threadIdx.x; n < N; n += kThreads) count += to_float(chosen[n * E + e]) != 0;
  count = team_sum<kThreads>(count);
  if (threadIdx.x == 0) counts[e] = count;
}

// order = the rows n of all (n, e) with chosen[n,e] != 0, by e, then by n; offsets[e] = the first place of e
// in: counts i32 [E], chosen [N,E]   out: order i32 [M], offsets i32 [E+1], written; M is the sum of counts
// A block owns an expert and processes 256 rows at a time, one per thread, in the order of n.
template <class T>
__global__ void place_choices_kernel(int32_t* order, int32_t* offsets, const int32_t* counts, const T* chosen,
                                     int64_t N, int64_t E, int64_t M) {
  const int64_t e = blockIdx.x;
  int64_t at = 0;
  for (int64_t before = 0; before < e; ++before) at += counts[before];
  if (threadIdx.x == 0) {
    offsets[e] = static_cast<int32_t>(at);
    if (e + 1 == E) offsets[E] = static_cast<int32_t>(at + counts[e]);
  }
  for (int64_t n0 = 0; n0 < N; n0 += kThreads) {
    const int64_t n = n0 + threadIdx.x;
    const bool mine = n < N && to_float(chosen[n * E + e]) != 0;
    int64_t total;
    const int64_t place = at + votes_before(mine, total);
    if (mine && place < M) order[place] = static_cast<int32_t>(n);  // a wrong M must not write out of bounds
    at += total;
  }
}

// y[j] = alpha weights[order[j], e] h[j], e the expert of place j
// in: h [M,R], weights [N,E] f32 or bf16   out: y [M,R], written; y may be h
// A thread owns every (grid size)-th element; computed in f32.
template <class T>
__global__ void grouped_scale_kernel(T* y, const T* h, Floats weights, Groups g, float alpha, int64_t n,
                                     int64_t R) {
  for (int64_t i = first_element(); i < n; i += element_stride()) {
    const int64_t j = i / R;
    const float factor = alpha * weights[g.row(j) * g.experts + g.expert_of(j)];
    y[i] = static_cast<T>(factor * to_float(h[i]));
  }
}

// dh[j] = alpha weights[order[j], e] dy[j]
// dweights[order[j], e] = alpha sum_r dy[j, r] h[j, r]
// in: dy h [M,R], weights [N,E] f32 or bf16; h may be null where dweights is
// out: dh [M,R], dweights [N,E] f32 or bf16 where (n, e) has a place, written; each may be null; dh may be dy
// A warp owns a place; sums in f32.
template <class T>
__global__ void grouped_scale_backward_kernel(T* dh, Floats dweights, const T* dy, const T* h, Floats weights,
                                              Groups g, float alpha, int64_t M, int64_t R) {
  const int64_t j = team_row<32>();
  if (j >= M) return;
  const int64_t at = g.row(j) * g.experts + g.expert_of(j);
  const float w = weights[at];
  float sum = 0;
  for (int64_t r = team_rank<32>(); r < R; r += 32) {
    const float d = to_float(dy[j * R + r]);
    if (dweights.p) sum += d * to_float(h[j * R + r]);
    if (dh) dh[j * R + r] = static_cast<T>(alpha * w * d);
  }
  if (!dweights.p) return;
  sum = team_sum<32>(sum);
  if (team_rank<32>() == 0) dweights.set(at, alpha * sum);
}

// y[j] = weights[order[j], e] silu(gate[j]) up[j], e the expert of place j
// in: gate up [M,F], weights [N,E] f32 or bf16   out: y [M,F], written; y may be either
// A thread owns every (grid size)-th element; computed in f32.
// Source: Shazeer, GLU Variants Improve Transformer, 2020; the weights: MixLoRA, arXiv 2404.15159, section 3.
template <class T>
__global__ void grouped_swiglu_kernel(T* y, const T* gate, const T* up, Floats weights, Groups g, int64_t n,
                                      int64_t F) {
  for (int64_t i = first_element(); i < n; i += element_stride()) {
    const int64_t j = i / F;
    const float factor = weights[g.row(j) * g.experts + g.expert_of(j)];
    y[i] = static_cast<T>(factor * (scalar::silu::f(to_float(gate[i])) * to_float(up[i])));
  }
}

// With w = weights[order[j], e]:  dgate[j] = w dy[j] up[j] silu'(gate[j]),  dup[j] = w dy[j] silu(gate[j]),
// dweights[order[j], e] = sum_f dy[j,f] silu(gate[j,f]) up[j,f]
// in: dy gate up [M,F], weights [N,E] f32 or bf16
// out: dgate dup [M,F], dweights [N,E] f32 or bf16 where (n, e) has a place, written; each may be null
// A block owns a place; sums in f32.
template <class T>
__global__ void grouped_swiglu_backward_kernel(T* dgate, T* dup, Floats dweights, const T* dy, const T* gate,
                                               const T* up, Floats weights, Groups g, int64_t F) {
  const int64_t j = blockIdx.x, at = g.row(j) * g.experts + g.expert_of(j);
  const float w = weights[at];
  float sum = 0;
  for (int64_t i = j * F + threadIdx.x; i < (j + 1) * F; i += kThreads) {
    const float a = to_float(gate[i]), s = 1 / (1 + vector_exp(-a)), silu = a * s, d = to_float(dy[i]),
                b = to_float(up[i]);
    sum += d * silu * b;
    if (dgate) dgate[i] = static_cast<T>(w * d * b * (s + silu * (1 - s)));
    if (dup) dup[i] = static_cast<T>(w * d * silu);
  }
  if (!dweights.p) return;
  sum = team_sum<kThreads>(sum);
  if (threadIdx.x == 0) dweights.set(at, sum);
}

Groups groups_of_swiglu(const char* op, const Tensor& gate, const Tensor& up, const Tensor& weights,
                        const ExpertGroups& groups) {
  const Groups g = groups_of(op, groups);
  rank_of(op, gate, g.experts, groups.order.numel(), channels(weights) * channels(gate));
  check_same(op, "up", up, "gate", gate);
  return g;
}

}  // namespace

void group_by_expert(Tensor& order, Tensor& offsets, const Tensor& chosen) {
  const char* op = "group_by_expert";
  const int64_t N = leading(chosen), E = channels(chosen), M = order.numel();
  check_vector(op, "order", order, DType::i32, M);
  check_vector(op, "offsets", offsets, DType::i32, E + 1);
  const Scratch<int32_t> counts(E);
  visit_device(op, chosen.dtype(), [&]<class T>(T) {
    launch(op, count_choices_kernel<T>, {E}, counts.data(), device_data<T>(chosen), N, E);
    launch(op, place_choices_kernel<T>, {E}, device_data<int32_t>(order), device_data<int32_t>(offsets),
           counts.data(), device_data<T>(chosen), N, E, M);
  });
}

void grouped_scale(Tensor& y, const Tensor& h, const Tensor& weights, const ExpertGroups& groups,
                   double alpha) {
  const char* op = "grouped_scale";
  const Groups g = groups_of(op, groups);
  const int64_t R = rank_of(op, h, g.experts, groups.order.numel(), channels(weights) * channels(h));
  check_same(op, "y", y, "h", h);
  const Floats w = floats_of(op, "weights", weights, weights.numel());
  visit_device(op, h.dtype(), [&]<class T>(T) {
    launch(op, grouped_scale_kernel<T>, elements(h.numel()), device_data<T>(y), device_data<T>(h), w, g,
           static_cast<float>(alpha), h.numel(), R);
  });
}

// dweights is set to 0 first, for the (n, e) without a place.
void grouped_scale_backward(Tensor& dh, Tensor& dweights, const Tensor& dy, const Tensor& h,
                            const Tensor& weights, const ExpertGroups& groups, double alpha) {
  const char* op = "grouped_scale_backward";
  const Groups g = groups_of(op, groups);
  const int64_t M = leading(dy),
                R = rank_of(op, dy, g.experts, groups.order.numel(), channels(weights) * channels(dy));
  if (dh.defined()) check_same(op, "dh", dh, "dy", dy);
  if (dweights.defined()) {
    check_same(op, "h", h, "dy", dy);
    dweights.zero();
  }
  const Floats w = floats_of(op, "weights", weights, weights.numel()),
               out_w = floats_of(op, "dweights", dweights, weights.numel());
  visit_device(op, dy.dtype(), [&]<class T>(T) {
    launch(op, grouped_scale_backward_kernel<T>, teams<32>(M), device_data<T>(dh), out_w, device_data<T>(dy),
           dweights.defined() ? device_data<T>(h) : nullptr, w, g, static_cast<float>(alpha), M, R);
  });
}

void grouped_swiglu(Tensor& y, const Tensor& gate, const Tensor& up, const Tensor& weights,
                    const ExpertGroups& groups) {
  const char* op = "grouped_swiglu";
  const Groups g = groups_of_swiglu(op, gate, up, weights, groups);
  check_same(op, "y", y, "gate", gate);
  const Floats w = floats_of(op, "weights", weights, weights.numel());
  visit_device(op, gate.dtype(), [&]<class T>(T) {
    launch(op, grouped_swiglu_kernel<T>, elements(gate.numel()), device_data<T>(y), device_data<T>(gate),
           device_data<T>(up), w, g, gate.numel(), channels(gate));
  });
}

// dweights is set to 0 first, for the (n, e) without a place.
void grouped_swiglu_backward(Tensor& dgate, Tensor& dup, Tensor& dweights, const Tensor& dy,
                             const Tensor& gate, const Tensor& up, const Tensor& weights,
                             const ExpertGroups& groups) {
  const char* op = "grouped_swiglu_backward";
  const Groups g = groups_of_swiglu(op, gate, up, weights, groups);
  check_same(op, "dy", dy, "gate", gate);
  if (dgate.defined()) check_same(op, "dgate", dgate, "gate", gate);
  if (dup.defined()) check_same(op, "dup", dup, "gate", gate);
  if (dweights.defined()) dweights.zero();
  const Floats w = floats_of(op, "weights", weights, weights.numel()),
               out_w = floats_of(op, "dweights", dweights, weights.numel());
  visit_device(op, gate.dtype(), [&]<class T>(T) {
    launch(op, grouped_swiglu_backward_kernel<T>, {leading(gate)}, device_data<T>(dgate), device_data<T>(dup),
           out_w, device_data<T>(dy), device_data<T>(gate), device_data<T>(up), w, g, channels(gate));
  });
}

}  // namespace burrow::cuda
