// Sums over a whole tensor, and means over the rows of a group. A thread owns blocks of elements, or
// channels; sums in f64, in an order that does not depend on the threads.
#include <algorithm>

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/kernels.h"

namespace burrow::cpu {
namespace {

// sum_i a[i] b[i] in f64. Blocks of a fixed size are summed separately and their sums added in order, so that
// the result does not depend on the number of threads.
template <class T>
double product_sum(const T* a, const T* b, int64_t n) {
  constexpr int64_t kBlock = 16384;
  struct Partial;
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  double* partial = scratch<double, Partial>(blocks);
  parallel_rows(blocks, n, [=](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t last = std::min(n, (k + 1) * kBlock);
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = k * kBlock; i < last; ++i)
        sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
      partial[k] = sum;
    }
  });
  double total = 0;
  for (int64_t k = 0; k < blocks; ++k) total += partial[k];
  return total;
}

}  // namespace

// y[0] = alpha sum_i a[i] b[i]
// in: a b, same shape   out: y, one element, f32 or f64, written
// A thread owns blocks of 16384 elements; sums in f64.
void dot(Tensor& y, const Tensor& a, const Tensor& b, double alpha) {
  check_same("dot", "a", a, "b", b);
  check_vector("dot", "y", y, y.dtype(), 1);
  visit_float("dot", a.dtype(), [&]<class T>(T) {
    const double sum = alpha * product_sum(a.data<T>(), b.data<T>(), a.numel());
    visit_float("dot", y.dtype(), [&]<class Y>(Y) { *y.data<Y>() = static_cast<Y>(sum); });
  });
}

// y[0] = sum_i x[i]^2; NaN and infinity pass through
// in: x   out: y f64, one element, written
// A thread owns blocks of 16384 elements; sums in f64.
void sum_squares(Tensor& y, const Tensor& x) {
  check_vector("sum_squares", "y", y, DType::f64, 1);
  visit_float("sum_squares", x.dtype(),
              [&]<class T>(T) { *y.data<double>() = product_sum(x.data<T>(), x.data<T>(), x.numel()); });
}

// y[g,c] = mean_{n: group[n] = g} x[n,c];  count[g] = rows of g;  -1 means no group, an empty group gives 0
// in: x [N,C], group i32 [N] in [-1, G)   out: y [G,C], count [G], written
// A thread owns channels and adds the rows in order; sums in f64.
void group_mean(Tensor& y, Tensor& count, const Tensor& x, const Tensor& group) {
  const int64_t C = channels(x), N = leading(x), G = leading(y);
  check_matrix("group_mean", "y", y, x.dtype(), G, C);
  check_vector("group_mean", "count", count, x.dtype(), G);
  check_vector("group_mean", "group", group, DType::i32, N);
  check_range("group_mean", "group", group, -1, G);
  visit_float("group_mean", x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    const int32_t* of = group.data<int32_t>();
    T *out = y.data<T>(), *rows = count.data<T>();
    std::fill_n(rows, G, T(0));
    for (int64_t n = 0; n < N; ++n) {
      if (of[n] >= 0) rows[of[n]] += T(1);
    }
    parallel_rows(C, N * C, [=](int64_t begin, int64_t end) {
      struct Sums;
      const int64_t width = end - begin;
      double* sums = scratch<double, Sums>(G * width);
      std::fill_n(sums, G * width, 0.0);
      for (int64_t n = 0; n < N; ++n) {
        if (of[n] < 0) continue;
        double* sum = sums + of[n] * width;
        const T* row = in + n * C + begin;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) sum[c] += static_cast<double>(row[c]);
      }
      for (int64_t g = 0; g < G; ++g) {
        const double inverse = rows[g] > 0 ? 1 / static_cast<double>(rows[g]) : 0;
        for (int64_t c = 0; c < width; ++c)
          out[g * C + begin + c] = static_cast<T>(sums[g * width + c] * inverse);
      }
    });
  });
}

// dx[n,c] = dy[group[n],c] / count[group[n]], 0 where group[n] is -1
// in: dy [G,C], count [G], group i32 [N] in [-1, G)   out: dx [N,C], written
// A thread owns rows.
void group_mean_backward(Tensor& dx, const Tensor& dy, const Tensor& count, const Tensor& group) {
  const int64_t C = channels(dy), G = leading(dy), N = leading(dx);
  check_matrix("group_mean_backward", "dx", dx, dy.dtype(), N, C);
  check_vector("group_mean_backward", "count", count, dy.dtype(), G);
  check_vector("group_mean_backward", "group", group, DType::i32, N);
  check_range("group_mean_backward", "group", group, -1, G);
  visit_float("group_mean_backward", dy.dtype(), [&]<class T>(T) {
    const T *g = dy.data<T>(), *rows = count.data<T>();
    const int32_t* of = group.data<int32_t>();
    T* out = dx.data<T>();
    parallel_rows(N, N * C, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        if (of[n] < 0) {
          std::fill_n(out + n * C, C, T(0));
          continue;
        }
        const T inverse = T(1) / rows[of[n]];
        const T* row = g + of[n] * C;
        for (int64_t c = 0; c < C; ++c) out[n * C + c] = row[c] * inverse;
      }
    });
  });
}

}  // namespace burrow::cpu
