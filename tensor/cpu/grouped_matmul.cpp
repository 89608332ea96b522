// Products of each LoRA expert's matrices with the rows that chose it: the register tiles of thin.h, on rows
// sorted by expert. A thread owns rows, or columns of a sum over rows; products with wide sides use the
// library (kWide). A side is an expert's part of a or b.
#include "tensor/cpu/gemm.h"
#include "tensor/cpu/groups.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/thin.h"

namespace burrow::cpu {
namespace {

// Calls f(first, last) for each maximal run of experts with rows; other sides are not accessed.
template <class F>
void runs_of_experts(const Groups& g, F f) {
  for (int64_t e = 0, last = 0; e < g.experts; e = last + 1) {
    last = e;
    while (last < g.experts && g.offsets[last] < g.offsets[last + 1]) ++last;
    if (e < last) f(e, last);
  }
}

// b^T [E*R,O] of b [O,E*R], in scratch memory; there expert e's side is a range of rows.
template <class T>
const T* transposed(const Tensor& b, const Groups& g, int64_t R) {
  const int64_t O = leading(b), ER = channels(b);
  struct Turned;
  T* out = scratch<T, Turned>(ER * O);
  const T* in = b.data<T>();
  own_columns<T>(O, ER * O, [=](int64_t first, int64_t last) {
    runs_of_experts(g, [&](int64_t e, int64_t end) {
      transpose(out + e * R * O + first, O, in + first * ER + e * R, ER, last - first, (end - e) * R);
    });
  });
  return out;
}

// From this R on (experts that are blocks of an FFN, not LoRA) the rows that chose an expert are copied
// together and multiplied by the library. A thread owns columns of the result, so that it alone reads its
// part of the sides.
constexpr int64_t kWide = 64;

// The rows x[order[j]] of all M places, [M,C], in this thread's scratch memory.
template <class T>
const T* gathered(const T* x, const Groups& g, int64_t M, int64_t C) {
  struct Gathered;
  T* rows = scratch<T, Gathered>(M * C);
  parallel_rows(M, M * C, [=](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) std::copy_n(x + g.order[j] * C, C, rows + j * C);
  });
  return rows;
}

// Calls f(e, begin, end) for every expert with places [begin, end), not empty.
template <class F>
void each_busy(const Groups& g, F f) {
  for (int64_t e = 0; e < g.experts; ++e) {
    if (g.offsets[e] < g.offsets[e + 1]) f(e, int64_t{g.offsets[e]}, int64_t{g.offsets[e + 1]});
  }
}

// h[j] = x[order[j]] side_e^T
template <class T>
void wide_gather_nt(T* h, const T* x, const T* sides, const Groups& g, int64_t M, int64_t R, int64_t C) {
  const bool few = M <= kFewRows;
  const T* rows = few ? nullptr : gathered(x, g, M, C);
  own_columns<T>(R, M * R * C, [=](int64_t first, int64_t last) {
    each_busy(g, [&](int64_t e, int64_t begin, int64_t end) {
      const T* side = sides + (e * R + first) * C;
      if (few)
        dot_rows(h + first, x, side, g, begin, end, R, C, false, last - first);
      else
        gemm({h + begin * R + first, rows + begin * C, side, end - begin, last - first, C, false, true, false,
              R});
    });
  });
}

// y[order[j]] += h[j] side_e, in the order of the experts
template <class T>
void wide_scatter_nn(T* y, const T* h, const T* sides, const Groups& g, int64_t M, int64_t R, int64_t C) {
  own_columns<T>(C, M * R * C, [=](int64_t first, int64_t last) {
    struct Products;
    const int64_t width = last - first;
    each_busy(g, [&](int64_t e, int64_t begin, int64_t end) {
      T* products = scratch<T, Products>((end - begin) * width);
      gemm({products, h + begin * R, sides + e * R * C + first, end - begin, width, R, false, false, false,
            width, R, C});
      for (int64_t j = begin; j < end; ++j) {
        T* to = y + g.order[j] * C + first;
        for (int64_t c = 0; c < width; ++c) to[c] += products[(j - begin) * width + c];
      }
    });
  });
}

// side_e += sum_j h[j]^T x[order[j]]
template <class T>
void wide_gather_tn(T* sides, const T* h, const T* x, const Groups& g, int64_t M, int64_t R, int64_t C) {
  const T* rows = gathered(x, g, M, C);
  own_columns<T>(C, M * R * C, [=](int64_t first, int64_t last) {
    each_busy(g, [&](int64_t e, int64_t begin, int64_t end) {
      gemm({sides + e * R * C + first, h + begin * R, rows + begin * C + first, R, last - first, end - begin,
            true, false, true, C, R, C});
    });
  });
}

// h[j] = x[order[j]] side_e^T, with side_e [R,C] the expert's rows of a or, if `turned`, of b^T.
void gather_products(const char* op, Tensor& h, const Tensor& x, const Tensor& sides,
                     const ExpertGroups& groups, bool turned) {
  const int64_t N = leading(x), C = channels(x), M = groups.order.numel();
  const Groups g = checked(op, groups, N);
  const int64_t R = rank_of(op, h, g.experts, M, turned ? channels(sides) : leading(sides));
  check_matrix(op, turned ? "b" : "a", sides, x.dtype(), turned ? C : g.experts * R,
               turned ? g.experts * R : C);
  check_matrix(op, "h", h, x.dtype(), M, R);
  visit_float(op, x.dtype(), [&]<class T>(T) {
    const T *in = x.data<T>(), *rows = turned ? transposed<T>(sides, g, R) : sides.data<T>();
    T* out = h.data<T>();
    if (R >= kWide) return wide_gather_nt(out, in, rows, g, M, R, C);
    parallel_rows(N, M * R * C, [=](int64_t first, int64_t last) {
      rows_of(g, first, last, [&](int64_t e, int64_t begin, int64_t end) {
        dot_rows(out, in, rows + e * R * C, g, begin, end, R, C);
      });
    });
  });
}

// y[order[j]] += h[j] side_e, in the order of the experts; sides as above.
void scatter_products(const char* op, Tensor& y, const Tensor& h, const Tensor& sides,
                      const ExpertGroups& groups, bool turned) {
  const int64_t N = leading(y), C = channels(y), M = groups.order.numel();
  const Groups g = checked(op, groups, N);
  const int64_t R = rank_of(op, h, g.experts, M, turned ? channels(sides) : leading(sides));
  check_matrix(op, turned ? "b" : "a", sides, h.dtype(), turned ? C : g.experts * R,
               turned ? g.experts * R : C);
  check_matrix(op, turned ? "y" : "x", y, h.dtype(), N, C);
  visit_float(op, h.dtype(), [&]<class T>(T) {
    const T *in = h.data<T>(), *rows = turned ? transposed<T>(sides, g, R) : sides.data<T>();
    T* out = y.data<T>();
    if (R >= kWide) return wide_scatter_nn(out, in, rows, g, M, R, C);
    parallel_rows(N, M * R * C, [=](int64_t first, int64_t last) {
      rows_of(g, first, last, [&](int64_t e, int64_t begin, int64_t end) {
        add_to_rows(out, g, out, g, in, rows + e * R * C, begin, end, R, C);
      });
    });
  });
}

}  // namespace

