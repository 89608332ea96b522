// RMSNorm (with or without a residual addition) and LayerNorm, forward and backward.
// A thread owns rows; for gradients of weights it owns channels.
#include <cmath>

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vec.h"
#include "tensor/kernels.h"

namespace burrow::cpu {

// y[n,c] = s[n,c] rstd[n] w[c],  rstd[n] = 1 / sqrt(mean_c s[n,c]^2 + eps),  s = x, or x + added
// in: x [N,C], w [C], added [N,C] or undefined   out: y [N,C], rstd [N] (kept for backward), written
// sum [N,C] (s), written if `added` is defined; sum may be x
// A thread owns rows; sums in the dtype.
// Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
void rms_norm(Tensor& y, Tensor& rstd, Tensor& sum, const Tensor& x, const Tensor& added, const Tensor& w,
              double eps) {
  const int64_t C = channels(x), N = leading(x);
  check_residual("rms_norm", sum, x, added);
  check_same("rms_norm", "y", y, "x", x);
  check_vector("rms_norm", "w", w, x.dtype(), C);
  check_vector("rms_norm", "rstd", rstd, x.dtype(), N);
  visit_float("rms_norm", x.dtype(), [&]<class T>(T) {
    const T *in = x.data<T>(), *weight = w.data<T>(), *more = added.defined() ? added.data<T>() : nullptr;
    T *out = y.data<T>(), *scale = rstd.data<T>(), *both = more ? sum.data<T>() : nullptr;
    parallel_rows(N, 3 * N * C, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        for (int64_t c = n * C; more && c < (n + 1) * C; ++c) both[c] = in[c] + more[c];
        const T* row = (more ? both : in) + n * C;
        const T r = T(1) / std::sqrt(dot_run(row, row, C) / static_cast<T>(C) + static_cast<T>(eps));
        scale[n] = r;
        for (int64_t c = 0; c < C; ++c) out[n * C + c] = row[c] * r * weight[c];
      }
    });
  });
}

namespace {

// dw[c] += sum_n dy[n,c] (x[n,c] - mean[n]) rstd[n];  db[c] += sum_n dy[n,c]. mean, dw and db may be null.
// A thread owns channels and adds the rows in order, so that sums do not depend on the number of threads.
template <class T>
void norm_weight_gradients(T* dw, T* db, const T* dy, const T* x, const T* mean, const T* rstd, int64_t N,
                           int64_t C) {
  if (!dw && !db) return;
  parallel_rows(C, 3 * N * C, [=](int64_t begin, int64_t end) {
    struct Sums;
    const int64_t width = end - begin;
    T* sw = scratch<T, Sums>(2 * width);
    T* sb = sw + width;
    std::fill_n(sw, 2 * width, T(0));
    for (int64_t n = 0; n < N; ++n) {
      const T r = rstd[n], m = mean ? mean[n] : T(0);
      const T *g = dy + n * C + begin, *row = x + n * C + begin;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) {
        sw[c] += g[c] * ((row[c] - m) * r);
        sb[c] += g[c];
      }
    }
    for (int64_t c = 0; dw && c < width; ++c) dw[begin + c] += sw[c];
    for (int64_t c = 0; db && c < width; ++c) db[begin + c] += sb[c];
  });
}

}  // namespace

// dx = rstd (g - xhat mean_c(g xhat)) + dsum,  dw[c] += sum_n dy xhat,  with xhat = x rstd and g = dy w
// in: dy x [N,C], w [C], rstd [N], dsum [N,C] or undefined (0)
// out: dx [N,C] written, dw [C] added to; each or undefined
// A thread owns rows for dx and channels for dw; sums in the dtype.
void rms_norm_backward(Tensor& dx, Tensor& dw, const Tensor& dy, const Tensor& dsum, const Tensor& x,
                       const Tensor& w, const Tensor& rstd) {
  const char* op = "rms_norm_backward";
  const int64_t C = channels(x), N = leading(x);
  if (dsum.defined()) check_same(op, "dsum", dsum, "x", x);
  check_same(op, "dy", dy, "x", x);
  check_vector(op, "w", w, x.dtype(), C);
  check_vector(op, "rstd", rstd, x.dtype(), N);
  if (dx.defined()) check_same(op, "dx", dx, "x", x);
  if (dw.defined()) check_vector(op, "dw", dw, x.dtype(), C);
  visit_float(op, x.dtype(), [&]<class T>(T) {
    const T *in = x.data<T>(), *weight = w.data<T>(), *g = dy.data<T>(), *r = rstd.data<T>();
    if (dw.defined()) norm_weight_gradients<T>(dw.data<T>(), nullptr, g, in, nullptr, r, N, C);
    if (!dx.defined()) return;
    T* out = dx.data<T>();
    const T* more = dsum.defined() ? dsum.data<T>() : nullptr;
    parallel_rows(N, 4 * N * C, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T *row = in + n * C, *grow = g + n * C;
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < C; ++c) sum += grow[c] * weight[c] * row[c];
        const T slope = sum * r[n] * r[n] / static_cast<T>(C);
        for (int64_t c = 0; c < C; ++c) out[n * C + c] = r[n] * (grow[c] * weight[c] - row[c] * slope);
        for (int64_t c = n * C; more && c < (n + 1) * C; ++c) out[c] += more[c];
      }
    });
  });
}

