#include "autograd/ops.h"

namespace burrow {
namespace {

Tensor empty_like(const Tensor& x, const char* what) {
  return Tensor::empty(x.shape(), x.dtype(), x.device(), what);
}

void check_same_shape(const char* op, const Var& a, const Var& b) {
  BURROW_CHECK(a.shape() == b.shape(), "[{}] shapes {} and {} differ", op, a.shape(), b.shape());
}

}  // namespace

Var unary(const Var& x, Unary op) {
  const Tensor& X = x.value();
  Tensor y = empty_like(X, "unary");
  kernel::unary(y, X, op);
  return record("unary", y, {x}, [X, op](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0);
    kernel::unary_backward(dx, dy, X, op);
    g.add(0, dx);
  });
}

Var add(const Var& a, const Var& b) {
  check_same_shape("add", a, b);
  Tensor y = empty_like(a.value(), "add");
  kernel::add(y, a.value(), b.value());
  return record("add", y, {a, b}, [](const Tensor& dy, Grads& g) {
    g.add(0, dy);
    g.add(1, dy);
  });
}

Var cast(const Var& x, DType dtype) {
  Tensor y = Tensor::empty(x.shape(), dtype, x.value().device(), "cast");
  kernel::convert(y, x.value());
  return record("cast", y, {x}, [](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0);
    kernel::convert(dx, dy);
    g.add(0, dx);
  });
}

Var mul(const Var& a, const Var& b) {
  check_same_shape("mul", a, b);
  Tensor y = empty_like(a.value(), "mul");
  kernel::mul(y, a.value(), b.value());
  const Tensor kept_a = b.needs_grad() ? a.value() : Tensor{}, kept_b = a.needs_grad() ? b.value() : Tensor{};
  return record("mul", y, {a, b}, [kept_a, kept_b](const Tensor& dy, Grads& g) {
    for (const int i : {0, 1}) {
      if (!g.wants(i)) continue;
      Tensor d = g.like(i);
      kernel::mul(d, dy, i == 0 ? kept_b : kept_a);
      g.add(i, d);
    }
  });
}

Var scale(const Var& x, double alpha) {
  Tensor y = empty_like(x.value(), "scale");
  kernel::scale(y, x.value(), alpha);
  return record("scale", y, {x}, [alpha](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0);
    kernel::scale(dx, dy, alpha);
    g.add(0, dx);
  });
}

Var swiglu(const Var& gate, const Var& up) {
  check_same_shape("swiglu", gate, up);
  const Tensor &G = gate.value(), &U = up.value();
  Tensor y = empty_like(G, "swiglu");
  kernel::swiglu(y, G, U);
  return record("swiglu", y, {gate, up}, [G, U](const Tensor& dy, Grads& g) {
    Tensor dgate = g.like(0), dup = g.like(1);
    kernel::swiglu_backward(dgate, dup, dy, G, U);
    g.add(0, dgate);
    g.add(1, dup);
  });
}

Var dropout(const Var& x, const Tensor& ordinal, const Tensor& position, uint64_t key, double p) {
  BURROW_CHECK(0 <= p && p < 1, "[dropout] p is {}, expected 0 <= p < 1", p);
  if (p == 0) return x;
  Tensor y = empty_like(x.value(), "dropout");
  kernel::dropout(y, x.value(), ordinal, position, key, p);
  return record("dropout", y, {x}, [ordinal, position, key, p](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0);
    kernel::dropout(dx, dy, ordinal, position, key, p);
    g.add(0, dx);
  });
}

Var dot(const Var& a, const Var& b, double alpha) {
  check_same_shape("dot", a, b);
  const Tensor &A = a.value(), &B = b.value();
  Tensor y = Tensor::empty({1}, A.dtype(), A.device(), "dot");
  kernel::dot(y, A, B, alpha);
  return record("dot", y, {a, b}, [A, B, alpha](const Tensor& dy, Grads& g) {
    for (const int i : {0, 1}) {
      if (!g.wants(i)) continue;
      Tensor d = g.like(i);
      kernel::scale_by(d, i == 0 ? B : A, dy, alpha, false);
      g.add(i, d);
    }
  });
}

}  // namespace burrow
