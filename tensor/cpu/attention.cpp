// Attention over packed sequences, forward and backward, with grouped queries. A thread owns (sequence, key
// head) pairs; blocks of query rows are multiplied by the register tiles of tile.h.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "tensor/checks.h"
#include "tensor/cpu/tile.h"
#include "tensor/kernels.h"

namespace burrow::cpu {
namespace {

constexpr int64_t kBlock = 48;  // rows of scores in memory at once; a multiple of the tile's 6 rows

// The arguments that forward and backward share, as pointers.
template <class T>
struct Problem {
  const T *q, *k, *v;
  const int32_t *q_offsets, *k_offsets, *q_positions, *k_positions;
  int64_t H, Hkv, D;
  bool causal;
  T scale;

  int64_t q_stride() const { return H * D; }
  int64_t k_stride() const { return Hkv * D; }
};

// One (sequence, key head) pair. Positions ascend, so a query sees a prefix of the keys.
template <class T>
struct Part {
  int64_t q0, k0, Tq, Tk;
  int64_t padded;       // stride of a row of scores: Tk rounded up to vectors, never a power of two in bytes
  const T *k, *v;       // the head's part of the first key; rows are k_stride apart
  const int32_t* seen;  // [Tq] the number of keys that each query sees

  Part(const Problem<T>& p, int64_t b, int64_t kv_head)
      : q0(p.q_offsets[b]),
        k0(p.k_offsets[b]),
        Tq(p.q_offsets[b + 1] - q0),
        Tk(p.k_offsets[b + 1] - k0),
        // Rows 4096 bytes apart map to one set of the L1 cache; one more vector spreads them.
        padded(whole_vectors<T>(Tk) + (Tk > 128 ? kLanes<T> : 0)),
        k(p.k + k0 * p.k_stride() + kv_head * p.D),
        v(p.v + k0 * p.k_stride() + kv_head * p.D) {
    struct Seen;
    int32_t* counts = scratch<int32_t, Seen>(Tq);
    int64_t last = p.causal ? 0 : Tk;
    for (int64_t i = 0; i < Tq; ++i) {
      while (last < Tk && p.k_positions[k0 + last] <= p.q_positions[q0 + i]) ++last;
      counts[i] = static_cast<int32_t>(last);
    }
    seen = counts;
  }
};

// Calls f(sequence, key head) for every pair. A thread starts with its own share of pairs, divided by the
// number of scores, then takes pairs that no thread has started, because that number only estimates the cost.
// The result of a pair does not depend on the thread.
template <class T, class F>
void over_parts(const Problem<T>& p, int64_t B, F f) {
  const int64_t pairs = B * p.Hkv;
  int64_t scores = 0;  // of one head
  std::vector<int64_t> before;
  for (int64_t b = 0; b < B; ++b) {
    before.push_back(scores);
    scores += int64_t{p.q_offsets[b + 1] - p.q_offsets[b]} * (p.k_offsets[b + 1] - p.k_offsets[b]) + 1;
  }
  std::vector<std::atomic<bool>> taken(static_cast<size_t>(pairs));
  parallel_rows(scores, scores * p.H * p.D, [&](int64_t begin, int64_t) {
    const int64_t first = std::lower_bound(before.begin(), before.end(), begin) - before.begin();
    for (int64_t i = 0; i < pairs; ++i) {
      const int64_t pair = (first * p.Hkv + i) % pairs;
      if (!taken[static_cast<size_t>(pair)].exchange(true)) f(pair / p.Hkv, pair % p.Hkv);
    }
  });
}

// to[D][padded] = from[Tk][stride]^T, 0 beyond Tk.
template <class T>
void transpose_head(T* to, const T* from, int64_t stride, int64_t D, const Part<T>& part) {
  for (int64_t d = 0; d < D; ++d) std::fill(to + d * part.padded + part.Tk, to + (d + 1) * part.padded, T(0));
  transpose(to, part.padded, from, stride, part.Tk, D);
}

// Query rows per call of small_matmul. In short sequences, 6 rows skip most of the keys that are not seen;
// with many keys, more rows share each panel of keys in the cache.
inline int64_t rows_at_once(int64_t Tk) { return Tk <= 128 ? 6 : kBlock; }

// out[rows, D] = weights[rows, width] x[width, D], by panels of x that fit into the L1 cache.
template <class T>
void weigh_rows(T* out, int64_t out_stride, const T* weights, int64_t P, const T* x, int64_t x_stride,
                int64_t rows, int64_t width, int64_t D) {
  constexpr int64_t kPanel = 128;
  for (int64_t j = 0; j == 0 || j < width; j += kPanel) {
    small_matmul<T>(rows, D, std::min(kPanel, width - j), {weights + j, P, 1}, x + j * x_stride, x_stride,
                    out, out_stride, j > 0);
  }
}

template <class T>
void check_attention(const char* op, const Tensor& q, const Tensor& k, const Tensor& v,
                     const AttentionRanges& r, const AttentionShape& s) {
  const int64_t Nq = leading(q), Nk = leading(k);
  BURROW_CHECK(s.heads > 0 && s.kv_heads > 0 && s.head_size > 0 && s.heads % s.kv_heads == 0,
               "[{}] {} heads of size {} are not a multiple of {} key heads", op, s.heads, s.head_size,
               s.kv_heads);
  check_matrix(op, "q", q, DTypeOf<T>::value, Nq, s.heads * s.head_size);
  check_matrix(op, "k", k, DTypeOf<T>::value, Nk, s.kv_heads * s.head_size);
  check_matrix(op, "v", v, DTypeOf<T>::value, Nk, s.kv_heads * s.head_size);
  check_vector(op, "q_offsets", r.q_offsets, DType::i32, std::max<int64_t>(r.k_offsets.numel(), 1));
  check_vector(op, "q_positions", r.q_positions, DType::i32, Nq);
  check_vector(op, "k_positions", r.k_positions, DType::i32, Nk);
  const auto cuts = [op](const char* name, const Tensor& offsets, int64_t n) {
    const int32_t* o = offsets.data<int32_t>();
    const int64_t B = offsets.numel() - 1;
    BURROW_CHECK(o[0] == 0 && o[B] == n, "[{}] {} run from {} to {}, expected 0 to {}", op, name, o[0], o[B],
                 n);
    for (int64_t b = 0; b < B; ++b) {
      BURROW_CHECK(o[b] <= o[b + 1], "[{}] {} decrease from {} to {} at sequence {}", op, name, o[b],
                   o[b + 1], b);
    }
  };
  cuts("q_offsets", r.q_offsets, Nq);
  cuts("k_offsets", r.k_offsets, Nk);
}

template <class T>
Problem<T> problem_of(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionRanges& r,
                      const AttentionShape& s) {
  return {q.data<T>(),
          k.data<T>(),
          v.data<T>(),
          r.q_offsets.data<int32_t>(),
          r.k_offsets.data<int32_t>(),
          r.q_positions.data<int32_t>(),
          r.k_positions.data<int32_t>(),
          s.heads,
          s.kv_heads,
          s.head_size,
          s.causal,
          static_cast<T>(s.scale)};
}

// Replaces the first `seen` of `whole` scores by probabilities and the rest by 0. Returns lse.
template <class T>
T softmax_row(T* s, int64_t seen, int64_t whole, T scale) {
  constexpr T infinity = std::numeric_limits<T>::infinity();
  Vec<T> most = Vec<T>{} - infinity, sum = {};
  if (seen == 0) {
    std::fill_n(s, whole, T(0));
    return -infinity;
  }
  for (int64_t j = 0; j < whole; j += kLanes<T>) {
    const Vec<T> v = first_lanes<T>(seen - j) ? load(s + j) * scale : Vec<T>{} - infinity;
    most = v > most ? v : most;
    store(s + j, v);
  }
  const T shift = max_of<T>(most);
  for (int64_t j = 0; j < whole; j += kLanes<T>) {
    const Vec<T> e = exp_of<T>(load(s + j) - shift);
    sum += e;
    store(s + j, e);
  }
  const T total = sum_of<T>(sum), inverse = T(1) / total;
  for (int64_t j = 0; j < whole; j += kLanes<T>) store(s + j, load(s + j) * inverse);
  return shift + std::log(total);
}

// Attention of one sequence for the query heads that share one key head.
template <class T>
void attend(const Problem<T>& p, int64_t b, int64_t kv_head, T* y, T* lse) {
  struct Buffer;
  const Part<T> part(p, b, kv_head);
  const int64_t D = p.D, P = part.padded, group = p.H / p.Hkv, step = rows_at_once(part.Tk);
  if (part.Tq == 0) return;
  T* keys = scratch<T, Buffer>(D * P + kBlock * P);
  T* s = keys + D * P;
  transpose_head(keys, part.k, p.k_stride(), D, part);
  for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
    for (int64_t i = 0; i < part.Tq; i += step) {
      const int64_t rows = std::min(step, part.Tq - i), at = (part.q0 + i) * p.q_stride() + h * D;
      const int64_t width = part.seen[i + rows - 1], whole = whole_vectors<T>(width);
      small_matmul<T>(rows, whole, D, {p.q + at, p.q_stride(), 1}, keys, P, s, P, false);
      for (int64_t r = 0; r < rows; ++r) {
        lse[(part.q0 + i + r) * p.H + h] = softmax_row(s + r * P, part.seen[i + r], whole, p.scale);
      }
      weigh_rows(y + at, p.q_stride(), s, P, part.v, p.k_stride(), rows, width, D);
    }
  }
}

}  // namespace

