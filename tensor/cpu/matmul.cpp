// The matrix products of the kernel list, and the library's product behind gemm.h (oneDNN or Eigen). A thread
// owns rows (tokens) and calls the library or, for thin sides, the tiles of thin.h; matmul_tn is divided by
// the library.
#include <Eigen/Core>

#ifdef BURROW_ONEDNN
#include <dnnl.h>
#endif

#include "tensor/checks.h"
#include "tensor/cpu/gemm.h"
#include "tensor/cpu/thin.h"
#include "tensor/kernels.h"

namespace burrow::cpu {
namespace {

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
void eigen_gemm(const Gemm<T>& g) {
  using Stride = Eigen::OuterStride<>;
  Eigen::Map<Matrix<T>, 0, Stride> c(g.c, g.M, g.N, Stride(g.c_stride));
  const auto product = [&](const auto& a, const auto& b) {
    if (g.add)
      c.noalias() += a * b;
    else
      c.noalias() = a * b;
  };
  const Eigen::Map<const Matrix<T>, 0, Stride> a(g.a, g.a_transposed ? g.K : g.M, g.a_transposed ? g.M : g.K,
                                                 Stride(g.a_stride));
  const Eigen::Map<const Matrix<T>, 0, Stride> b(g.b, g.b_transposed ? g.N : g.K, g.b_transposed ? g.K : g.N,
                                                 Stride(g.b_stride));
  if (g.a_transposed)
    product(a.transpose(), b);
  else if (g.b_transposed)
    product(a, b.transpose());
  else
    product(a, b);
}

// The product by oneDNN in f32, which measured faster than Eigen at every size that is not thin (below), else
// by Eigen; tests/bench/bench_kernels.cpp prints the times.
template <class T>
void library_gemm(Gemm<T> g) {
  if (g.M == 0 || g.N == 0) return;
  if (g.c_stride == 0) g.c_stride = g.N;
  if (g.a_stride == 0) g.a_stride = g.a_transposed ? g.M : g.K;
  if (g.b_stride == 0) g.b_stride = g.b_transposed ? g.K : g.N;
  if (g.K == 0) {
    for (int64_t m = 0; m < g.M && !g.add; ++m) std::fill_n(g.c + m * g.c_stride, g.N, T(0));
    return;
  }
#ifdef BURROW_ONEDNN
  if constexpr (std::is_same_v<T, float>) {
    const dnnl_status_t status =
        dnnl_sgemm(g.a_transposed ? 'T' : 'N', g.b_transposed ? 'T' : 'N', g.M, g.N, g.K, 1.0f, g.a,
                   g.a_stride, g.b, g.b_stride, g.add ? 1.0f : 0.0f, g.c, g.c_stride);
    BURROW_CHECK(status == dnnl_success, "[matmul] oneDNN refused sizes {}, {}, {}: status {}", g.M, g.N, g.K,
                 static_cast<int>(status));
    return;
  }
#endif
  eigen_gemm(g);
}

// y[n,o] += bias[o] for the rows [begin, end) and columns [first, last) of y[N,O], while they are in the
// cache of the thread that computed them; does nothing if bias is null.
template <class T>
void add_bias(T* y, const T* bias, int64_t begin, int64_t end, int64_t O, int64_t first, int64_t last) {
  for (int64_t n = begin; bias && n < end; ++n) {
#pragma omp simd
    for (int64_t o = first; o < last; ++o) y[n * O + o] += bias[o];
  }
}

// c[M,N] = (or +=) a[M,K] op(b) + bias[N], for rows that are tokens: a thread owns the same rows as in
// row-wise kernels, which then find them in its cache, and the library runs on that one thread.
template <class T>
void gemm_by_rows(const Gemm<T>& g, const T* bias = nullptr) {
  parallel_rows(g.M, g.M * g.N * g.K, [&g, bias](int64_t begin, int64_t end) {
    library_gemm<T>(
        {g.c + begin * g.N, g.a + begin * g.K, g.b, end - begin, g.N, g.K, false, g.b_transposed, g.add});
    add_bias(g.c, bias, begin, end, g.N, 0, g.N);
  });
}

// The elements of a weight, which may be bf16, as T; a copy in scratch memory if converted.
template <class T>
const T* converted(const Tensor& w) {
  if (w.dtype() != DType::bf16) return w.data<T>();
  struct Converted;
  T* out = scratch<T, Converted>(w.numel());
  const bf16* in = w.data<bf16>();
  parallel_rows(w.numel(), w.numel(), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<T>(static_cast<float>(in[i]));
  });
  return out;
}

// Up to this many columns of a LoRA factor, thin.h is faster than a library that packs its operands.
constexpr int64_t kThin = 8;

// The transpose [N,M] of from [M,N], in this thread's scratch memory.
template <class T>
const T* turned(const T* from, int64_t M, int64_t N) {
  struct Turned;
  T* to = scratch<T, Turned>(M * N);
  transpose(to, M, from, N, M, N);
  return to;
}

// h[N,R] = x[N,C] side[R,C]^T + bias[R], or +=
template <class T>
void shrink(T* h, const T* x, const T* side, int64_t N, int64_t R, int64_t C, bool add,
            const T* bias = nullptr) {
  parallel_rows(N, N * R * C, [=](int64_t begin, int64_t end) {
    dot_rows(h, x, side, EveryRow{}, begin, end, R, C, add);
    add_bias(h, bias, begin, end, R, 0, R);
  });
}

// shrink() for few rows and any R: a thread owns columns of h, so that each row of the LoRA factor `side` is
// read by one thread alone.
template <class T>
void shrink_few(T* h, const T* x, const T* side, int64_t N, int64_t R, int64_t C, bool add, const T* bias) {
  own_columns<T>(R, N * R * C, [=](int64_t first, int64_t last) {
    dot_rows(h + first, x, side + first * C, EveryRow{}, 0, N, R, C, add, last - first);
    add_bias(h, bias, 0, N, R, first, last);
  });
}

// y[N,C] = h[N,R] side[R,C] + bias[C], or +=
template <class T>
void expand(T* y, const T* h, const T* side, int64_t N, int64_t R, int64_t C, bool add,
            const T* bias = nullptr) {
  parallel_rows(N, N * R * C, [=](int64_t begin, int64_t end) {
    if (!add) std::fill(y + begin * C, y + end * C, T(0));
    add_to_rows(y, EveryRow{}, y, EveryRow{}, h, side, begin, end, R, C);
    add_bias(y, bias, begin, end, C, 0, C);
  });
}

// side[R,C] = (or +=) h[N,R]^T x[N,C]; if `transposed`, side[C,R] is the transpose
template <class T>
void sum_outer(T* side, const T* h, const T* x, int64_t N, int64_t R, int64_t C, bool add, bool transposed) {
  struct Sums;
  T* sums = transposed ? scratch<T, Sums>(R * C) : side;
  own_columns<T>(C, N * R * C, [=](int64_t first, int64_t last) {
    sum_over_rows(sums, h, x, EveryRow{}, 0, N, R, C, first, last, add && !transposed);
    for (int64_t c = first; transposed && c < last; ++c) {
      for (int64_t r = 0; r < R; ++r) side[c * R + r] = (add ? side[c * R + r] : T(0)) + sums[r * C + c];
    }
  });
}

}  // namespace

