// rope and attention against plain loops in f64: packed sequences of many lengths, some empty, grouped
// queries, fewer queries than keys, positions that do not begin at 0, queries that see no key.
#include <numeric>
#include <set>

#include "tensor/cuda/cudnn.h"
#include "tests/support/kernel_testing.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

struct Case {
  const char* name;
  std::vector<int32_t> q_lengths, k_lengths;
  int64_t heads, kv_heads, head_size;
  bool causal;
  int32_t first = 0;  // position of the first key of each sequence
  int32_t shift = 0;  // added to the positions of queries; with 0 the last query is at the last key
};

const Case kCases[] = {
    {"one token", {1}, {1}, 1, 1, 2, true},
    {"nothing", {}, {}, 2, 1, 4, true},
    {"an empty sequence among others", {7, 0, 33}, {7, 0, 33}, 4, 4, 32, true},
    {"bidirectional", {17, 16}, {17, 16}, 3, 3, 12, false},
    {"grouped queries", {24, 25, 9}, {24, 25, 9}, 8, 2, 16, true},
    {"odd head size", {33, 8}, {33, 8}, 2, 2, 7, true},
    {"decoding with a cache", {1, 1, 3}, {24, 7, 33}, 4, 2, 32, true},
    {"decoding, positions from 100", {5, 1}, {40, 1}, 2, 2, 8, true, 100},
    {"more queries than keys, some see none", {12, 4}, {5, 0}, 2, 1, 8, true},
    {"every query before every key", {6}, {9}, 2, 2, 8, true, 50, -40},
    {"queries between keys", {6}, {9}, 2, 2, 8, true, 0, -5},
    {"longer than a block", {150, 130}, {150, 200}, 2, 1, 16, true},
    {"longer than a block, bidirectional", {150, 50}, {131, 50}, 2, 1, 16, false},
};

std::vector<int32_t> offsets_of(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> offsets(lengths.size() + 1, 0);
  std::partial_sum(lengths.begin(), lengths.end(), offsets.begin() + 1);
  return offsets;
}

AttentionRanges ranges_of(const Case& c) {
  std::vector<int32_t> q_positions, k_positions;
  for (size_t b = 0; b < c.q_lengths.size(); ++b) {
    const int32_t start = c.first + c.k_lengths[b] - c.q_lengths[b] + c.shift;
    for (int32_t i = 0; i < c.q_lengths[b]; ++i) q_positions.push_back(start + i);
    for (int32_t j = 0; j < c.k_lengths[b]; ++j) k_positions.push_back(c.first + j);
  }
  return {index_of(offsets_of(c.q_lengths)), index_of(offsets_of(c.k_lengths)), index_of(q_positions),
          index_of(k_positions)};
}

struct Reference {
  Values y, lse, dq, dk, dv;
};

// Computed per (query, head) without blocking; the gradient of softmax by its definition.
Reference reference(const Case& c, const AttentionRanges& r, double scale, const Values& q, const Values& k,
                    const Values& v, const Values& dy) {
  const auto D = static_cast<size_t>(c.head_size), H = static_cast<size_t>(c.heads),
             G = static_cast<size_t>(c.kv_heads);
  Reference out{Values(q.size(), 0), Values(q.size() / D, 0), Values(q.size(), 0), Values(k.size(), 0),
                Values(k.size(), 0)};
  const auto qo = values_of(r.q_offsets), ko = values_of(r.k_offsets), qp = values_of(r.q_positions),
             kp = values_of(r.k_positions);
  for (size_t b = 0; b + 1 < qo.size(); ++b) {
    for (auto n = static_cast<size_t>(qo[b]); n < static_cast<size_t>(qo[b + 1]); ++n) {
      for (size_t h = 0; h < H; ++h) {
        const size_t at = (n * H + h) * D;
        std::vector<size_t> rows;  // where the D values of each visible key begin
        Values p, dp;
        double sum = 0, mean = 0;
        for (auto j = static_cast<size_t>(ko[b]); j < static_cast<size_t>(ko[b + 1]); ++j) {
          if (c.causal && kp[j] > qp[n]) continue;
          const size_t row = (j * G + h / (H / G)) * D;
          rows.push_back(row);
          double s = 0, g = 0;
          for (size_t d = 0; d < D; ++d) s += q[at + d] * k[row + d], g += dy[at + d] * v[row + d];
          p.push_back(std::exp(scale * s)), dp.push_back(g);
          sum += p.back();
        }
        out.lse[n * H + h] = std::log(sum);  // -infinity for an empty sum
        for (size_t i = 0; i < rows.size(); ++i) p[i] /= sum, mean += p[i] * dp[i];
        for (size_t i = 0; i < rows.size(); ++i) {
          const double ds = p[i] * (dp[i] - mean) * scale;
          for (size_t d = 0; d < D; ++d) {
            out.y[at + d] += p[i] * v[rows[i] + d];
            out.dv[rows[i] + d] += p[i] * dy[at + d];
            out.dq[at + d] += ds * k[rows[i] + d];
            out.dk[rows[i] + d] += ds * q[at + d];
          }
        }
      }
    }
  }
  return out;
}

}  // namespace