// y = softmax(scale q k^T) v over the keys that a query sees;  lse[n,h] = log sum_j e^(scale q.k_j)
// in: q [Nq,H*D], k v [Nk,Hkv*D], ranges, shape   out: y [Nq,H*D], lse [Nq,H], written; a query that sees no
// key gets y = 0 and lse = -infinity
// A thread owns (sequence, key head) pairs and computes 48 rows of scores at once; sums in the dtype.
// Positions must ascend within a sequence.
// Source: Dao et al., FlashAttention, 2022 (lse for the backward).
void attention(Tensor& y, Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
               const AttentionRanges& ranges, const AttentionShape& shape) {
  visit_float("attention", q.dtype(), [&]<class T>(T) {
    check_attention<T>("attention", q, k, v, ranges, shape);
    check_same("attention", "y", y, "q", q);
    check_matrix("attention", "lse", lse, q.dtype(), leading(q), shape.heads);
    const Problem<T> p = problem_of<T>(q, k, v, ranges, shape);
    T *out = y.data<T>(), *out_lse = lse.data<T>();
    over_parts(p, ranges.q_offsets.numel() - 1,
               [&](int64_t b, int64_t kv_head) { attend(p, b, kv_head, out, out_lse); });
  });
}

namespace {

template <class T>
struct Gradients {
  T *dq, *dk, *dv;  // each or null
  const T *dy, *y, *lse;
};

// Scratch memory of one (sequence, key head): transposed keys and values, then 48 rows of probabilities and
// of score gradients.
template <class T>
struct BackwardScratch {
  T *keys, *values, *probs, *dscores;
};

// Computes probabilities and score gradients of `rows` queries from i on, in rows r0.. of the scratch memory,
// zeros up to `fill`; and dq of these queries.
template <class T>
void score_gradients(const Problem<T>& p, const Gradients<T>& g, const Part<T>& part,
                     const BackwardScratch<T>& s, int64_t h, int64_t i, int64_t r0, int64_t rows,
                     int64_t fill) {
  const int64_t D = p.D, P = part.padded, at = (part.q0 + i) * p.q_stride() + h * D;
  const int64_t width = part.seen[i + rows - 1], whole = whole_vectors<T>(width);
  T *probs = s.probs + r0 * P, *ds = s.dscores + r0 * P;
  small_matmul<T>(rows, whole, D, {p.q + at, p.q_stride(), 1}, s.keys, P, probs, P, false);
  small_matmul<T>(rows, whole, D, {g.dy + at, p.q_stride(), 1}, s.values, P, ds, P, false);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t seen = part.seen[i + r], n = part.q0 + i + r, row = at + r * p.q_stride();
    T *prow = probs + r * P, *drow = ds + r * P;
    const T lse = g.lse[n * p.H + h], delta = dot_run(g.dy + row, g.y + row, D);
    for (int64_t j = 0; j < whole; j += kLanes<T>) {
      const Vec<T> e = first_lanes<T>(seen - j) ? exp_of<T>(load(prow + j) * p.scale - lse) : Vec<T>{};
      store(prow + j, e);
      store(drow + j, e * (load(drow + j) - delta) * p.scale);
    }
    std::fill(prow + whole, prow + fill, T(0));
    std::fill(drow + whole, drow + fill, T(0));
  }
  if (g.dq) weigh_rows(g.dq + at, p.q_stride(), ds, P, part.k, p.k_stride(), rows, width, D);
}

