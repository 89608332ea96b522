// Dropout with the Philox generator, whose draws depend on seed, sample, position and channel alone.
// A thread owns rows; the draws of a row are computed first, as vector code.
#include <cmath>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vec.h"
#include "tensor/kernels.h"

namespace burrow::cpu {
namespace {

typedef uint64_t Wide __attribute__((vector_size(kVectorBytes)));
constexpr int kWide = kVectorBytes / 8;
using WideIndices = std::make_integer_sequence<int, kWide>;

// The product of each lane's low half with m: one instruction, which g++ does not select by itself.
inline Wide low_product(Wide a, uint32_t m) {
#if defined(__AVX512F__)
  return (Wide)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(m));
#elif defined(__AVX2__)
  return (Wide)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(m));
#else
  return (a & 0xffffffffu) * uint64_t{m};
#endif
}

constexpr int kGroup = 2;  // vectors of counters computed together, to hide the latency of products
constexpr int64_t kCounters = kGroup * kWide;

// draws[4j .. 4j + 3] = philox(key, c0, 0, c2, j) for j in [0, blocks), as in rng.h. A word of the state is
// the low half of a lane; the high half is ignored. Writes whole groups of counters, beyond `blocks`.
void philox_row(uint32_t* draws, int64_t blocks, uint64_t key, uint32_t c0, uint32_t c2) {
  const Wide lane = (Wide)detail::lane_numbers<double>(WideIndices{});
  for (int64_t j = 0; j < blocks; j += kCounters) {
    Wide a[kGroup], b[kGroup], c[kGroup], d[kGroup];
    for (int v = 0; v < kGroup; ++v) {
      a[v] = Wide{} + c0;
      b[v] = Wide{};
      c[v] = Wide{} + c2;
      d[v] = lane + static_cast<uint64_t>(j + v * kWide);
    }
    auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
#pragma GCC unroll 2
      for (int v = 0; v < kGroup; ++v) {
        const Wide x = low_product(a[v], 0xD2511F53u), y = low_product(c[v], 0xCD9E8D57u);
        a[v] = (y >> 32) ^ b[v] ^ k0;
        c[v] = (x >> 32) ^ d[v] ^ k1;
        b[v] = y;
        d[v] = x;
      }
    }
    for (int v = 0; v < kGroup; ++v) {
      const Wide ab = (a[v] & 0xffffffffu) | (b[v] << 32), cd = (c[v] & 0xffffffffu) | (d[v] << 32);
      const Wide low = detail::interleaved<0>(ab, cd, WideIndices{});
      const Wide high = detail::interleaved<kWide / 2>(ab, cd, WideIndices{});
      std::memcpy(draws + 4 * (j + v * kWide), &low, sizeof low);
      std::memcpy(draws + 4 * (j + v * kWide) + 2 * kWide, &high, sizeof high);
    }
  }
}

}  // namespace

// y[n,c] = x[n,c] / (1 - p) where uniform(draw) >= p, else 0; the draw of (n, c) is lane c % 4 of Philox at
// counter (ordinal[n], 0, position[n], c / 4). The backward is the same kernel on dy.
// in: x [N,C], ordinal position i32 [N]   out: y [N,C], written; y may be x
// A thread owns rows.
// Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC'11.
void dropout(Tensor& y, const Tensor& x, const Tensor& ordinal, const Tensor& position, uint64_t key,
             double p) {
  const int64_t C = channels(x), N = leading(x);
  check_same("dropout", "y", y, "x", x);
  check_vector("dropout", "ordinal", ordinal, DType::i32, N);
  check_vector("dropout", "position", position, DType::i32, N);
  BURROW_CHECK(p >= 0 && p < 1, "[dropout] p is {}, expected 0 <= p < 1", p);
  // uniform(draw) = (draw >> 8) / 2^24, so that comparing integers is exactly uniform(draw) >= p.
  const auto threshold = static_cast<int32_t>(std::ceil(p * 0x1p24));
  visit_float("dropout", x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    const int32_t *sample = ordinal.data<int32_t>(), *place = position.data<int32_t>();
    T* out = y.data<T>();
    const T gain = static_cast<T>(1 / (1 - p));
    parallel_rows(N, 10 * N * C, [=](int64_t begin, int64_t end) {
      struct Draws;
      const int64_t blocks = (C + 3) / 4;
      uint32_t* draws = scratch<uint32_t, Draws>(4 * (blocks + kCounters));
      for (int64_t n = begin; n < end; ++n) {
        philox_row(draws, blocks, key, static_cast<uint32_t>(sample[n]), static_cast<uint32_t>(place[n]));
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) {
          const auto draw = static_cast<int32_t>(draws[c] >> 8);  // AVX2 has no unsigned comparison
          out[n * C + c] = draw >= threshold ? in[n * C + c] * gain : T(0);
        }
      }
    });
  });
}

}  // namespace burrow::cpu
