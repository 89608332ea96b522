#pragma once
// The products of grouped_matmul.cu in bf16, on the tensor cores. A block owns 64 by 64 results, a warp 32 by
// 32 of them. The factors pass through shared memory 64 inner indices at a time, copied one product ahead.
#include "tensor/cuda/groups.cuh"
#include "tensor/cuda/mma.cuh"

namespace burrow::cuda {

constexpr int kSide = 64;  // of a block of results, and of its factor tiles
constexpr unsigned kBlockThreads = 128;
using SharedTile = SharedRows<kSide>;

// A warp's quarter of a block: 32 by 32 results.
struct BlockSum {
  MatrixC c[2][4] = {};

  __device__ static int first_row() { return static_cast<int>(threadIdx.x / 64) * 32; }
  __device__ static int first_column() { return static_cast<int>(threadIdx.x / 32 % 2) * 32; }
  // Calls f(row, column, sum) for each result that the thread holds.
  template <class F>
  __device__ void each(F f) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      each_held<4>([&](int j, int e, int row, int column) {
        f(first_row() + 16 * i + row, first_column() + column, c[i][j].value[e]);
      });
    }
  }
};

// Whether a row of a factor's tile in shared memory is one result row (column) or one inner index.
enum class Lies { along_results, along_inner };

// sum += A B over one pair of tiles.
template <Lies A, Lies B>
__device__ void multiply_tiles(BlockSum& sum, SharedTile a, SharedTile b) {
#pragma unroll
  for (int k = 0; k < kSide; k += 16) {
    MatrixA left[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int m = BlockSum::first_row() + 16 * i;
      left[i] = A == Lies::along_results ? load_a(a, m, k) : load_a_turned(a, k, m);
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int n = BlockSum::first_column() + 16 * j;
      const MatrixB2 right = B == Lies::along_results ? load_b_turned(b, n, k) : load_b(b, k, n);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        multiply(sum.c[i][2 * j], left[i], right.left);
        multiply(sum.c[i][2 * j + 1], left[i], right.right);
      }
    }
  }
}

// to[i] = the first `width` elements at row(i), then 0, for 64 rows; all 0 where row(i) is null.
template <class Row>
__device__ void load_tile(SharedTile to, Row row, int64_t width) {
  for (int t = static_cast<int>(threadIdx.x); t < kSide * SharedTile::kChunks; t += kBlockThreads) {
    const int i = t / SharedTile::kChunks, c = t % SharedTile::kChunks;
    const bf16* from = row(i);
    const int64_t elements = from ? width - 8 * c : 0;
    if (elements >= 8 && reinterpret_cast<uintptr_t>(from) % sizeof(Chunk) == 0)
      copy_chunk(to.chunk(i, c), from + 8 * c, true);
    else
      *to.chunk(i, c) =
          elements > 0 ? gather_chunk(from + 8 * c, static_cast<int>(elements < 8 ? elements : 8)) : Chunk{};
  }
}

// sum += A B with inner size `inner`; load_a_tile(tile, k0) and load_b_tile load the tiles at inner index k0.
// All threads of the block must call it.
template <Lies A, Lies B, class LoadA, class LoadB>
__device__ void block_product(BlockSum& sum, int64_t inner, LoadA load_a_tile, LoadB load_b_tile) {
  __shared__ Chunk space[2][2][kSide * SharedTile::kChunks];
  const auto tile = [&](int turn, int factor) { return SharedTile{space[turn][factor]}; };
  load_a_tile(tile(0, 0), int64_t{0});
  load_b_tile(tile(0, 1), int64_t{0});
  int turn = 0;
  for (int64_t k0 = 0; k0 < inner; k0 += kSide, turn ^= 1) {
    finish_copies();
    __syncthreads();  // these tiles are loaded, and no thread reads the other pair
    if (k0 + kSide < inner) {
      load_a_tile(tile(turn ^ 1, 0), k0 + kSide);
      load_b_tile(tile(turn ^ 1, 1), k0 + kSide);
    }
    multiply_tiles<A, B>(sum, tile(turn, 0), tile(turn, 1));
  }
  __syncthreads();  // all threads have read the tiles, which the next product overwrites
}

// The sides of the experts in bf16; see Sides.
struct BSides {
  const bf16* p;
  bool turned;
  int64_t R, C, stride;

  // Row i of the tile at rank r0 and channel c0 of expert e: the channels of rank r0 + i or, if turned, the
  // ranks of channel c0 + i; null beyond the last.
  __device__ const bf16* row(int64_t e, int64_t r0, int64_t c0, int i) const {
    if (turned) return c0 + i < C ? p + (c0 + i) * stride + e * R + r0 : nullptr;
    return r0 + i < R ? p + (e * R + r0 + i) * stride + c0 : nullptr;
  }
  __device__ int64_t width(int64_t r0, int64_t c0) const { return turned ? R - r0 : C - c0; }
};

