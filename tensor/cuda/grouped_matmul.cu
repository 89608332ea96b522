// Products of each LoRA expert's matrices with the rows that chose it: f32 here on the CUDA cores, bf16 on
// the tensor cores (grouped_mma.cuh). A block owns a tile of results of one expert. How many rows an expert
// has is known only on the device: grids are sized for twice the average, blocks stride over the tiles, and
// no count goes to the host.
#include <optional>

#include "tensor/cuda/gemm.h"
#include "tensor/cuda/grouped_mma.cuh"
#include "tensor/cuda/tile.cuh"

namespace burrow::cuda {
namespace {

// h[j,r] = sum_c x[row(j), c] side(e, r, c),  row(j) = order[j],  e the expert of place j; Sides: groups.cuh
// in: x [N,C], sides of the experts f32 or bf16   out: h [M,R], written
// A block owns 32 places of one expert by 32 ranks; sums in f32.
__global__ void gather_kernel(float* h, const float* x, Sides s, Groups g) {
  const int64_t e = blockIdx.z, r0 = int64_t{blockIdx.x} * kTile;
  const Places places = places_of(g, e, kTile);
  for (int64_t tile = blockIdx.y; tile < places.tiles; tile += gridDim.y) {
    const int64_t j0 = places.first + tile * kTile;
    TileSum sum;
    tile_product(
        sum, s.C,
        [&](int64_t i, int64_t c) {
          return j0 + i < places.last && c < s.C ? x[g.row(j0 + i) * s.C + c] : 0;
        },
        [&](int64_t c, int64_t i) { return r0 + i < s.R && c < s.C ? s.p[s.at(e, r0 + i, c)] : 0; });
    sum.each([&](int64_t i, int64_t k, float value) {
      if (j0 + i < places.last && r0 + k < s.R) h[(j0 + i) * s.R + r0 + k] = value;
    });
  }
}

// Calls store(j, c, sum_r h[j,r] side(e, r, c)) for a tile of 32 places by 32 channels of expert e.
template <class Store>
__device__ void widen(const float* h, const Sides& s, const Groups& g, int64_t e, Store store) {
  const int64_t c0 = int64_t{blockIdx.x} * kTile;
  const Places places = places_of(g, e, kTile);
  for (int64_t tile = blockIdx.y; tile < places.tiles; tile += gridDim.y) {
    const int64_t j0 = places.first + tile * kTile;
    TileSum sum;
    tile_product(
        sum, s.R,
        [&](int64_t i, int64_t r) { return j0 + i < places.last && r < s.R ? h[(j0 + i) * s.R + r] : 0; },
        [&](int64_t r, int64_t i) { return c0 + i < s.C && r < s.R ? s.p[s.at(e, r, c0 + i)] : 0; });
    sum.each([&](int64_t i, int64_t k, float value) {
      if (j0 + i < places.last && c0 + k < s.C) store(j0 + i, c0 + k, value);
    });
  }
}

// y[row(j), c] += sum_r h[j,r] side(e, r, c) for one expert e, whose rows are distinct: no add conflicts
// in: h [M,R], sides of the experts f32 or bf16   out: y [N,C] f32 or bf16, added to
// A block owns 32 places of the expert by 32 channels; sums in f32.
__global__ void scatter_kernel(Floats y, const float* h, Sides s, Groups g, int64_t e) {
  widen(h, s, g, e, [&](int64_t j, int64_t c, float value) {
    const int64_t to = g.row(j) * s.C + c;
    y.set(to, y[to] + value);
  });
}

// z[j,c] = y[row(j), c] + sum_r h[j,r] side(e, r, c)
// in: y [N,C], h [M,R], sides of the experts f32 or bf16   out: z [M,C], written
// A block owns 32 places of one expert by 32 channels; sums in f32.
__global__ void spread_kernel(float* z, const float* y, const float* h, Sides s, Groups g) {
  widen(h, s, g, blockIdx.z,
        [&](int64_t j, int64_t c, float value) { z[j * s.C + c] = y[g.row(j) * s.C + c] + value; });
}

// side(e, r, c) += sum over the places j of e of h[j,r] x[row(j), c]
// in: h [M,R], x [N,C]   out: sides of the experts f32 or bf16, added to
// A block owns 32 ranks by 32 channels of one expert and reads its places in ascending order; sums in f32.
__global__ void sum_outer_kernel(Sides s, const float* h, const float* x, Groups g) {
  const int64_t e = blockIdx.z, r0 = int64_t{blockIdx.x} * kTile, c0 = int64_t{blockIdx.y} * kTile;
  const Places places = places_of(g, e, kTile);
  if (places.first == places.last) return;
  TileSum sum;
  tile_product(
      sum, places.last - places.first,
      [&](int64_t i, int64_t j) {
        return r0 + i < s.R && places.first + j < places.last ? h[(places.first + j) * s.R + r0 + i] : 0;
      },
      [&](int64_t j, int64_t i) {
        return c0 + i < s.C && places.first + j < places.last ? x[g.row(places.first + j) * s.C + c0 + i] : 0;
      });
  sum.each([&](int64_t i, int64_t k, float value) {
    if (r0 + i >= s.R || c0 + k >= s.C) return;
    const int64_t to = s.at(e, r0 + i, c0 + k);
    s.p.set(to, s.p[to] + value);
  });
}

// The number of blocks that stride over one expert's tiles of `size` places: enough for twice the average.
int64_t walkers(int64_t M, int64_t E, int64_t size) {
  return std::max<int64_t>(1, ceil_div(ceil_div(2 * M, E), size));
}

// The sides in a tensor: a [E*R,C], or b [C,E*R] if `turned`.
Sides sides_of(const char* op, const Tensor& t, const Groups& g, int64_t R, int64_t C, bool turned) {
  check_matrix(op, turned ? "b" : "a", t, t.dtype(), turned ? C : g.experts * R, turned ? g.experts * R : C);
  return {floats_of(op, turned ? "b" : "a", t, t.numel()), turned, R, C, channels(t)};
}

// The sides in bf16, for the tensor cores; a copy if the tensor is f32, freed in stream order.
struct Bf16Sides {
  Tensor tensor;
  BSides sides;
  Bf16Sides(const Tensor& t, const Sides& s)
      : tensor(converted(t, DType::bf16)), sides{device_data<bf16>(tensor), s.turned, s.R, s.C, s.stride} {}
};

void gather_products(const char* op, Tensor& h, const Tensor& x, const Tensor& sides,
                     const ExpertGroups& groups, bool turned) {
  const Groups g = groups_of(op, groups);
  const int64_t C = channels(x), M = groups.order.numel();
  const int64_t R = rank_of(op, h, g.experts, M, turned ? channels(sides) : leading(sides));
  const Sides s = sides_of(op, sides, g, R, C, turned);
  check_matrix(op, "h", h, x.dtype(), M, R);
  if (x.dtype() == DType::bf16) {
    const Bf16Sides b(sides, s);
    return launch(op, turned ? gather_mma_kernel<true> : gather_mma_kernel<false>,
                  {ceil_div(R, kSide), walkers(M, g.experts, kSide), g.experts, kBlockThreads},
                  device_data<bf16>(h), device_data<bf16>(x), b.sides, g);
  }
  check_matrix(op, "x", x, DType::f32, leading(x), C);
  launch(op, gather_kernel, {ceil_div(R, kTile), walkers(M, g.experts, kTile), g.experts, kTileThreads},
         device_data<float>(h), device_data<float>(x), s, g);
}

void scatter_products(const char* op, Tensor& y, const Tensor& h, const Tensor& sides,
                      const ExpertGroups& groups, bool turned) {
  const Groups g = groups_of(op, groups);
  const int64_t C = channels(y), M = groups.order.numel();
  const int64_t R = rank_of(op, h, g.experts, M, turned ? channels(sides) : leading(sides));
  const Sides s = sides_of(op, sides, g, R, C, turned);
  const Floats out = floats_of(op, turned ? "y" : "x", y, y.numel());
  const bool half = h.dtype() == DType::bf16;
  if (!half) check_matrix(op, "h", h, DType::f32, M, R);
  const std::optional<Bf16Sides> b = half ? std::optional<Bf16Sides>(std::in_place, sides, s) : std::nullopt;
  // One launch per expert, so that a row's experts add to it in a fixed order.
  for (int64_t e = 0; e < g.experts && M > 0; ++e) {
    if (half)
      launch(op, turned ? scatter_mma_kernel<true> : scatter_mma_kernel<false>,
             {ceil_div(C, kSide), walkers(M, g.experts, kSide), 1, kBlockThreads}, out, device_data<bf16>(h),
             b->sides, g, e);
    else
      launch(op, scatter_kernel, {ceil_div(C, kTile), walkers(M, g.experts, kTile), 1, kTileThreads}, out,
             device_data<float>(h), s, g, e);
  }
}

void sum_outer_products(const char* op, Tensor& sides, const Tensor& h, const Tensor& x,
                        const ExpertGroups& groups, bool turned) {
  const Groups g = groups_of(op, groups);
  const int64_t C = channels(x), M = groups.order.numel();
  const int64_t R = rank_of(op, h, g.experts, M, turned ? channels(sides) : leading(sides));
  const Sides s = sides_of(op, sides, g, R, C, turned);
  check_matrix(op, turned ? "y" : "x", x, h.dtype(), leading(x), C);
  if (h.dtype() == DType::bf16) {
    return launch(op, sum_outer_mma_kernel,
                  {ceil_div(R, kSide), ceil_div(C, kSide), g.experts, kBlockThreads}, s, device_data<bf16>(h),
                  device_data<bf16>(x), g);
  }
  check_matrix(op, "h", h, DType::f32, M, R);
  launch(op, sum_outer_kernel, {ceil_div(R, kTile), ceil_div(C, kTile), g.experts, kTileThreads}, s,
         device_data<float>(h), device_data<float>(x), g);
}

}  // namespace

// h[j] = x[order[j]] a_e^T: x [N,C], a [E*R,C], h [M,R]
void gather_matmul_nt(Tensor& h, const Tensor& x, const Tensor& a, const ExpertGroups& groups) {
  gather_products("gather_matmul_nt", h, x, a, groups, false);
}

// h[j] = y[order[j]] b_e: y [N,O], b [O,E*R], h [M,R]
void gather_matmul_nn(Tensor& h, const Tensor& y, const Tensor& b, const ExpertGroups& groups) {
  gather_products("gather_matmul_nn", h, y, b, groups, true);
}

// y[order[j]] += h[j] b_e^T, in the order of the experts: h [M,R], b [O,E*R], y [N,O]
void scatter_matmul_nt(Tensor& y, const Tensor& h, const Tensor& b, const ExpertGroups& groups) {
  scatter_products("scatter_matmul_nt", y, h, b, groups, true);
}

// z[j] = y[order[j]] + h[j] b_e^T: y [N,O], h [M,R], b [O,E*R], z [M,O]
void spread_matmul_nt(Tensor& z, const Tensor& y, const Tensor& h, const Tensor& b,
                      const ExpertGroups& groups) {
  const char* op = "spread_matmul_nt";
  const Groups g = groups_of(op, groups);
  const int64_t C = channels(y), M = groups.order.numel(), R = rank_of(op, h, g.experts, M, channels(b));
  const Sides s = sides_of(op, b, g, R, C, true);
  check_matrix(op, "y", y, h.dtype(), leading(y), C);
  check_matrix(op, "z", z, h.dtype(), M, C);
  if (h.dtype() == DType::bf16) {
    const Bf16Sides sides(b, s);
    return launch(op, spread_mma_kernel<true>,
                  {ceil_div(C, kSide), walkers(M, g.experts, kSide), g.experts, kBlockThreads},
                  device_data<bf16>(z), device_data<bf16>(y), device_data<bf16>(h), sides.sides, g);
  }
  check_matrix(op, "h", h, DType::f32, M, R);
  launch(op, spread_kernel, {ceil_div(C, kTile), walkers(M, g.experts, kTile), g.experts, kTileThreads},
         device_data<float>(z), device_data<float>(y), device_data<float>(h), s, g);
}

// x[order[j]] += h[j] a_e, in the order of the experts: h [M,R], a [E*R,C], x [N,C]
void scatter_matmul_nn(Tensor& x, const Tensor& h, const Tensor& a, const ExpertGroups& groups) {
  scatter_products("scatter_matmul_nn", x, h, a, groups, false);
}

// a_e += sum over the places j of e of h[j]^T x[order[j]], the gradient of a: h [M,R], x [N,C], a [E*R,C]
void gather_matmul_tn_a(Tensor& a, const Tensor& h, const Tensor& x, const ExpertGroups& groups) {
  sum_outer_products("gather_matmul_tn_a", a, h, x, groups, false);
}

// b_e += sum over the places j of e of y[order[j]]^T h[j], the gradient of b: y [N,O], h [M,R], b [O,E*R]
void gather_matmul_tn_b(Tensor& b, const Tensor& y, const Tensor& h, const ExpertGroups& groups) {
  sum_outer_products("gather_matmul_tn_b", b, h, y, groups, true);
}

}  // namespace burrow::cuda
