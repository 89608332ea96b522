#include "autograd/ops.h"

namespace burrow {

Var softmax(const Var& x) {
  const Tensor& X = x.value();
  BURROW_CHECK(X.rank() == 2, "[softmax] x {} has no rows", X.shape());
  Tensor y = Tensor::empty(X.shape(), X.dtype(), X.device(), "softmax");
  kernel::softmax(y, X);
  return record("softmax", y, {x}, [y](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0);
    kernel::softmax_backward(dx, dy, y);
    g.add(0, dx);
  });
}

Var gate(const Var& probs, const Tensor& mask, GateMode mode) {
  const Tensor& P = probs.value();
  BURROW_CHECK(mask.shape() == P.shape(), "[gate] probs {} and mask {}", P.shape(), mask.shape());
  if (mode == GateMode::none) return Var(mask);
  Tensor weights = mask;
  if (mode == GateMode::scaled) {
    weights = Tensor::empty(P.shape(), P.dtype(), P.device(), "gate");
    kernel::mul(weights, mask, P);
  }
  return record("gate", weights, {probs}, [mask](const Tensor& dy, Grads& g) {
    Tensor dprobs = g.like(0);
    kernel::mul(dprobs, dy, mask);
    g.add(0, dprobs);
  });
}

Var scale_experts(const Var& h, const Var& weights, double alpha) {
  const Tensor &H = h.value(), &W = weights.value();
  BURROW_CHECK(
      H.rank() == 2 && W.rank() == 2 && H.dim(0) == W.dim(0) && W.dim(1) > 0 && H.dim(1) % W.dim(1) == 0,
      "[scale_experts] h {} and weights {}", H.shape(), W.shape());
  Tensor y = Tensor::empty(H.shape(), H.dtype(), H.device(), "scale_experts");
  kernel::scale_experts(y, H, W, alpha);
  const Tensor kept_h = weights.needs_grad() ? H : Tensor{};
  return record("scale_experts", y, {h, weights}, [kept_h, W, alpha](const Tensor& dy, Grads& g) {
    Tensor dh = g.like(0), dweights = g.like(1);
    kernel::scale_experts_backward(dh, dweights, dy, kept_h, W, alpha);
    g.add(0, dh);
    g.add(1, dweights);
  });
}

Var sum_columns(const Var& x) {
  const Tensor& X = x.value();
  BURROW_CHECK(X.rank() == 2, "[sum_columns] x {} has no rows", X.shape());
  return linear(x, Var(Tensor::full({1, X.dim(1)}, 1, X.dtype(), X.device())));
}

Var normalise_rows(const Var& x) {
  return scale_experts(x, unary(sum_columns(x), Unary::reciprocal), 1);  // each row times 1 / its sum
}

}  // namespace burrow