TEST_CASE_TEMPLATE("attention", T, float, double) {
  for (const Case& c : kCases) {
    CAPTURE(std::string(c.name));
    Outputs outputs;
    const int64_t Nq = offsets_of(c.q_lengths).back(), Nk = offsets_of(c.k_lengths).back(), D = c.head_size;
    const AttentionRanges ranges = ranges_of(c);
    const AttentionShape shape{c.heads, c.kv_heads, D, c.causal, 1 / std::sqrt(static_cast<double>(D))};
    const Tensor q = random_tensor<T>({Nq, c.heads * D}), dy = random_tensor<T>({Nq, c.heads * D});
    const Tensor k = random_tensor<T>({Nk, c.kv_heads * D}), v = random_tensor<T>({Nk, c.kv_heads * D});
    const Reference want =
        reference(c, ranges, shape.scale, values_of(q), values_of(k), values_of(v), values_of(dy));
    Tensor y = outputs.template make<T>(q.shape()), lse = outputs.template make<T>({Nq, c.heads});
    kernel::attention(y, lse, q, k, v, ranges, shape);
    check_near("y", y, want.y);
    check_near("lse", lse, want.lse);
    for (int wanted = 1; wanted < 8; ++wanted) {
      CAPTURE(wanted);
      Tensor dq = wanted & 1 ? outputs.template make<T>(q.shape()) : Tensor();
      Tensor dk = wanted & 2 ? outputs.template make<T>(k.shape()) : Tensor();
      Tensor dv = wanted & 4 ? outputs.template make<T>(v.shape()) : Tensor();
      kernel::attention_backward(dq, dk, dv, dy, y, lse, q, k, v, ranges, shape);
      // Values of a few units cancel in ds, twice, hence four times the tolerance of one sum.
      if (dq.defined()) check_near("dq", dq, want.dq, 4);
      if (dk.defined()) check_near("dk", dk, want.dk, 4);
      if (dv.defined()) check_near("dv", dv, want.dv);
    }
  }
}

TEST_CASE_TEMPLATE("attention takes large scores, and a sequence alone gives the same bits as in a batch", T,
                   float, double) {
  Outputs outputs;
  const Case c{"", {20, 31, 24}, {20, 31, 24}, 4, 2, 32, true};
  const AttentionRanges ranges = ranges_of(c);
  const AttentionShape shape{4, 2, 32, true, 1};
  const Tensor q = random_tensor<T>({75, 128}, 30), k = random_tensor<T>({75, 64}),
               v = random_tensor<T>({75, 64});
  Tensor y = outputs.template make<T>({75, 128}), lse = outputs.template make<T>({75, 4});
  kernel::attention(y, lse, q, k, v, ranges, shape);
  const Reference want = reference(c, ranges, 1, values_of(q), values_of(k), values_of(v), values_of(q));
  check_near("y", y, want.y, 10);  // rounding errors of scores in the hundreds are amplified by exp
  const Case one{"", {31}, {31}, 4, 2, 32, true};
  Tensor y1 = outputs.template make<T>({31, 128}), lse1 = outputs.template make<T>({31, 4});
  kernel::attention(y1, lse1, q.slice_rows(20, 51), k.slice_rows(20, 51), v.slice_rows(20, 51),
                    ranges_of(one), shape);
  check_same_bits(y1, y.slice_rows(20, 51));
}

