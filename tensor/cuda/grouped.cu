// LoRA experts on the rows that chose them. Which rows those are is known on the device alone: grids are
// sized for the most that an expert may have, and a block without work leaves. No count goes to the host.
#include "tensor/cuda/team.cuh"
#include "tensor/cuda/tile.cuh"
#include "tensor/cuda/values.cuh"

namespace burrow::cuda {
namespace {

// The groups as plain pointers: expert e owns places offsets[e] <= j < offsets[e+1], row order[j] is theirs.
struct Groups {
  const int32_t *order, *offsets;
  int64_t experts;

  __device__ int64_t begin(int64_t e) const { return offsets[e]; }
  __device__ int64_t end(int64_t e) const { return offsets[e + 1]; }
  __device__ int64_t row(int64_t j) const { return order[j]; }
  __device__ int64_t expert_of(int64_t j) const {
    int64_t e = 0;
    while (e + 1 < experts && j >= offsets[e + 1]) ++e;
    return e;
  }
};

Groups groups_of(const char* op, const ExpertGroups& groups) {
  const int64_t E = groups.offsets.numel() - 1;
  check_vector(op, "order", groups.order, DType::i32, groups.order.numel());
  check_vector(op, "offsets", groups.offsets, DType::i32, E + 1);
  BURROW_CHECK(E >= 1, "[{}] offsets {} of no expert", op, groups.offsets.shape());
  return {device_data<int32_t>(groups.order), device_data<int32_t>(groups.offsets), E};
}

// R of h [M,R] beside the sides of E experts: a [E*R,C] or b [O,E*R], whose length in E*R is `side`.
int64_t rank_of(const char* op, const Tensor& h, const Groups& g, int64_t places, int64_t side) {
  const int64_t R = channels(h);
  BURROW_CHECK(leading(h) == places, "[{}] h {} and {} places of order", op, h.shape(), places);
  BURROW_CHECK(side == g.experts * R, "[{}] sides of {} for {} experts of rank {}", op, side, g.experts, R);
  return R;
}

// The two sides of the experts as one: element (r, c) of expert e's side, r of R and c of C channels, where a
// is [E*R,C] and b, whose side is turned, [O,E*R].
struct Sides {
  Floats p;
  bool turned;
  int64_t R, C, stride;  // of a row of the tensor

