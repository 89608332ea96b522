#include "autograd/ops.h"

namespace burrow {

Var rope(const Var& x, const Tensor& position, int64_t heads, double theta) {
  const Tensor& X = x.value();
  BURROW_CHECK(
      X.rank() == 2 && position.shape() == Shape({X.dim(0)}) && heads > 0 && X.dim(1) % (2 * heads) == 0,
      "[rope] x {} and position {} do not match for {} heads of even size", X.shape(), position.shape(),
      heads);
  Tensor y = Tensor::empty(X.shape(), X.dtype(), X.device(), "rope");
  kernel::rope(y, X, position, heads, theta, false);
  return record("rope", y, {x}, [position, heads, theta](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0);
    kernel::rope(dx, dy, position, heads, theta, true);  // a rotation's transpose is its inverse
    g.add(0, dx);
  });
}

Var attention(const Var& q, const Var& k, const Var& v, const AttentionRanges& ranges,
              const AttentionShape& shape) {
  const Tensor &Q = q.value(), &K = k.value(), &V = v.value();
  BURROW_CHECK(Q.rank() == 2 && K.rank() == 2 && K.shape() == V.shape() &&
                   Q.dim(1) == shape.heads * shape.head_size &&
                   K.dim(1) == shape.kv_heads * shape.head_size && shape.heads % shape.kv_heads == 0,
               "[attention] q {}, k {} and v {} do not match for {} heads and {} key heads of size {}",
               Q.shape(), K.shape(), V.shape(), shape.heads, shape.kv_heads, shape.head_size);
  Tensor y = Tensor::empty(Q.shape(), Q.dtype(), Q.device(), "attention");
  Tensor lse = Tensor::empty({Q.dim(0), shape.heads}, sum_type(Q.dtype()), Q.device(), "attention");
  kernel::attention(y, lse, Q, K, V, ranges, shape);
  return record("attention", y, {q, k, v}, [Q, K, V, y, lse, ranges, shape](const Tensor& dy, Grads& g) {
    Tensor dq = g.like(0), dk = g.like(1), dv = g.like(2);
    kernel::attention_backward(dq, dk, dv, dy, y, lse, Q, K, V, ranges, shape);
    g.add(0, dq);
    g.add(1, dk);
    g.add(2, dv);
  });
}

}  // namespace burrow