// h[j] = x[order[j]] a_e^T, e the expert of place j
// in: x [N,C], a [E*R,C]   out: h [M,R], written
// A thread owns rows of x; tiles of 4 rows by 4 ranks, sums in the dtype. For R >= kWide the library.
void gather_matmul_nt(Tensor& h, const Tensor& x, const Tensor& a, const ExpertGroups& groups) {
  gather_products("gather_matmul_nt", h, x, a, groups, false);
}

// h[j] = y[order[j]] b_e, e the expert of place j
// in: y [N,O], b [O,E*R]   out: h [M,R], written
// A thread owns rows of y; b is transposed first, for the experts that have rows.
void gather_matmul_nn(Tensor& h, const Tensor& y, const Tensor& b, const ExpertGroups& groups) {
  gather_products("gather_matmul_nn", h, y, b, groups, true);
}

// y[order[j]] += h[j] b_e^T, e the expert of place j, in the order of the experts
// in: h [M,R], b [O,E*R]   out: y [N,O], added to
// A thread owns rows of y; b is transposed first, for the experts that have rows.
void scatter_matmul_nt(Tensor& y, const Tensor& h, const Tensor& b, const ExpertGroups& groups) {
  scatter_products("scatter_matmul_nt", y, h, b, groups, true);
}

// z[j] = y[order[j]] + h[j] b_e^T, e the expert of place j
// in: y [N,O], h [M,R], b [O,E*R]   out: z [M,O], written
// A thread owns places, or columns for wide sides; b is transposed first, for the experts that have rows.
void spread_matmul_nt(Tensor& z, const Tensor& y, const Tensor& h, const Tensor& b,
                      const ExpertGroups& groups) {
  const char* op = "spread_matmul_nt";
  const int64_t N = leading(y), C = channels(y), M = groups.order.numel();
  const Groups g = checked(op, groups, N);
  const int64_t R = rank_of(op, h, g.experts, M, channels(b));
  check_matrix(op, "b", b, h.dtype(), C, g.experts * R);
  check_matrix(op, "y", y, h.dtype(), N, C);
  check_matrix(op, "z", z, h.dtype(), M, C);
  visit_float(op, h.dtype(), [&]<class T>(T) {
    const T *in = h.data<T>(), *base = y.data<T>(), *rows = transposed<T>(b, g, R);
    T* out = z.data<T>();
    if (R >= kWide) {
      return own_columns<T>(C, M * R * C, [=](int64_t first, int64_t last) {
        for (int64_t j = 0; j < M; ++j)
          std::copy_n(base + g.order[j] * C + first, last - first, out + j * C + first);
        each_busy(g, [&](int64_t e, int64_t begin, int64_t end) {
          gemm({out + begin * C + first, in + begin * R, rows + e * R * C + first, end - begin, last - first,
                R, false, false, true, C, R, C});
        });
      });
    }
    parallel_rows(M, M * R * C, [=](int64_t first, int64_t last) {
      each_busy(g, [&](int64_t e, int64_t begin, int64_t end) {
        const int64_t low = std::max(begin, first), high = std::min(end, last);
        if (low < high)
          add_to_rows(
              out, [](int64_t j) { return j; }, base, g, in, rows + e * R * C, low, high, R, C);
      });
    });
  });
}

