// Gathering and scattering rows, copying columns, and the embedding with its gradient.
// A thread owns rows of the output, or channels where several rows may be added to one.

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/kernels.h"

namespace burrow::cpu {
namespace {

// to[index(n)] += from[n] for the rows with index(n) >= 0. A thread owns channels and adds the rows in order:
// several rows may have one target, and the order of a sum must not depend on the threads.
template <class T, class Index>
void add_rows(T* to, const T* from, int64_t N, int64_t C, Index index) {
  parallel_rows(C, N * C, [=](int64_t begin, int64_t end) {
    for (int64_t n = 0; n < N; ++n) {
      const int64_t target = index(n);
      if (target < 0) continue;
      T* out = to + target * C;
      const T* in = from + n * C;
#pragma omp simd
      for (int64_t c = begin; c < end; ++c) out[c] += in[c];
    }
  });
}

}  // namespace

// y[n] = x[index[n]]
// in: x [M,C], also i32, index i32 [N] in [0, M)   out: y [N,C], written
// A thread owns rows of y.
void gather_rows(Tensor& y, const Tensor& x, const Tensor& index) {
  const int64_t C = channels(x), N = index.numel();
  check_matrix("gather_rows", "y", y, x.dtype(), N, C);
  check_vector("gather_rows", "index", index, DType::i32, N);
  check_range("gather_rows", "index", index, 0, leading(x));
  const auto copy = [&]<class T>(T) {
    const T* in = x.data<T>();
    const int32_t* from = index.data<int32_t>();
    T* out = y.data<T>();
    parallel_rows(N, N * C, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) std::copy_n(in + from[n] * C, C, out + n * C);
    });
  };
  if (x.dtype() == DType::i32)
    copy(int32_t{});
  else
    visit_float("gather_rows", x.dtype(), copy);
}

// y[n,c] = x[n, first + c]
// in: x [N,C]   out: y [N,O], written
// A thread owns rows.
void copy_columns(Tensor& y, const Tensor& x, int64_t first) {
  const int64_t C = channels(x), O = channels(y), N = leading(x);
  check_columns("copy_columns", x, y, x.dtype(), first);
  visit_float("copy_columns", x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>() + first;
    T* out = y.data<T>();
    parallel_rows(N, N * O, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) std::copy_n(in + n * C, O, out + n * O);
    });
  });
}

// y[n, first + c] += x[n,c]
// in: x [N,O]   out: y [N,C], added to
// A thread owns rows.
void add_columns(Tensor& y, const Tensor& x, int64_t first) {
  const int64_t C = channels(y), O = channels(x), N = leading(x);
  check_columns("add_columns", y, x, y.dtype(), first);
  visit_float("add_columns", x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    T* out = y.data<T>() + first;
    parallel_rows(N, N * O, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        for (int64_t c = 0; c < O; ++c) out[n * C + c] += in[n * O + c];
      }
    });
  });
}

namespace {

// The n with index[n] = m are n[begin[m]], ..., n[begin[m + 1] - 1], in ascending order.
struct ByTarget {
  const int64_t *begin, *n;
};
ByTarget by_target(const int32_t* index, int64_t N, int64_t M) {
  struct Begin;
  struct Rows;
  int64_t *begin = scratch<int64_t, Begin>(M + 2), *rows = scratch<int64_t, Rows>(N);
  std::fill_n(begin, M + 2, 0);
  for (int64_t n = 0; n < N; ++n) ++begin[index[n] + 2];
  for (int64_t m = 2; m <= M; ++m) begin[m] += begin[m - 1];
  for (int64_t n = 0; n < N; ++n) rows[begin[index[n] + 1]++] = n;
  return {begin, rows};
}

}  // namespace