  __device__ int64_t at(int64_t e, int64_t r, int64_t c) const {
    return turned ? c * stride + e * R + r : (e * R + r) * stride + c;
  }
};

// The places of a tile of expert e, and the walk over its tiles: a block takes every (grid size)-th tile.
struct Places {
  int64_t first, last;  // of the expert
  __device__ int64_t tiles() const { return (last - first + kTile - 1) / kTile; }
};

// One tile of 32 places by 32 ranks: h[j,r] = sum_c x[row(j), c] side(e, r, c).
template <class T>
__global__ void gather_kernel(T* h, const T* x, Sides s, Groups g) {
  const int64_t e = blockIdx.z, r0 = int64_t{blockIdx.x} * kTile;
  const Places places{g.begin(e), g.end(e)};
  for (int64_t tile = blockIdx.y; tile < places.tiles(); tile += gridDim.y) {
    const int64_t j0 = places.first + tile * kTile;
    TileSum sum;
    tile_product(
        sum, s.C,
        [&](int64_t i, int64_t c) {
          return j0 + i < places.last && c < s.C ? to_float(x[g.row(j0 + i) * s.C + c]) : 0;
        },
        [&](int64_t c, int64_t i) { return r0 + i < s.R && c < s.C ? s.p[s.at(e, r0 + i, c)] : 0; });
    sum.each([&](int64_t i, int64_t k, float value) {
      if (j0 + i < places.last && r0 + k < s.R) h[(j0 + i) * s.R + r0 + k] = static_cast<T>(value);
    });
  }
}

// One tile of 32 places by 32 channels of one expert: y[row(j), c] += sum_r h[j,r] side(e, r, c). The rows of
// one expert differ, so that no two blocks meet.
template <class T>
__global__ void scatter_kernel(Floats y, const T* h, Sides s, Groups g, int64_t e) {
  const int64_t c0 = int64_t{blockIdx.x} * kTile;
  const Places places{g.begin(e), g.end(e)};
  for (int64_t tile = blockIdx.y; tile < places.tiles(); tile += gridDim.y) {
    const int64_t j0 = places.first + tile * kTile;
    TileSum sum;
    tile_product(
        sum, s.R,
        [&](int64_t i, int64_t r) {
          return j0 + i < places.last && r < s.R ? to_float(h[(j0 + i) * s.R + r]) : 0;
        },
        [&](int64_t r, int64_t i) { return c0 + i < s.C && r < s.R ? s.p[s.at(e, r, c0 + i)] : 0; });
    sum.each([&](int64_t i, int64_t k, float value) {
      if (j0 + i >= places.last || c0 + k >= s.C) return;
      const int64_t to = g.row(j0 + i) * s.C + c0 + k;
      y.set(to, y[to] + value);
    });
  }
}

// One tile of 32 places by 32 channels: z[j, c] = y[row(j), c] + sum_r h[j,r] side(e, r, c).
template <class T>
__global__ void spread_kernel(T* z, const T* y, const T* h, Sides s, Groups g) {
  const int64_t e = blockIdx.z, c0 = int64_t{blockIdx.x} * kTile;
  const Places places{g.begin(e), g.end(e)};
  for (int64_t tile = blockIdx.y; tile < places.tiles(); tile += gridDim.y) {
    const int64_t j0 = places.first + tile * kTile;
    TileSum sum;
    tile_product(
        sum, s.R,
        [&](int64_t i, int64_t r) {
          return j0 + i < places.last && r < s.R ? to_float(h[(j0 + i) * s.R + r]) : 0;
        },
        [&](int64_t r, int64_t i) { return c0 + i < s.C && r < s.R ? s.p[s.at(e, r, c0 + i)] : 0; });
    sum.each([&](int64_t i, int64_t k, float value) {
      if (j0 + i >= places.last || c0 + k >= s.C) return;
      z[(j0 + i) * s.C + c0 + k] = static_cast<T>(to_float(y[g.row(j0 + i) * s.C + c0 + k]) + value);
    });
  }
}

// One tile of 32 ranks by 32 channels of an expert's side: side(e, r, c) += sum_j h[j,r] x[row(j), c].
template <class T>
__global__ void sum_outer_kernel(Sides s, const T* h, const T* x, Groups g) {
  const int64_t e = blockIdx.z, r0 = int64_t{blockIdx.x} * kTile, c0 = int64_t{blockIdx.y} * kTile;
  const Places places{g.begin(e), g.end(e)};
  if (places.first == places.last) return;
  TileSum sum;
  tile_product(
      sum, places.last - places.first,
      [&](int64_t i, int64_t j) {
        return r0 + i < s.R && places.first + j < places.last ? to_float(h[(places.first + j) * s.R + r0 + i])
                                                              : 0;
      },
      [&](int64_t j, int64_t i) {
        return c0 + i < s.C && places.first + j < places.last
                   ? to_float(x[g.row(places.first + j) * s.C + c0 + i])
                   : 0;
      });
  sum.each([&](int64_t i, int64_t k, float value) {
    if (r0 + i >= s.R || c0 + k >= s.C) return;
    const int64_t to = s.at(e, r0 + i, c0 + k);
    s.p.set(to, s.p[to] + value);
  });
}

// Blocks that walk over one expert's tiles of places: enough for all places to be its own, in turns.
int64_t walkers(int64_t M, int64_t E) { return std::max<int64_t>(1, ceil_div(ceil_div(2 * M, E), kTile)); }

// A tensor of sides: a [E*R,C], or b [C,E*R].
Sides sides_of(const char* op, const Tensor& t, const Groups& g, int64_t R, int64_t C, bool turned) {
  check_matrix(op, turned ? "b" : "a", t, t.dtype(), turned ? C : g.experts * R, turned ? g.experts * R : C);
  return {floats_of(op, turned ? "b" : "a", t, t.numel()), turned, R, C, channels(t)};
}

void gather_products(const char* op, Tensor& h, const Tensor& x, const Tensor& sides,
                     const ExpertGroups& groups, bool turned) {
  const Groups g = groups_of(op, groups);
  const int64_t C = channels(x), M = groups.order.numel();
  const int64_t R = rank_of(op, h, g, M, turned ? channels(sides) : leading(sides));
  const Sides s = sides_of(op, sides, g, R, C, turned);
  check_matrix(op, "h", h, x.dtype(), M, R);
  visit_device(op, x.dtype(), [&]<class T>(T) {
    launch(op, gather_kernel<T>, {ceil_div(R, kTile), walkers(M, g.experts), g.experts, kTileThreads},
           device_data<T>(h), device_data<T>(x), s, g);
  });
}

void scatter_products(const char* op, Tensor& y, const Tensor& h, const Tensor& sides,
                      const ExpertGroups& groups, bool turned) {
  const Groups g = groups_of(op, groups);
  const int64_t C = channels(y), M = groups.order.numel();
  const int64_t R = rank_of(op, h, g, M, turned ? channels(sides) : leading(sides));
  const Sides s = sides_of(op, sides, g, R, C, turned);
  const Floats out = floats_of(op, turned ? "y" : "x", y, y.numel());
  visit_device(op, h.dtype(), [&]<class T>(T) {
    // One launch an expert: a row's experts add to it in their order.
    for (int64_t e = 0; e < g.experts && M > 0; ++e) {
      launch(op, scatter_kernel<T>, {ceil_div(C, kTile), walkers(M, g.experts), 1, kTileThreads}, out,
             device_data<T>(h), s, g, e);
    }
  });
}

void sum_outer_products(const char* op, Tensor& sides, const Tensor& h, const Tensor& x,
                        const ExpertGroups& groups, bool turned) {
  const Groups g = groups_of(op, groups);
  const int64_t C = channels(x), M = groups.order.numel();
  const int64_t R = rank_of(op, h, g, M, turned ? channels(sides) : leading(sides));
  const Sides s = sides_of(op, sides, g, R, C, turned);
  check_matrix(op, turned ? "y" : "x", x, h.dtype(), leading(x), C);
  visit_device(op, h.dtype(), [&]<class T>(T) {
    launch(op, sum_outer_kernel<T>, {ceil_div(R, kTile), ceil_div(C, kTile), g.experts, kTileThreads}, s,
           device_data<T>(h), device_data<T>(x), g);
  });
}

// The number of experts' choices before this thread's, within the block; all of them in `total`. A warp
// counts its votes in one word, and eight warps' counts are added in order.
__device__ int64_t votes_before(bool vote, int64_t& total) {
  __shared__ int of_warp[kThreads / 32];
  const unsigned votes = __ballot_sync(kAllLanes, vote), lane = threadIdx.x % 32;
  if (lane == 0) of_warp[threadIdx.x / 32] = __popc(votes);
  __syncthreads();  // all counts are there
  int64_t before = __popc(votes & ((1u << lane) - 1));
  total = 0;
  for (unsigned w = 0; w < kThreads / 32; ++w) {
    if (w < threadIdx.x / 32) before += of_warp[w];
    total += of_warp[w];
  }
  __syncthreads();  // all have read: the next count may come
  return before;
}

template <class T>
__global__ void count_choices_kernel(int32_t* counts, const T* chosen, int64_t N, int64_t E) {
  const int64_t e = blockIdx.x;
  int count = 0;
  for (int64_t n = threadIdx.x; n < N; n += kThreads) count += to_float(chosen[n * E + e]) != 0;
  count = team_sum<kThreads>(count);
  if (threadIdx.x == 0) counts[e] = count;
}

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
    if (mine && place < M) order[place] = static_cast<int32_t>(n);  // never beyond what the caller gave
    at += total;
  }
}