TEST_CASE_TEMPLATE("attention rejects arguments that do not match", T, float, double) {
  Tensor q = random_tensor<T>({5, 8}), lse = Tensor::zeros({5, 2}, q.dtype()), y = q.clone();
  const Tensor at = index_of({0, 1, 2, 3, 4});
  const auto run = [&](std::vector<int32_t> cuts, int64_t heads) {
    const AttentionRanges r{index_of(cuts), index_of(cuts), at, at};
    return error_of([&] { kernel::attention(y, lse, q, q, q, r, {heads, heads, 4, true, 1}); });
  };
  CHECK(contains(run({0, 4}, 2), "q_offsets run from 0 to 4, expected 0 to 5"));
  CHECK(contains(run({0, 3, 2, 5}, 2), "q_offsets decrease from 3 to 2 at sequence 1"));
  CHECK(contains(run({0, 5}, 3), "[attention] q is"));
}

using Rows = std::vector<int32_t>;

TEST_CASE("known properties of attention ranges") {
  const auto known = [](const Rows& q_cuts, const Rows& k_cuts, const Rows& q_at, const Rows& k_at) {
    return known_ranges(q_cuts, k_cuts, q_at, k_at);
  };
  const Rows at{0, 1, 2, 0, 1};
  CHECK(known({0, 3, 5}, {0, 3, 5}, at, at).longest == 3);
  CHECK(known({0, 3, 5}, {0, 3, 5}, at, at).aligned);
  CHECK(known({0, 3, 5}, {0, 3, 5}, {7, 8, 9, 4, 5}, {7, 8, 9, 4, 5}).aligned);
  CHECK_FALSE(known({0, 3, 5}, {0, 3, 5}, {0, 1, 3, 0, 1}, {0, 1, 3, 0, 1}).aligned);  // a gap
  CHECK_FALSE(known({0, 3, 5}, {0, 3, 5}, at, {0, 1, 2, 0, 2}).aligned);               // other positions
  CHECK_FALSE(known({0, 3, 5}, {0, 2, 5}, at, at).aligned);                            // other rows
  CHECK(known({0, 1, 2}, {0, 4, 5}, {3, 0}, {0, 1, 2, 3, 0}).longest == 4);  // more keys than queries
  // Nothing is known with a sequence without queries or without keys, rows outside of all sequences, or no
  // sequence.
  CHECK(known({0, 0, 5}, {0, 3, 5}, at, at).longest == 0);
  CHECK(known({0, 3, 5}, {0, 5, 5}, at, at).longest == 0);
  CHECK(known({0, 3, 4}, {0, 3, 4}, at, at).longest == 0);
  CHECK(known({1, 3, 5}, {1, 3, 5}, at, at).longest == 0);
  CHECK(known({0, 5}, {0, 3, 5}, at, at).longest == 0);
  CHECK(known({0}, {0}, {}, {}).longest == 0);
  CHECK(known({}, {}, {}, {}).longest == 0);
  CHECK_FALSE(known({0, 3, 4}, {0, 3, 4}, at, at).aligned);
}