void gemm(Gemm<float> g) { library_gemm(g); }
void gemm(Gemm<double> g) { library_gemm(g); }

// y[N,O] = x[N,C] w[O,C]^T + bias[O], or y += with `accumulate`
// in: x [N,C], w [O,C] of x's dtype or bf16, bias [O] or undefined   out: y [N,O]
// A thread owns rows of y and calls the library for them, or the tiles of thin.h (of few rows, columns of y),
// and adds the bias to what it has made; sums in the dtype.
void matmul_nt(Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias, bool accumulate) {
  const int64_t N = leading(x), C = channels(x), O = leading(w);
  BURROW_CHECK(channels(w) == C, "[matmul_nt] x {} and w {}: inner sizes {} and {} differ", x.shape(),
               w.shape(), C, channels(w));
  BURROW_CHECK(w.dtype() == x.dtype() || w.dtype() == DType::bf16, "[matmul_nt] x is {} and w {}", x.dtype(),
               w.dtype());
  check_matrix("matmul_nt", "y", y, x.dtype(), N, O);
  if (bias.defined()) check_vector("matmul_nt", "bias", bias, x.dtype(), O);
  visit_float("matmul_nt", x.dtype(), [&]<class T>(T) {
    const T *in = x.data<T>(), *side = converted<T>(w);
    const T* added = bias.defined() ? bias.data<T>() : nullptr;
    if (O <= kThin) return shrink(y.data<T>(), in, side, N, O, C, accumulate, added);
    if (C <= kThin) return expand(y.data<T>(), in, turned(side, O, C), N, C, O, accumulate, added);
    if (N <= kFewRows) return shrink_few(y.data<T>(), in, side, N, O, C, accumulate, added);
    gemm_by_rows<T>({y.data<T>(), in, side, N, O, C, false, true, accumulate}, added);
  });
}