template <class T>
__global__ void grouped_scale_kernel(T* y, const T* h, Floats weights, Groups g, float alpha, int64_t n,
                                     int64_t R) {
  for (int64_t i = first_element(); i < n; i += element_stride()) {
    const int64_t j = i / R;
    const float factor = alpha * weights[g.row(j) * g.experts + g.expert_of(j)];
    y[i] = static_cast<T>(factor * to_float(h[i]));
  }
}

// A warp owns a place.
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

}  // namespace

// order = the rows n of all (n, e) with chosen[n,e] != 0, by e, then by n; offsets[e] = the first place of e
// in: chosen [N,E]   out: order i32 [N*K], offsets i32 [E+1], written; as many are chosen as order has places
// A block owns an expert and counts its rows; then it takes them 256 at a time, a thread one, in the order of
// n.
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

// h[j] = x[order[j]] a_e^T, e the expert of place j
// in: x [N,C], a [E*R,C] f32 or bf16   out: h [M,R], written
// A block owns 32 places of one expert by 32 ranks, a thread 2 by 4 of them; sums in f32.
void gather_matmul_nt(Tensor& h, const Tensor& x, const Tensor& a, const ExpertGroups& groups) {
  gather_products("gather_matmul_nt", h, x, a, groups, false);
}

// h[j] = y[order[j]] b_e, e the expert of place j
// in: y [N,O], b [O,E*R] f32 or bf16   out: h [M,R], written
// A block owns 32 places of one expert by 32 ranks, a thread 2 by 4 of them; sums in f32.
void gather_matmul_nn(Tensor& h, const Tensor& y, const Tensor& b, const ExpertGroups& groups) {
  gather_products("gather_matmul_nn", h, y, b, groups, true);
}

// y[order[j]] += h[j] b_e^T, e the expert of place j, in the order of the experts
// in: h [M,R], b [O,E*R] f32 or bf16   out: y [N,O] f32 or bf16, added to
// A block owns 32 places of one expert by 32 channels, a thread 2 by 4 of them, one launch an expert; sums in
// f32.
void scatter_matmul_nt(Tensor& y, const Tensor& h, const Tensor& b, const ExpertGroups& groups) {
  scatter_products("scatter_matmul_nt", y, h, b, groups, true);
}

