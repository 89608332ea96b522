// Softmax and its gradient, cross entropy with its gradient, and argmax, over the rows of a matrix.
// A thread owns rows.
#include <cmath>

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vec.h"
#include "tensor/kernels.h"

namespace burrow::cpu {

// y[n,c] = e^(x[n,c] - m) / sum_j e^(x[n,j] - m),  m = max_j x[n,j]
// in: x [N,C]   out: y [N,C], written; y may be x
// A thread owns rows; sums in the dtype.
void softmax(Tensor& y, const Tensor& x) {
  const int64_t C = channels(x), N = C == 0 ? 0 : leading(x);
  check_same("softmax", "y", y, "x", x);
  visit_float("softmax", x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_rows(N, 12 * N * C, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) softmax_run(out + n * C, in + n * C, C);
    });
  });
}

// dx[n,c] = y[n,c] (dy[n,c] - sum_j dy[n,j] y[n,j])
// in: dy y [N,C]   out: dx [N,C], written; dx may be dy
// A thread owns rows; sums in the dtype.
void softmax_backward(Tensor& dx, const Tensor& dy, const Tensor& y) {
  const int64_t C = channels(y), N = leading(y);
  check_same("softmax_backward", "dy", dy, "y", y);
  check_same("softmax_backward", "dx", dx, "y", y);
  visit_float("softmax_backward", y.dtype(), [&]<class T>(T) {
    const T *p = y.data<T>(), *g = dy.data<T>();
    T* out = dx.data<T>();
    parallel_rows(N, 4 * N * C, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T *prow = p + n * C, *grow = g + n * C;
        const T sum = dot_run(prow, grow, C);
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) out[n * C + c] = prow[c] * (grow[c] - sum);
      }
    });
  });
}

// loss[n] = log sum_v e^logits[n,v] - logits[n,target[n]];  dlogits = softmax(logits) - onehot(target)
// in: logits [N,V], target i32 [N] in [0, V)
// out: loss [N], dlogits [N,V] or undefined, written; dlogits may be logits
// A thread owns rows; sums in the dtype.
void cross_entropy(Tensor& loss, Tensor& dlogits, const Tensor& logits, const Tensor& target) {
  const int64_t V = channels(logits), N = leading(logits);
  check_vector("cross_entropy", "loss", loss, logits.dtype(), N);
  check_vector("cross_entropy", "target", target, DType::i32, N);
  if (dlogits.defined()) check_same("cross_entropy", "dlogits", dlogits, "logits", logits);
  check_range("cross_entropy", "target", target, 0, V);
  visit_float("cross_entropy", logits.dtype(), [&]<class T>(T) {
    const T* in = logits.data<T>();
    const int32_t* right = target.data<int32_t>();
    T* out = loss.data<T>();
    T* gradient = dlogits.defined() ? dlogits.data<T>() : nullptr;
    parallel_rows(N, 12 * N * V, [=](int64_t begin, int64_t end) {
      struct Exponentials;
      for (int64_t n = begin; n < end; ++n) {
        const T* row = in + n * V;
        T* e = gradient ? gradient + n * V : scratch<T, Exponentials>(V);
        const T most = max_run(row, V), of_target = row[right[n]];  // read before e overwrites the row
        const T sum = exponentials(e, row, most, V);
        out[n] = std::log(sum) + (most - of_target);
        if (!gradient) continue;
        const T inverse = T(1) / sum;
        for (int64_t v = 0; v < V; ++v) e[v] *= inverse;
        e[right[n]] -= T(1);
      }
    });
  });
}

// index[n] = the first c at which x[n,c] is largest; NaN is never largest
// in: x [N,C], C >= 1   out: index i32 [N], written
// A thread owns rows.
void argmax(Tensor& index, const Tensor& x) {
  const int64_t C = channels(x), N = leading(x);
  check_vector("argmax", "index", index, DType::i32, N);
  BURROW_CHECK(C > 0 || N == 0, "[argmax] x {} has rows without elements", x.shape());
  visit_float("argmax", x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    int32_t* out = index.data<int32_t>();
    parallel_rows(N, N * C, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T* row = in + n * C;
        int64_t best = 0;
        for (int64_t c = 1; c < C; ++c) {
          if (row[c] > row[best] || (std::isnan(row[best]) && !std::isnan(row[c]))) best = c;
        }
        out[n] = static_cast<int32_t>(best);
      }
    });
  });
}

}  // namespace burrow::cpu