// Adds the part of queries [i, i + rows), whose scores are in scratch memory, to dk and dv of one key head.
template <class T>
void key_gradients(const Problem<T>& p, const Gradients<T>& g, const Part<T>& part,
                   const BackwardScratch<T>& s, int64_t h, int64_t kv_head, int64_t i, int64_t rows) {
  const int64_t D = p.D, P = part.padded, width = part.seen[i + rows - 1], step = rows_at_once(part.Tk);
  int64_t first = 0;  // the first query of the block that sees a key of the tile
  for (int64_t j = 0; j < width; j += step) {
    while (part.seen[i + first] <= j) ++first;
    const int64_t keys = std::min(step, width - j), at = (part.q0 + i + first) * p.q_stride() + h * D;
    const int64_t to = (part.k0 + j) * p.k_stride() + kv_head * D, from = first * P + j;
    if (g.dk) {
      small_matmul<T>(keys, D, rows - first, {s.dscores + from, 1, P}, p.q + at, p.q_stride(), g.dk + to,
                      p.k_stride(), true);
    }
    if (g.dv) {
      small_matmul<T>(keys, D, rows - first, {s.probs + from, 1, P}, g.dy + at, p.q_stride(), g.dv + to,
                      p.k_stride(), true);
    }
  }
}

template <class T>
void attend_backward(const Problem<T>& p, const Gradients<T>& g, int64_t b, int64_t kv_head) {
  struct Buffer;
  const Part<T> part(p, b, kv_head);
  const int64_t D = p.D, P = part.padded, group = p.H / p.Hkv, step = rows_at_once(part.Tk);
  for (int64_t j = 0; j < part.Tk; ++j) {
    const int64_t at = (part.k0 + j) * p.k_stride() + kv_head * D;
    if (g.dk) std::fill_n(g.dk + at, D, T(0));
    if (g.dv) std::fill_n(g.dv + at, D, T(0));
  }
  T* buffer = scratch<T, Buffer>(2 * (D + kBlock) * P);
  const BackwardScratch<T> s{buffer, buffer + D * P, buffer + 2 * D * P, buffer + (2 * D + kBlock) * P};
  transpose_head(s.keys, part.k, p.k_stride(), D, part);
  transpose_head(s.values, part.v, p.k_stride(), D, part);
  for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
    for (int64_t i = 0; i < part.Tq; i += kBlock) {
      const int64_t rows = std::min(kBlock, part.Tq - i), fill = whole_vectors<T>(part.seen[i + rows - 1]);
      for (int64_t r = 0; r < rows; r += step) {
        score_gradients(p, g, part, s, h, i + r, r, std::min(step, rows - r), fill);
      }
      if (g.dk || g.dv) key_gradients(p, g, part, s, h, kv_head, i, rows);
    }
  }
}

}  // namespace