// y[m] = sum of x[n] with index[n] = m, in the order of n; or y[m] += with `accumulate`
// in: x [N,C], index i32 [N] in [0, M)   out: y [M,C]
// A thread owns rows of y, or channels if y has many more rows than x; sums in the dtype.
void scatter_rows(Tensor& y, const Tensor& x, const Tensor& index, bool accumulate) {
  const char* op = "scatter_rows";
  const int64_t C = channels(x), N = leading(x), M = leading(y);
  check_matrix(op, "y", y, x.dtype(), M, C);
  check_vector(op, "index", index, DType::i32, N);
  check_range(op, "index", index, 0, M);
  visit_float(op, x.dtype(), [&]<class T>(T) {
    const int32_t* to = index.data<int32_t>();
    const T* in = x.data<T>();
    T* out = y.data<T>();
    if (accumulate && N < M / 4)  // few rows into many, as when decoding adds to the KV cache
      return add_rows(out, in, N, C, [to](int64_t n) { return static_cast<int64_t>(to[n]); });
    const ByTarget from = by_target(to, N, M);
    parallel_rows(M, (N + M) * C, [=](int64_t first, int64_t last) {
      for (int64_t m = first; m < last; ++m) {
        T* sum = out + m * C;
        int64_t i = from.begin[m];
        const int64_t end = from.begin[m + 1];
        if (!accumulate && i < end)
          std::copy_n(in + from.n[i++] * C, C, sum);
        else if (!accumulate)
          std::fill_n(sum, C, T(0));
        for (; i < end; ++i) {
          const T* row = in + from.n[i] * C;
#pragma omp simd
          for (int64_t c = 0; c < C; ++c) sum[c] += row[c];
        }
      }
    });
  });
}

// y[n] = table[id[n]] where id[n] >= 0, else visual[-1 - id[n]]
// in: table [V,C] of y's dtype or bf16, visual [M,C] or undefined, id i32 [N] in [-M, V)
// out: y [N,C], written
// A thread owns rows.
void embedding(Tensor& y, const Tensor& table, const Tensor& visual, const Tensor& id) {
  const int64_t C = channels(table), N = id.numel(), V = leading(table),
                M = visual.defined() ? leading(visual) : 0;
  check_matrix("embedding", "y", y, y.dtype(), N, C);
  check_vector("embedding", "id", id, DType::i32, N);
  BURROW_CHECK(table.dtype() == y.dtype() || table.dtype() == DType::bf16, "[embedding] table is {} and y {}",
               table.dtype(), y.dtype());
  if (visual.defined()) check_matrix("embedding", "visual", visual, y.dtype(), M, C);
  check_range("embedding", "id", id, -M, V);
  visit_float("embedding", y.dtype(), [&]<class T>(T) {
    const bool narrow = table.dtype() == DType::bf16;
    const bf16* words16 = narrow ? table.data<bf16>() : nullptr;
    const T* words = narrow ? nullptr : table.data<T>();
    const T* images = visual.defined() ? visual.data<T>() : nullptr;
    const int32_t* ids = id.data<int32_t>();
    T* out = y.data<T>();
    parallel_rows(N, N * C, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const int64_t i = ids[n];
        if (i < 0) {
          std::copy_n(images + (-1 - i) * C, C, out + n * C);
        } else if (!narrow) {
          std::copy_n(words + i * C, C, out + n * C);
        } else {
          for (int64_t c = 0; c < C; ++c)
            out[n * C + c] = static_cast<T>(static_cast<float>(words16[i * C + c]));
        }
      }
    });
  });
}

// dtable[id[n]] += dy[n] where id[n] >= 0, else dvisual[-1 - id[n]] += dy[n], in the order of n
// in: dy [N,C], id i32 [N]   out: dtable [V,C], dvisual [M,C], added to; each or undefined
// A thread owns channels; sums in the dtype.
void embedding_backward(Tensor& dtable, Tensor& dvisual, const Tensor& dy, const Tensor& id) {
  const char* op = "embedding_backward";
  const int64_t C = channels(dy), N = leading(dy), none = int64_t{1} << 31;
  check_vector(op, "id", id, DType::i32, N);
  if (dtable.defined()) check_matrix(op, "dtable", dtable, dy.dtype(), leading(dtable), C);
  if (dvisual.defined()) check_matrix(op, "dvisual", dvisual, dy.dtype(), leading(dvisual), C);
  check_range(op, "id", id, dvisual.defined() ? -leading(dvisual) : -none,
              dtable.defined() ? leading(dtable) : none);
  visit_float(op, dy.dtype(), [&]<class T>(T) {
    const int32_t* ids = id.data<int32_t>();
    const T* g = dy.data<T>();
    if (dtable.defined())
      add_rows(dtable.data<T>(), g, N, C, [ids](int64_t n) { return static_cast<int64_t>(ids[n]); });
    if (dvisual.defined()) {
      add_rows(dvisual.data<T>(), g, N, C, [ids](int64_t n) { return -1 - static_cast<int64_t>(ids[n]); });
    }
  });
}

}  // namespace burrow::cpu