// y[N,C] = x[N,O] w[O,C], or y += with `accumulate`
// in: x [N,O], w [O,C] of x's dtype or bf16   out: y [N,C]
// A thread owns rows of y and calls the library for them, or the tiles of thin.h; sums in the dtype.
void matmul_nn(Tensor& y, const Tensor& x, const Tensor& w, bool accumulate) {
  const int64_t N = leading(x), O = channels(x), C = channels(w);
  BURROW_CHECK(leading(w) == O, "[matmul_nn] x {} and w {}: inner sizes {} and {} differ", x.shape(),
               w.shape(), O, leading(w));
  BURROW_CHECK(w.dtype() == x.dtype() || w.dtype() == DType::bf16, "[matmul_nn] x is {} and w {}", x.dtype(),
               w.dtype());
  check_matrix("matmul_nn", "y", y, x.dtype(), N, C);
  visit_float("matmul_nn", x.dtype(), [&]<class T>(T) {
    const T *in = x.data<T>(), *side = converted<T>(w);
    if (C <= kThin) return shrink(y.data<T>(), in, turned(side, O, C), N, C, O, accumulate);
    if (O <= kThin) return expand(y.data<T>(), in, side, N, O, C, accumulate);
    gemm_by_rows<T>({y.data<T>(), in, side, N, C, O, false, false, accumulate});
  });
}

// y[O,C] = a[N,O]^T b[N,C], or y += with `accumulate`: the gradient of a weight
// in: a [N,O], b [N,C]   out: y [O,C]
// The library assigns blocks of y to its threads; if y is thin, a thread owns columns. Sums in the dtype.
void matmul_tn(Tensor& y, const Tensor& a, const Tensor& b, bool accumulate) {
  const int64_t N = leading(a), O = channels(a), C = channels(b);
  BURROW_CHECK(leading(b) == N, "[matmul_tn] a {} and b {}: inner sizes {} and {} differ", a.shape(),
               b.shape(), N, leading(b));
  BURROW_CHECK(a.dtype() == b.dtype(), "[matmul_tn] a is {} and b {}", a.dtype(), b.dtype());
  check_matrix("matmul_tn", "y", y, a.dtype(), O, C);
  visit_float("matmul_tn", a.dtype(), [&]<class T>(T) {
    const T *left = a.data<T>(), *right = b.data<T>();
    if (O <= kThin) return sum_outer(y.data<T>(), left, right, N, O, C, accumulate, false);
    if (C <= kThin) return sum_outer(y.data<T>(), right, left, N, C, O, accumulate, true);
    library_gemm<T>({y.data<T>(), left, right, O, C, N, true, false, accumulate});
  });
}

}  // namespace burrow::cpu
