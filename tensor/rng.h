#pragma once
// Counter-based randomness: Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3,
// SC'11). A draw is a pure function of key and counter, so that resuming, packing, accumulation and the
// number of ranks do not change it. Compiled for host and device.
//
//   key     = random_key(seed, step, path of the site in the model)
//   counter = (global ordinal of the sample, position, channel / 4); the draw's lane is channel % 4
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "tensor/scalar_ops.h"

namespace burrow {

struct PhiloxBlock {
  uint32_t v[4];
};

// 128 random bits of one key at the counter (c0, c1, c2, c3).
BURROW_HD inline PhiloxBlock philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
    const uint32_t n0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0,
                   n2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(b);
    c3 = static_cast<uint32_t>(a);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// [0, 1) with 24 bits.
BURROW_HD inline float uniform(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

// SplitMix64's finaliser: mixes the bits of x.
inline uint64_t mix_bits(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}
inline uint64_t random_key(uint64_t seed, uint64_t step, std::string_view path) {
  uint64_t h = 0xcbf29ce484222325ull;  // FNV-1a of the path
  for (const char c : path) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return mix_bits(mix_bits(mix_bits(seed) ^ step) ^ h);
}

// A sequential stream of draws with one key, for the host: initialisation, shuffles, data generation.
class Random {
 public:
  explicit Random(uint64_t key, uint64_t ordinal = 0) : key_(key), ordinal_(ordinal) {}
  // 32 random bits, the next lane of the stream.
  uint32_t bits() {
    if (lane_ == 4) {
      block_ = philox(key_, static_cast<uint32_t>(ordinal_), static_cast<uint32_t>(ordinal_ >> 32),
                      static_cast<uint32_t>(at_), static_cast<uint32_t>(at_ >> 32));
      ++at_;
      lane_ = 0;
    }
    return block_.v[lane_++];
  }
  double unit() {  // [0, 1) with 53 bits
    const uint64_t hi = bits(), lo = bits();
    return static_cast<double>(((hi << 32) | lo) >> 11) * 0x1p-53;
  }
  // [0, n), n >= 1, without bias (Lemire's multiplication with rejection).
  uint32_t below(uint32_t n) {
    uint64_t m = static_cast<uint64_t>(bits()) * n;
    if (static_cast<uint32_t>(m) < n) {
      const uint32_t threshold = (0u - n) % n;
      while (static_cast<uint32_t>(m) < threshold) m = static_cast<uint64_t>(bits()) * n;
    }
    return static_cast<uint32_t>(m >> 32);
  }
  double normal() {  // Box-Muller, one of the pair
    const double u = 1 - unit(), angle = 6.283185307179586 * unit();
    return std::sqrt(-2 * std::log(u)) * std::cos(angle);
  }
  template <class Container>
  void shuffle(Container& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(static_cast<uint32_t>(i))]);
  }

 private:
  uint64_t key_, ordinal_, at_ = 0;
  PhiloxBlock block_{};
  int lane_ = 4;
};

}  // namespace burrow