// y[n,c] = (x[n,c] - mean[n]) rstd[n] w[c] + b[c],  rstd[n] = 1 / sqrt(mean_c (x - mean)^2 + eps)
// in: x [N,C], w b [C]   out: y [N,C], mean rstd [N] (kept for backward), written
// A thread owns rows; two passes, sums in the dtype.
// Source: Ba, Kiros and Hinton, Layer Normalization, 2016.
void layer_norm(Tensor& y, Tensor& mean, Tensor& rstd, const Tensor& x, const Tensor& w, const Tensor& b,
                double eps) {
  const int64_t C = channels(x), N = leading(x);
  check_same("layer_norm", "y", y, "x", x);
  check_vector("layer_norm", "w", w, x.dtype(), C);
  check_vector("layer_norm", "b", b, x.dtype(), C);
  check_vector("layer_norm", "mean", mean, x.dtype(), N);
  check_vector("layer_norm", "rstd", rstd, x.dtype(), N);
  visit_float("layer_norm", x.dtype(), [&]<class T>(T) {
    const T *in = x.data<T>(), *weight = w.data<T>(), *bias = b.data<T>();
    T *out = y.data<T>(), *means = mean.data<T>(), *scale = rstd.data<T>();
    parallel_rows(N, 5 * N * C, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T* row = in + n * C;
        const T m = sum_run(row, C) / static_cast<T>(C);
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < C; ++c) sum += (row[c] - m) * (row[c] - m);
        const T r = T(1) / std::sqrt(sum / static_cast<T>(C) + static_cast<T>(eps));
        means[n] = m;
        scale[n] = r;
        for (int64_t c = 0; c < C; ++c) out[n * C + c] = (row[c] - m) * r * weight[c] + bias[c];
      }
    });
  });
}

// dx = rstd (g - mean_c(g) - xhat mean_c(g xhat)),  dw[c] += sum_n dy xhat,  db[c] += sum_n dy,
// with xhat = (x - mean) rstd and g = dy w
// in: dy x [N,C], w [C], mean rstd [N]   out: dx [N,C] written, dw db [C] added to; each or undefined
// A thread owns rows for dx and channels for dw and db; sums in the dtype.
void layer_norm_backward(Tensor& dx, Tensor& dw, Tensor& db, const Tensor& dy, const Tensor& x,
                         const Tensor& w, const Tensor& mean, const Tensor& rstd) {
  const char* op = "layer_norm_backward";
  const int64_t C = channels(x), N = leading(x);
  check_same(op, "dy", dy, "x", x);
  check_vector(op, "w", w, x.dtype(), C);
  check_vector(op, "mean", mean, x.dtype(), N);
  check_vector(op, "rstd", rstd, x.dtype(), N);
  if (dx.defined()) check_same(op, "dx", dx, "x", x);
  if (dw.defined()) check_vector(op, "dw", dw, x.dtype(), C);
  if (db.defined()) check_vector(op, "db", db, x.dtype(), C);
  visit_float(op, x.dtype(), [&]<class T>(T) {
    const T *in = x.data<T>(), *weight = w.data<T>(), *g = dy.data<T>(), *m = mean.data<T>(),
            *r = rstd.data<T>();
    norm_weight_gradients<T>(dw.defined() ? dw.data<T>() : nullptr, db.defined() ? db.data<T>() : nullptr, g,
                             in, m, r, N, C);
    if (!dx.defined()) return;
    T* out = dx.data<T>();
    parallel_rows(N, 6 * N * C, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T *row = in + n * C, *grow = g + n * C;
        const T mu = m[n], rs = r[n];
        T sum = 0, sum_xhat = 0;
#pragma omp simd reduction(+ : sum, sum_xhat)
        for (int64_t c = 0; c < C; ++c) {
          sum += grow[c] * weight[c];
          sum_xhat += grow[c] * weight[c] * ((row[c] - mu) * rs);
        }
        sum /= static_cast<T>(C);
        sum_xhat /= static_cast<T>(C);
        for (int64_t c = 0; c < C; ++c) {
          out[n * C + c] = rs * (grow[c] * weight[c] - sum - (row[c] - mu) * rs * sum_xhat);
        }
      }
    });
  });
}

}  // namespace burrow::cpu
