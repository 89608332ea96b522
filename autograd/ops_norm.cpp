#include "autograd/ops.h"

namespace burrow {

Var rms_norm(const Var& x, const Var& w, double eps) {
  const Tensor &X = x.value(), &W = w.value();
  BURROW_CHECK(X.rank() == 2 && W.shape() == Shape({X.dim(1)}), "[rms_norm] x {} and w {} do not match",
               X.shape(), W.shape());
  Tensor y = Tensor::empty(X.shape(), X.dtype(), X.device(), "rms_norm");
  Tensor rstd = Tensor::empty({X.dim(0)}, sum_type(X.dtype()), X.device(), "rms_norm");
  Tensor no_sum;
  kernel::rms_norm(y, rstd, no_sum, X, {}, W, eps);
  return record("rms_norm", y, {x, w}, [X, W, rstd](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0), dw = g.accumulator(1);
    kernel::rms_norm_backward(dx, dw, dy, {}, X, W, rstd);
    g.add(0, dx);
  });
}

NormedSum add_rms_norm(const Var& x, const Var& added, const Var& w, double eps) {
  const Tensor &X = x.value(), &A = added.value(), &W = w.value();
  BURROW_CHECK(X.rank() == 2 && A.shape() == X.shape() && W.shape() == Shape({X.dim(1)}),
               "[add_rms_norm] x {}, added {} and w {} do not match", X.shape(), A.shape(), W.shape());
  Tensor sum = Tensor::empty(X.shape(), X.dtype(), X.device(), "residual");
  Tensor y = Tensor::empty(X.shape(), X.dtype(), X.device(), "rms_norm");
  Tensor rstd = Tensor::empty({X.dim(0)}, sum_type(X.dtype()), X.device(), "rms_norm");
  kernel::rms_norm(y, rstd, sum, X, A, W, eps);
  const std::vector<Var> both =
      record("add_rms_norm", {sum, y}, {x, added, w}, [sum, W, rstd](std::span<const Tensor> d, Grads& g) {
        const Tensor &dsum = d[0], &dy = d[1];
        Tensor dx = dsum;
        if (dy.defined()) {
          dx = g.wants(0) ? g.like(0) : g.like(1);
          Tensor dw = g.accumulator(2);
          kernel::rms_norm_backward(dx, dw, dy, dsum, sum, W, rstd);
        }
        g.add(0, dx);
        g.add(1, dx);
      });
  return {both[0], both[1]};
}

Var layer_norm(const Var& x, const Var& w, const Var& b, double eps) {
  const Tensor &X = x.value(), &W = w.value();
  BURROW_CHECK(X.rank() == 2 && W.shape() == Shape({X.dim(1)}) && b.shape() == W.shape(),
               "[layer_norm] x {}, w {} and b {} do not match", X.shape(), W.shape(), b.shape());
  Tensor y = Tensor::empty(X.shape(), X.dtype(), X.device(), "layer_norm");
  Tensor mean = Tensor::empty({X.dim(0)}, sum_type(X.dtype()), X.device(), "layer_norm");
  Tensor rstd = Tensor::empty({X.dim(0)}, sum_type(X.dtype()), X.device(), "layer_norm");
  kernel::layer_norm(y, mean, rstd, X, W, b.value(), eps);
  return record("layer_norm", y, {x, w, b}, [X, W, mean, rstd](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0), dw = g.accumulator(1), db = g.accumulator(2);
    kernel::layer_norm_backward(dx, dw, db, dy, X, W, mean, rstd);
    g.add(0, dx);
  });
}

}  // namespace burrow