// x[order[j]] += h[j] a_e, e the expert of place j, in the order of the experts
// in: h [M,R], a [E*R,C]   out: x [N,C], added to
// A thread owns rows of x; tiles of 4 rows by 4 vectors, sums in the dtype. For R >= kWide the library.
void scatter_matmul_nn(Tensor& x, const Tensor& h, const Tensor& a, const ExpertGroups& groups) {
  scatter_products("scatter_matmul_nn", x, h, a, groups, false);
}

// a_e += sum over e's places j of h[j]^T x[order[j]]: the gradient of a
// in: h [M,R], x [N,C]   out: a [E*R,C], added to
// A thread owns columns; tiles of 4 ranks by 4 vectors, sums in the dtype, by ascending j. Wide: see kWide.
void gather_matmul_tn_a(Tensor& a, const Tensor& h, const Tensor& x, const ExpertGroups& groups) {
  const char* op = "gather_matmul_tn_a";
  const int64_t N = leading(x), C = channels(x), M = groups.order.numel();
  const Groups g = checked(op, groups, N);
  const int64_t R = rank_of(op, h, g.experts, M, leading(a));
  check_matrix(op, "a", a, h.dtype(), g.experts * R, C);
  check_matrix(op, "x", x, h.dtype(), N, C);
  visit_float(op, h.dtype(), [&]<class T>(T) {
    const T *in = h.data<T>(), *rows = x.data<T>();
    T* out = a.data<T>();
    if (R >= kWide) return wide_gather_tn(out, in, rows, g, M, R, C);
    own_columns<T>(C, M * R * C, [=](int64_t first, int64_t last) {
      for (int64_t e = 0; e < g.experts; ++e) {
        if (g.offsets[e] == g.offsets[e + 1]) continue;
        sum_over_rows(out + e * R * C, in, rows, g, g.offsets[e], g.offsets[e + 1], R, C, first, last, true);
      }
    });
  });
}

// b_e += sum over e's places j of y[order[j]]^T h[j]: the gradient of b
// in: y [N,O], h [M,R]   out: b [O,E*R], added to
// A thread owns rows of b; it sums b^T as above, in the dtype, then adds the transpose.
void gather_matmul_tn_b(Tensor& b, const Tensor& y, const Tensor& h, const ExpertGroups& groups) {
  const char* op = "gather_matmul_tn_b";
  const int64_t N = leading(y), O = channels(y), M = groups.order.numel(), ER = channels(b);
  const Groups g = checked(op, groups, N);
  const int64_t R = rank_of(op, h, g.experts, M, ER);
  check_matrix(op, "b", b, h.dtype(), O, ER);
  check_matrix(op, "y", y, h.dtype(), N, O);
  visit_float(op, h.dtype(), [&]<class T>(T) {
    const T *in = h.data<T>(), *rows = y.data<T>();
    T* out = b.data<T>();
    struct Sums;
    T* sums = scratch<T, Sums>(ER * O);
    own_columns<T>(O, M * R * O, [=](int64_t first, int64_t last) {
      struct Turned;
      const int64_t width = last - first;
      runs_of_experts(g, [&](int64_t begin, int64_t end) {
        for (int64_t e = begin; e < end; ++e) {
          sum_over_rows(sums + e * R * O, in, rows, g, g.offsets[e], g.offsets[e + 1], R, O, first, last,
                        false);
        }
        const int64_t side = (end - begin) * R;
        T* turned = scratch<T, Turned>(width * side);
        transpose(turned, side, sums + begin * R * O + first, O, side, width);
        for (int64_t o = 0; o < width; ++o) {
          T* to = out + (first + o) * ER + begin * R;
#pragma omp simd
          for (int64_t k = 0; k < side; ++k) to[k] += turned[o * side + k];
        }
      });
    });
  });
}

}  // namespace burrow::cpu