// Decided by the arguments alone, without device and library.
TEST_CASE("which attention calls cuDNN may compute") {
  const auto why = [](DType dtype, int64_t rows, const KnownRanges& known, const AttentionShape& shape) {
    const Tensor q = Tensor::zeros({rows, shape.heads * shape.head_size}, dtype),
                 k = Tensor::zeros({rows, shape.kv_heads * shape.head_size}, dtype);
    const char* reason = cuda::why_own_attention(q, k, {{}, {}, {}, {}, known}, shape);
    return std::string(reason ? reason : "");
  };
  const KnownRanges training{4, true}, apart{4, false};
  const AttentionShape causal{4, 2, 64, true, 1}, both_ways{4, 4, 128, false, 1};
  CHECK(why(DType::bf16, 4, training, causal).empty());
  CHECK(why(DType::bf16, 4, training, both_ways).empty());
  CHECK(why(DType::bf16, 4, apart, both_ways).empty());
  CHECK(contains(why(DType::bf16, 4, apart, causal), "causal mask"));
  CHECK(contains(why(DType::bf16, 4, {}, both_ways), "may be empty"));
  CHECK(contains(why(DType::bf16, 4, {0, true}, causal), "may be empty"));
  CHECK(contains(why(DType::bf16, 0, training, causal), "no rows"));
  CHECK(contains(why(DType::f32, 4, training, causal), "not bf16"));
  for (const int64_t size : {32, 63, 96, 256})
    CHECK(contains(why(DType::bf16, 4, training, {4, 2, size, true, 1}), "not 64 or 128"));
}

TEST_CASE("the sizes of cuDNN's plans are at least the call's, and few") {
  std::set<cuda::FusedSizes> sizes;
  for (int64_t n = 1; n <= 5000; ++n) {
    const cuda::FusedSizes s = cuda::fused_sizes(n, n, n, n);
    sizes.insert(s);
    CHECK(std::min({s.batch, s.longest, s.q_rows, s.k_rows}) >= n);
    CHECK(std::max(s.batch * 8, n < 1024 ? 0 : s.longest * 8) <= std::max<int64_t>(n * 9 + 7, 128));
    CHECK(cuda::fused_sizes(s.batch, s.longest, s.q_rows, s.k_rows) == s);  // rounding again changes nothing
  }
  CHECK(sizes.size() < 100);
  CHECK(cuda::fused_sizes(10, 832, 8192, 8100) == cuda::FusedSizes{10, 896, 8192, 8192});
}

TEST_CASE_TEMPLATE("rope", T, float, double) {
  struct Sizes {
    int64_t N, H, D;
  };
  for (const auto [N, H, D] : {Sizes{1, 1, 2}, {0, 2, 4}, {7, 3, 6}, {33, 4, 32}}) {
    Outputs outputs;
    const double theta = D == 6 ? 500 : 10000;
    const Tensor x = random_tensor<T>({N, H * D});
    std::vector<int32_t> places(static_cast<size_t>(N));
    for (size_t n = 0; n < places.size(); ++n) places[n] = static_cast<int32_t>(n * 7 % 50);
    if (N > 5) places[3] = 70000, places[5] = 0;
    const Tensor position = index_of(places);
    const Values v = values_of(x);
    Values want(v.size());
    for (size_t i = 0; i < v.size(); ++i) {
      const size_t d = i % static_cast<size_t>(D), half = static_cast<size_t>(D) / 2, low = d % half;
      const double angle = places[i / static_cast<size_t>(H * D)] *
                           std::pow(theta, -2 * static_cast<double>(low) / static_cast<double>(D));
      want[i] = d < half ? v[i] * std::cos(angle) - v[i + half] * std::sin(angle)
                         : v[i] * std::cos(angle) + v[i - half] * std::sin(angle);
    }
    Tensor y = outputs.template make<T>({N, H * D}), back = outputs.template make<T>({N, H * D});
    kernel::rope(y, x, position, H, theta, false);
    check_near("rope", y, want);
    kernel::rope(back, y, position, H, theta, true);
    check_near("rope and back", back, v);
    kernel::rope(back, back, position, H, theta, false);
    check_near("in place", back, want);
  }
  Tensor x = random_tensor<T>({1, 9});
  CHECK(
      contains(error_of([&] { kernel::rope(x, x, index_of({0}), 3, 1e4, false); }), "3 heads of even size"));
}
