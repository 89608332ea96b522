#pragma once
// Warp-level products on the tensor cores, C [16,8] += A [16,16] B [16,8] with bf16 factors and f32 sums.
// Factors are copied to shared memory asynchronously in chunks of 16 bytes (cp.async) and from there to
// registers (ldmatrix). All lanes of a warp must call a product and the loads of its factors. Needs sm_80 or
// newer. Source: PTX ISA 8, "Matrix Fragments for mma.m16n8k16", ldmatrix, cp.async.
#include "tensor/cuda/launch.cuh"
#include "tensor/dtype.h"

namespace burrow::cuda {

// The elements of a matrix that a lane holds, with g = lane / 4, t = lane % 4 and `2t..` for 2t and 2t + 1, a
// pair of bf16 with the first in the low half:
//   A: pair[0] = A[g, 2t..]       pair[1] = A[g + 8, 2t..]
//      pair[2] = A[g, 8 + 2t..]   pair[3] = A[g + 8, 8 + 2t..]
//   B: pair[0] = B[2t.., g]       pair[1] = B[8 + 2t.., g]
//   C: value[0], [1] = C[g, 2t..]   value[2], [3] = C[g + 8, 2t..]
// Two C side by side have the layout of an A: a result becomes a factor without leaving the lane (as_factor).
struct MatrixA {
  uint32_t pair[4];
};
struct MatrixB {
  uint32_t pair[2];
};
struct MatrixC {
  float value[4];
};

__device__ inline int lane_group() { return static_cast<int>(threadIdx.x % 32 / 4); }
__device__ inline int lane_of_group() { return static_cast<int>(threadIdx.x % 4); }

// Calls f(j, e, row, column) for each element c[j].value[e] that the lane holds of N matrices C side by side.
template <int N, class F>
__device__ void each_held(F f) {
#pragma unroll
  for (int j = 0; j < N; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) f(j, e, lane_group() + e / 2 * 8, 8 * j + 2 * lane_of_group() + e % 2);
  }
}

// Both values rounded to bf16, `low` in the low half.
__device__ inline uint32_t pack(float low, float high) {
#ifdef BURROW_CUDA_EMULATED
  return bf16(low).bits | uint32_t{bf16(high).bits} << 16;
#else
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}

// a[j] = columns 16j to 16j + 15 of c, rounded to bf16.
template <int N>
__device__ void as_factor(MatrixA (&a)[N / 2], const MatrixC (&c)[N]) {
#pragma unroll
  for (int j = 0; j < N; ++j) {
    a[j / 2].pair[j % 2 * 2] = pack(c[j].value[0], c[j].value[1]);
    a[j / 2].pair[j % 2 * 2 + 1] = pack(c[j].value[2], c[j].value[3]);
  }
}

// c += a b
__device__ inline void multiply(MatrixC& c, const MatrixA& a, const MatrixB& b) {
#ifdef BURROW_CUDA_EMULATED
  struct Held {
    MatrixA a;
    MatrixB b;
  };
  const auto lanes = emulate::of_lanes(Held{a, b});
  const auto half = [](uint32_t pair, int k) { return std::bit_cast<float>(pair >> k % 2 * 16 << 16); };
  float left[2][16], right[2][16];  // the lane's rows of A and columns of B, from the lanes that hold them
  for (int i = 0; i < 2; ++i) {
    for (int k = 0; k < 16; ++k) {
      const unsigned t = k % 8 / 2;
      left[i][k] = half(lanes[4 * lane_group() + t].a.pair[i + k / 8 * 2], k);
      right[i][k] = half(lanes[4 * (2 * lane_of_group() + i) + t].b.pair[k / 8], k);
    }
  }
  for (int e = 0; e < 4; ++e) {
    for (int k = 0; k < 16; ++k) c.value[e] += left[e / 2][k] * right[e % 2][k];
  }
#else
  float(&v)[4] = c.value;
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3])
      : "r"(a.pair[0]), "r"(a.pair[1]), "r"(a.pair[2]), "r"(a.pair[3]), "r"(b.pair[0]), "r"(b.pair[1]));
#endif
}

// ---- shared memory

// Eight bf16 elements of a row, in pairs as above.
struct alignas(16) Chunk {
  uint32_t pair[4];
};

// Rows of C elements in shared memory, C a power of two >= 16. The chunks of a row are permuted by the row's
// number (swizzled), so that one column of eight rows, which ldmatrix reads at once, has no bank conflicts.
template <int C>
struct SharedRows {
  static constexpr int kChunks = C / 8, kPlaces = kChunks < 8 ? kChunks : 8;
  Chunk* begin;

  __device__ Chunk* chunk(int row, int c) const {
    return begin + row * kChunks + (c ^ row * kPlaces / 8 % kPlaces);
  }
};

// to = the eight elements at `from`, or 0 unless `there`; `from` must be aligned to 16 bytes. The copy is
// asynchronous: it is complete after finish_copies, and visible to other threads after a barrier.
__device__ inline void copy_chunk(Chunk* to, const bf16* from, bool there) {
#ifdef BURROW_CUDA_EMULATED
  emulate::copy_later(to, from, there ? sizeof(Chunk) : 0, sizeof(Chunk));
#else
  const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared),
               "l"(__cvta_generic_to_global(from)), "r"(there ? 16 : 0)
               : "memory");