// z[j] = y[order[j]] + h[j] b_e^T, e the expert of place j
// in: y [N,O], h [M,R], b [O,E*R] f32 or bf16   out: z [M,O], written
// A block owns 32 places of one expert by 32 channels, a thread 2 by 4 of them; sums in f32.
void spread_matmul_nt(Tensor& z, const Tensor& y, const Tensor& h, const Tensor& b,
                      const ExpertGroups& groups) {
  const char* op = "spread_matmul_nt";
  const Groups g = groups_of(op, groups);
  const int64_t C = channels(y), M = groups.order.numel(), R = rank_of(op, h, g, M, channels(b));
  const Sides s = sides_of(op, b, g, R, C, true);
  check_matrix(op, "y", y, h.dtype(), leading(y), C);
  check_matrix(op, "z", z, h.dtype(), M, C);
  visit_device(op, h.dtype(), [&]<class T>(T) {
    launch(op, spread_kernel<T>, {ceil_div(C, kTile), walkers(M, g.experts), g.experts, kTileThreads},
           device_data<T>(z), device_data<T>(y), device_data<T>(h), s, g);
  });
}

// x[order[j]] += h[j] a_e, e the expert of place j, in the order of the experts
// in: h [M,R], a [E*R,C] f32 or bf16   out: x [N,C] f32 or bf16, added to
// A block owns 32 places of one expert by 32 channels, a thread 2 by 4 of them, one launch an expert; sums in
// f32.
void scatter_matmul_nn(Tensor& x, const Tensor& h, const Tensor& a, const ExpertGroups& groups) {
  scatter_products("scatter_matmul_nn", x, h, a, groups, false);
}

// a_e += sum over e's places j of h[j]^T x[order[j]]: the gradient of A
// in: h [M,R], x [N,C]   out: a [E*R,C] f32 or bf16, added to
// A block owns 32 ranks by 32 channels of one expert and takes its places in ascending order; sums in f32.
void gather_matmul_tn_a(Tensor& a, const Tensor& h, const Tensor& x, const ExpertGroups& groups) {
  sum_outer_products("gather_matmul_tn_a", a, h, x, groups, false);
}

// b_e += sum over e's places j of y[order[j]]^T h[j]: the gradient of B
// in: y [N,O], h [M,R]   out: b [O,E*R] f32 or bf16, added to
// A block owns 32 ranks by 32 channels of one expert and takes its places in ascending order; sums in f32.
void gather_matmul_tn_b(Tensor& b, const Tensor& y, const Tensor& h, const ExpertGroups& groups) {
  sum_outer_products("gather_matmul_tn_b", b, h, y, groups, true);
}

// y[j] = alpha weights[order[j], e] h[j], e the expert of place j
// in: h [M,R], weights [N,E] f32 or bf16   out: y [M,R], written; y may be h
// A thread owns every (grid size)-th element; computed in f32.
void grouped_scale(Tensor& y, const Tensor& h, const Tensor& weights, const ExpertGroups& groups,
                   double alpha) {
  const char* op = "grouped_scale";
  const Groups g = groups_of(op, groups);
  const int64_t R = rank_of(op, h, g, groups.order.numel(), channels(weights) * channels(h));
  check_same(op, "y", y, "h", h);
  const Floats w = floats_of(op, "weights", weights, weights.numel());
  visit_device(op, h.dtype(), [&]<class T>(T) {
    launch(op, grouped_scale_kernel<T>, elements(h.numel()), device_data<T>(y), device_data<T>(h), w, g,
           static_cast<float>(alpha), h.numel(), R);
  });
}

// dh[j] = alpha weights[order[j], e] dy[j]
// dweights[order[j], e] = alpha sum_r dy[j, r] h[j, r], 0 where no place has (n, e)
// in: dy h [M,R], weights [N,E] f32 or bf16; h may be undefined where dweights is
// out: dh [M,R], dweights [N,E] f32 or bf16, written; each or undefined; dh may be dy
// A warp owns a place; sums in f32.
void grouped_scale_backward(Tensor& dh, Tensor& dweights, const Tensor& dy, const Tensor& h,
                            const Tensor& weights, const ExpertGroups& groups, double alpha) {
  const char* op = "grouped_scale_backward";
  const Groups g = groups_of(op, groups);
  const int64_t M = leading(dy),
                R = rank_of(op, dy, g, groups.order.numel(), channels(weights) * channels(dy));
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

}  // namespace burrow::cuda
