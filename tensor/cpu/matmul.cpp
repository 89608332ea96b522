#include <Eigen/Core>

#ifdef BURROW_ONEDNN
#include <dnnl.h>
#endif

#include "tensor/cpu/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/kernels.h"

namespace burrow::cpu {
namespace {

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// One problem: c[M,N] (+)= op(a) op(b) with inner size K, all row-major; op transposes where its flag says.
template <class T>
struct Gemm {
  T* c;
  const T *a, *b;
  int64_t M, N, K;
  bool a_transposed, b_transposed, add;
};

template <class T>
void eigen_gemm(const Gemm<T>& g) {
  Eigen::Map<Matrix<T>> c(g.c, g.M, g.N);
  const auto product = [&](const auto& a, const auto& b) {
    if (g.add)
      c.noalias() += a * b;
    else
      c.noalias() = a * b;
  };
  const Eigen::Map<const Matrix<T>> a(g.a, g.a_transposed ? g.K : g.M, g.a_transposed ? g.M : g.K);
  const Eigen::Map<const Matrix<T>> b(g.b, g.b_transposed ? g.N : g.K, g.b_transposed ? g.K : g.N);
  if (g.a_transposed)
    product(a.transpose(), b);
  else if (g.b_transposed)
    product(a, b.transpose());
  else
    product(a, b);
}

// oneDNN's product is the faster one in f32 at every size that was measured, LoRA's thin sides of 2 to 24
// columns included; tests/bench_kernels.cpp prints them.
template <class T>
void gemm(const Gemm<T>& g) {
  if (g.M == 0 || g.N == 0) return;
  if (g.K == 0) {
    if (!g.add) std::fill_n(g.c, g.M * g.N, T(0));
    return;
  }
#ifdef BURROW_ONEDNN
  if constexpr (std::is_same_v<T, float>) {
    const dnnl_status_t status = dnnl_sgemm(g.a_transposed ? 'T' : 'N', g.b_transposed ? 'T' : 'N', g.M, g.N,
                                            g.K, 1.0f, g.a, g.a_transposed ? g.M : g.K, g.b,
                                            g.b_transposed ? g.K : g.N, g.add ? 1.0f : 0.0f, g.c, g.N);
    BURROW_CHECK(status == dnnl_success, "[matmul] oneDNN refused sizes {}, {}, {}: status {}", g.M, g.N, g.K,
                 static_cast<int>(status));
    return;
  }
#endif
  eigen_gemm(g);
}

// As gemm, for a product whose rows are tokens: a thread owns the rows that the row kernels give it, so that
// they find its part of c in its own cache, and the library runs on one thread within. c[M,N] = a[M,K] op(b).
template <class T>
void gemm_by_rows(const Gemm<T>& g) {
  parallel_rows(g.M, g.M * g.N * g.K, [&g](int64_t begin, int64_t end) {
    gemm<T>({g.c + begin * g.N, g.a + begin * g.K, g.b, end - begin, g.N, g.K, false, g.b_transposed, g.add});
  });
}

// The elements of a frozen weight in the dtype of the computation.
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

}  // namespace

// y[N,O] = x[N,C] w[O,C]^T, or y += with `accumulate`
// in: x [N,C], w [O,C] of x's dtype or bf16   out: y [N,O]
// A thread owns rows of y and calls the library for them; sums in the dtype.
void matmul_nt(Tensor& y, const Tensor& x, const Tensor& w, bool accumulate) {
  const int64_t N = leading(x), C = channels(x), O = leading(w);
  BURROW_CHECK(channels(w) == C, "[matmul_nt] x {} and w {}: inner sizes {} and {} differ", x.shape(),
               w.shape(), C, channels(w));
  BURROW_CHECK(w.dtype() == x.dtype() || w.dtype() == DType::bf16, "[matmul_nt] x is {} and w {}", x.dtype(),
               w.dtype());
  check_matrix("matmul_nt", "y", y, x.dtype(), N, O);
  visit_float("matmul_nt", x.dtype(), [&]<class T>(T) {
    gemm_by_rows<T>({y.data<T>(), x.data<T>(), converted<T>(w), N, O, C, false, true, accumulate});
  });
}

// y[N,C] = x[N,O] w[O,C], or y += with `accumulate`
// in: x [N,O], w [O,C] of x's dtype or bf16   out: y [N,C]
// A thread owns rows of y and calls the library for them; sums in the dtype.
void matmul_nn(Tensor& y, const Tensor& x, const Tensor& w, bool accumulate) {
  const int64_t N = leading(x), O = channels(x), C = channels(w);
  BURROW_CHECK(leading(w) == O, "[matmul_nn] x {} and w {}: inner sizes {} and {} differ", x.shape(),
               w.shape(), O, leading(w));
  BURROW_CHECK(w.dtype() == x.dtype() || w.dtype() == DType::bf16, "[matmul_nn] x is {} and w {}", x.dtype(),
               w.dtype());
  check_matrix("matmul_nn", "y", y, x.dtype(), N, C);
  visit_float("matmul_nn", x.dtype(), [&]<class T>(T) {
    gemm_by_rows<T>({y.data<T>(), x.data<T>(), converted<T>(w), N, C, O, false, false, accumulate});
  });
}

// y[O,C] = a[N,O]^T b[N,C], or y += with `accumulate`: the gradient of a weight
// in: a [N,O], b [N,C]   out: y [O,C]
// The library shares out blocks of y among its threads; sums in the dtype.
void matmul_tn(Tensor& y, const Tensor& a, const Tensor& b, bool accumulate) {
  const int64_t N = leading(a), O = channels(a), C = channels(b);
  BURROW_CHECK(leading(b) == N, "[matmul_tn] a {} and b {}: inner sizes {} and {} differ", a.shape(),
               b.shape(), N, leading(b));
  BURROW_CHECK(a.dtype() == b.dtype(), "[matmul_tn] a is {} and b {}", a.dtype(), b.dtype());
  check_matrix("matmul_tn", "y", y, a.dtype(), O, C);
  visit_float("matmul_tn", a.dtype(), [&]<class T>(T) {
    gemm<T>({y.data<T>(), a.data<T>(), b.data<T>(), O, C, N, true, false, accumulate});
  });
}

}  // namespace burrow::cpu