#endif
}
__device__ inline void finish_copies() {
#ifdef BURROW_CUDA_EMULATED
  emulate::finish_copies();
#else
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// The first `elements` of the eight elements at `from`, then 0.
__device__ inline Chunk gather_chunk(const bf16* from, int elements) {
  Chunk chunk{};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (i < elements) chunk.pair[i / 2] |= uint32_t{from[i].bits} << i % 2 * 16;
  }
  return chunk;
}

// to[i] = elements [0, D) of the row at from + i * stride, for Rows rows; 0 from row `there` and from element
// D on. All of the block's Threads must call it. The rows can be read after finish_copies and a barrier.
template <int Rows, int Threads, int C>
__device__ void load_rows(SharedRows<C> to, const bf16* from, int64_t stride, int64_t there, int64_t D) {
  // A thread copies one column of chunks, in steps of 8k rows, so that its addresses are equally spaced.
  constexpr int kChunks = SharedRows<C>::kChunks, kStep = Threads / kChunks;
  static_assert(kStep % 8 == 0 && Rows % kStep == 0);
  const int row = static_cast<int>(threadIdx.x) / kChunks, c = static_cast<int>(threadIdx.x) % kChunks;
  const int rows = static_cast<int>(there < Rows ? there : Rows) - row;
  const int elements = static_cast<int>(D) - 8 * c;
  const bool whole = (reinterpret_cast<uintptr_t>(from) | 2 * stride | 2 * D) % sizeof(Chunk) == 0;
  Chunk* place = to.chunk(row, c);
  from += row * stride + 8 * c;
#pragma unroll
  for (int i = 0; i < Rows; i += kStep, from += kStep * stride) {
    if (whole)
      copy_chunk(place + i * kChunks, from, i < rows && elements > 0);
    else
      place[i * kChunks] = gather_chunk(from, i < rows ? elements : 0);
  }
}

// Loads four matrices m of 8 by 8 elements; lane 8j + i passes the address of row i of matrix j. to[j] = m[g,
// 2t..] or, if Turned, m[2t.., g].
template <bool Turned>
__device__ void load_matrices(uint32_t (&to)[4], const Chunk* row) {
#ifdef BURROW_CUDA_EMULATED
  struct Given {
    const Chunk* row;
  };
  const auto lanes = emulate::of_lanes(Given{row});
  const auto element = [&](int r, int i) { return lanes[r].row->pair[i / 2] >> i % 2 * 16 & 0xffff; };
  const int g = lane_group(), t = lane_of_group();
  for (int j = 0; j < 4; ++j)
    to[j] = Turned ? element(8 * j + 2 * t, g) | element(8 * j + 2 * t + 1, g) << 16
                   : lanes[8 * j + g].row->pair[t];
#else
  const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (Turned)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared)
                 : "memory");
#endif
}

// The address that a lane passes to load_matrices for the [16,16] at (row, column): the second of the four
// matrices is below the first, or beside it.
template <int C>
__device__ const Chunk* below_first(const SharedRows<C>& x, int row, int column) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return x.chunk(row + lane % 16, column / 8 + lane / 16);
}
template <int C>
__device__ const Chunk* beside_first(const SharedRows<C>& x, int row, int column) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return x.chunk(row + lane / 16 * 8 + lane % 8, column / 8 + lane / 8 % 2);
}

// A = x[m0.., k0..], or A = x[k0.., m0..]^T, where the rows of x are the columns of A.
template <int C>
__device__ MatrixA load_a(const SharedRows<C>& x, int m0, int k0) {
  MatrixA a;
  load_matrices<false>(a.pair, below_first(x, m0, k0));
  return a;
}
template <int C>
__device__ MatrixA load_a_turned(const SharedRows<C>& x, int k0, int m0) {
  MatrixA a;
  load_matrices<true>(a.pair, beside_first(x, k0, m0));
  return a;
}

// Two B side by side: columns n0 to n0 + 7, and n0 + 8 to n0 + 15.
struct MatrixB2 {
  MatrixB left, right;
};
__device__ inline MatrixB2 b_pair(const uint32_t (&r)[4]) { return {{{r[0], r[1]}}, {{r[2], r[3]}}}; }
// B = x[k0.., n0..], or B = x[n0.., k0..]^T, where the rows of x are the columns of B.
template <int C>
__device__ MatrixB2 load_b(const SharedRows<C>& x, int k0, int n0) {
  uint32_t r[4];
  load_matrices<true>(r, below_first(x, k0, n0));
  return b_pair(r);
}
template <int C>
__device__ MatrixB2 load_b_turned(const SharedRows<C>& x, int n0, int k0) {
  uint32_t r[4];
  load_matrices<false>(r, beside_first(x, n0, k0));
  return b_pair(r);
}

}  // namespace burrow::cuda
