#pragma once
// Argument checks shared by the kernels of both devices; each throws an Error. `op` is the kernel's name, the
// other names are those of its parameters.
#include "tensor/tensor.h"

namespace burrow {

// Row-wise kernels treat any tensor as a matrix [N,C]: C is the last size, N the product of the others.
inline int64_t channels(const Tensor& t) { return t.rank() == 0 ? 1 : t.shape().back(); }
inline int64_t leading(const Tensor& t) {
  int64_t n = 1;
  for (int i = 0; i + 1 < t.rank(); ++i) n *= t.shape()[static_cast<size_t>(i)];
  return n;
}

// Equal shape and dtype.
inline void check_same(const char* op, const char* a_name, const Tensor& a, const char* b_name,
                       const Tensor& b) {
  BURROW_CHECK(a.shape() == b.shape() && a.dtype() == b.dtype(), "[{}] {} {} {} and {} {} {} differ", op,
               a_name, a.dtype(), a.shape(), b_name, b.dtype(), b.shape());
}

// n elements in any shape.
inline void check_vector(const char* op, const char* name, const Tensor& t, DType dtype, int64_t n) {
  BURROW_CHECK(t.numel() == n && t.dtype() == dtype, "[{}] {} is {} {}, expected {} ({})", op, name,
               t.dtype(), t.shape(), dtype, n);
}

// n rows of c channels, in any shape that row-wise kernels treat as such a matrix.
inline void check_matrix(const char* op, const char* name, const Tensor& t, DType dtype, int64_t n,
                         int64_t c) {
  BURROW_CHECK(leading(t) == n && channels(t) == c && t.dtype() == dtype,
               "[{}] {} is {} {}, expected {} ({}, {})", op, name, t.dtype(), t.shape(), dtype, n, c);
}

// `narrow` [N,O], of this dtype, fits the columns [first, first + O) of `wide` [N,C].
inline void check_columns(const char* op, const Tensor& wide, const Tensor& narrow, DType dtype,
                          int64_t first) {
  BURROW_CHECK(first >= 0 && first + channels(narrow) <= channels(wide),
               "[{}] columns {} to {} are outside of {}", op, first, first + channels(narrow), wide.shape());
  check_matrix(op, "columns", narrow, dtype, leading(wide), channels(narrow));
}

// An optional residual addition sum = x + added: both tensors are defined, or neither.
inline void check_residual(const char* op, const Tensor& sum, const Tensor& x, const Tensor& added) {
  BURROW_CHECK(sum.defined() == added.defined(), "[{}] sum and added must both be defined or both undefined",
               op);
  if (!added.defined()) return;
  check_same(op, "added", added, "x", x);
  check_same(op, "sum", sum, "x", x);
}

// Checks h [M,R] against the places M and a dimension `side`, which must be E*R (of a [E*R,C] or b [O,E*R]);
// returns R.
inline int64_t rank_of(const char* op, const Tensor& h, int64_t experts, int64_t places, int64_t side) {
  const int64_t R = channels(h);
  BURROW_CHECK(leading(h) == places, "[{}] h {} does not have the {} rows of order", op, h.shape(), places);
  BURROW_CHECK(side == experts * R, "[{}] a or b has size {} for {} experts of rank {}", op, side, experts,
               R);
  return R;
}

// Every element of `index` is in [low, high). Indices on the GPU are not checked, because the host would have
// to wait for the device in every kernel.
inline void check_range(const char* op, const char* name, const Tensor& index, int64_t low, int64_t high) {
  if (index.device() != Device::cpu) return;
  const int32_t* i = index.data<int32_t>();
  bool good = true;  // without a branch, so that the loop is vectorised
  for (int64_t n = 0; n < index.numel(); ++n) good &= (i[n] >= low) & (i[n] < high);
  for (int64_t n = 0; !good && n < index.numel(); ++n) {
    BURROW_CHECK(i[n] >= low && i[n] < high, "[{}] {}[{}] is {}, expected {} <= {} < {}", op, name, n, i[n],
                 low, name, high);
  }
}

}  // namespace burrow