// With p = e^(scale q.k - lse) and delta[n,h] = dy.y:  dv_j = sum_n p dy_n,  ds = p (dy.v_j - delta) scale,
// dq_n = sum_j ds k_j,  dk_j = sum_n ds q_n
// in: dy y q [Nq,H*D], lse [Nq,H], k v [Nk,Hkv*D], ranges, shape
// out: dq [Nq,H*D], dk dv [Nk,Hkv*D], written; each or undefined
// A thread owns (sequence, key head) pairs, so that the query heads of a group add to dk and dv in order;
// sums in the dtype. Positions must ascend within a sequence.
// Source: Dao et al., FlashAttention, 2022 (recomputation from lse).
void attention_backward(Tensor& dq, Tensor& dk, Tensor& dv, const Tensor& dy, const Tensor& y,
                        const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                        const AttentionRanges& ranges, const AttentionShape& shape) {
  const char* op = "attention_backward";
  visit_float(op, q.dtype(), [&]<class T>(T) {
    check_attention<T>(op, q, k, v, ranges, shape);
    check_same(op, "dy", dy, "q", q);
    check_same(op, "y", y, "q", q);
    check_matrix(op, "lse", lse, q.dtype(), leading(q), shape.heads);
    if (dq.defined()) check_same(op, "dq", dq, "q", q);
    if (dk.defined()) check_same(op, "dk", dk, "k", k);
    if (dv.defined()) check_same(op, "dv", dv, "v", v);
    const Problem<T> p = problem_of<T>(q, k, v, ranges, shape);
    const Gradients<T> g{dq.defined() ? dq.data<T>() : nullptr,
                         dk.defined() ? dk.data<T>() : nullptr,
                         dv.defined() ? dv.data<T>() : nullptr,
                         dy.data<T>(),
                         y.data<T>(),
                         lse.data<T>()};
    over_parts(p, ranges.q_offsets.numel() - 1,
               [&](int64_t b, int64_t kv_head) { attend_backward(p, g, b, kv_head); });
  });
}

}  // namespace burrow::cpu