// h[j,r] = sum_c x[row(j), c] side(e, r, c),  row(j) = order[j],  e the expert of place j; Sides: groups.cuh
// in: x bf16 [N,C], sides of the experts bf16   out: h bf16 [M,R], written
// A block owns 64 places of one expert by 64 ranks; sums in f32.
template <bool Turned>
__global__ void gather_mma_kernel(bf16* h, const bf16* x, BSides s, Groups g) {
  const int64_t e = blockIdx.z, r0 = int64_t{blockIdx.x} * kSide;
  const Places places = places_of(g, e, kSide);
  for (int64_t tile = blockIdx.y; tile < places.tiles; tile += gridDim.y) {
    const int64_t j0 = places.first + tile * kSide;
    BlockSum sum;
    block_product<Lies::along_results, Turned ? Lies::along_inner : Lies::along_results>(
        sum, s.C,
        [&](SharedTile to, int64_t c0) {
          load_tile(
              to, [&](int i) { return j0 + i < places.last ? x + g.row(j0 + i) * s.C + c0 : nullptr; },
              s.C - c0);
        },
        [&](SharedTile to, int64_t c0) {
          load_tile(
              to, [&](int i) { return s.row(e, r0, c0, i); }, s.width(r0, c0));
        });
    sum.each([&](int64_t i, int64_t k, float value) {
      if (j0 + i < places.last && r0 + k < s.R) h[(j0 + i) * s.R + r0 + k] = bf16(value);
    });
  }
}

// Calls store(j, c, sum_r h[j,r] side(e, r, c)) for a tile of 64 places by 64 channels of expert e, whose
// part of a LoRA factor is `side`; Turned: it is stored transposed.
template <bool Turned, class Store>
__device__ void widen_mma(const bf16* h, const BSides& s, const Groups& g, int64_t e, Store store) {
  const int64_t c0 = int64_t{blockIdx.x} * kSide;
  const Places places = places_of(g, e, kSide);
  for (int64_t tile = blockIdx.y; tile < places.tiles; tile += gridDim.y) {
    const int64_t j0 = places.first + tile * kSide;
    BlockSum sum;
    block_product<Lies::along_results, Turned ? Lies::along_results : Lies::along_inner>(
        sum, s.R,
        [&](SharedTile to, int64_t r0) {
          load_tile(
              to, [&](int i) { return j0 + i < places.last ? h + (j0 + i) * s.R + r0 : nullptr; }, s.R - r0);
        },
        [&](SharedTile to, int64_t r0) {
          load_tile(
              to, [&](int i) { return s.row(e, r0, c0, i); }, s.width(r0, c0));
        });
    sum.each([&](int64_t i, int64_t k, float value) {
      if (j0 + i < places.last && c0 + k < s.C) store(j0 + i, c0 + k, value);
    });
  }
}

// y[row(j), c] += sum_r h[j,r] side(e, r, c) for one expert e, whose rows are distinct: no add conflicts
// in: h bf16 [M,R], sides of the experts bf16   out: y [N,C] f32 or bf16, added to
// A block owns 64 places of the expert by 64 channels; sums in f32.
template <bool Turned>
__global__ void scatter_mma_kernel(Floats y, const bf16* h, BSides s, Groups g, int64_t e) {
  widen_mma<Turned>(h, s, g, e, [&](int64_t j, int64_t c, float value) {
    const int64_t to = g.row(j) * s.C + c;
    y.set(to, y[to] + value);
  });
}

// z[j,c] = y[row(j), c] + sum_r h[j,r] side(e, r, c)
// in: y bf16 [N,C], h bf16 [M,R], sides of the experts bf16   out: z bf16 [M,C], written
// A block owns 64 places of one expert by 64 channels; sums in f32.
template <bool Turned>
__global__ void spread_mma_kernel(bf16* z, const bf16* y, const bf16* h, BSides s, Groups g) {
  widen_mma<Turned>(h, s, g, blockIdx.z, [&](int64_t j, int64_t c, float value) {
    z[j * s.C + c] = bf16(to_float(y[g.row(j) * s.C + c]) + value);
  });
}

// side(e, r, c) += sum over the places j of e of h[j,r] x[row(j), c]
// in: h bf16 [M,R], x bf16 [N,C]   out: sides of the experts f32 or bf16, added to
// A block owns 64 ranks by 64 channels of one expert and reads its places in ascending order; sums in f32.
__global__ inline void sum_outer_mma_kernel(Sides s, const bf16* h, const bf16* x, Groups g) {
  const int64_t e = blockIdx.z, r0 = int64_t{blockIdx.x} * kSide, c0 = int64_t{blockIdx.y} * kSide;
  const int64_t first = g.begin(e), last = g.end(e);
  if (first == last) return;
  BlockSum sum;
  block_product<Lies::along_inner, Lies::along_inner>(
      sum, last - first,
      [&](SharedTile to, int64_t j0) {
        load_tile(
            to, [&](int i) { return first + j0 + i < last ? h + (first + j0 + i) * s.R + r0 : nullptr; },
            s.R - r0);
      },
      [&](SharedTile to, int64_t j0) {
        load_tile(
            to, [&](int i) { return first + j0 + i < last ? x + g.row(first + j0 + i) * s.C + c0 : nullptr; },
            s.C - c0);
      });
  sum.each([&](int64_t i, int64_t k, float value) {
    if (r0 + i >= s.R || c0 + k >= s.C) return;
    const int64_t to = s.at(e, r0 + i, c0 + k);
    s.p.set(to, s.p[to] + value);
  });
}

}  // namespace burrow::cuda
