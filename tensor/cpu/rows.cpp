#include <cstring>

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/kernels.h"

namespace burrow::cpu {
namespace {

// to[index(n)] += from[n] for the rows where index(n) >= 0. A thread owns channels and takes the rows in
// order: two rows may meet in one target, and the order of a sum must not depend on threads.
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
// in: x [M,C], also of i32, index i32 [N] in [0, M)   out: y [N,C], written
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

// y[index[n]] += x[n], in the order of n
// in: x [N,C], index i32 [N] in [0, M)   out: y [M,C], added to
// A thread owns channels; sums in the dtype.
void scatter_add_rows(Tensor& y, const Tensor& x, const Tensor& index) {
  const int64_t C = channels(x), N = leading(x);
  check_matrix("scatter_add_rows", "y", y, x.dtype(), leading(y), C);
  check_vector("scatter_add_rows", "index", index, DType::i32, N);
  check_range("scatter_add_rows", "index", index, 0, leading(y));
  visit_float("scatter_add_rows", x.dtype(), [&]<class T>(T) {
    const int32_t* to = index.data<int32_t>();
    add_rows(y.data<T>(), x.data<T>(), N, C, [to](int64_t n) { return static_cast<int64_t>(to[n]); });
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
