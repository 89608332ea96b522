#include <algorithm>

#include "autograd/ops.h"

namespace burrow {

Var linear(const Var& x, const Var& w, const Var& bias) {
  const Tensor &X = x.value(), &W = w.value();
  BURROW_CHECK(X.rank() == 2 && W.rank() == 2 && X.dim(1) == W.dim(1), "[linear] x {} and w {}: inner sizes differ",
               X.shape(), W.shape());
  Tensor y = Tensor::empty({X.dim(0), W.dim(0)}, X.dtype(), X.device(), "linear");
  kernel::matmul_nt(y, X, W, false);
  if (bias.defined()) kernel::add_bias(y, y, bias.value());
  const Tensor kept_x = w.needs_grad() ? X : Tensor{}, kept_w = x.needs_grad() ? W : Tensor{};
  return record("linear", y, {x, w, bias}, [kept_x, kept_w](const Tensor& dy, Grads& g) {
    if (g.wants(0)) {
      Tensor dx = g.like(0);
      kernel::matmul_nn(dx, dy, kept_w, false);
      g.add(0, dx);
    }
    if (Tensor dw = g.accumulator(1); dw.defined()) kernel::matmul_tn(dw, dy, kept_x, true);
    if (Tensor db = g.accumulator(2); db.defined()) kernel::sum_rows(db, dy, true);
  });
}

Var linear_cross_entropy(const Var& x, const Var& w, const Tensor& target, int64_t chunk_rows) {
  const Tensor &X = x.value(), &W = w.value();
  const int64_t S = X.dim(0), V = W.dim(0);
  BURROW_CHECK(X.dim(1) == W.dim(1) && target.shape() == Shape({S}), "[linear_cross_entropy] x {}, w {}, target {}",
               X.shape(), W.shape(), target.shape());
  const bool wants_x = any_needs_grad({&x}), wants_w = any_needs_grad({&w});
  Tensor losses = Tensor::empty({S}, X.dtype(), X.device(), "cross_entropy");
  Tensor dx = wants_x ? Tensor::empty(X.shape(), X.dtype(), X.device(), "cross_entropy") : Tensor{};
  Tensor dw = wants_w ? Tensor::zeros(W.shape(), X.dtype(), X.device(), "cross_entropy") : Tensor{};
  for (int64_t begin = 0; begin < S; begin += chunk_rows) {
    const int64_t end = std::min(S, begin + chunk_rows);
    const Tensor rows = X.slice_rows(begin, end);
    Tensor logits = Tensor::empty({end - begin, V}, X.dtype(), X.device(), "logits");
    kernel::matmul_nt(logits, rows, W, false);
    Tensor loss = losses.slice_rows(begin, end), dlogits = wants_x || wants_w ? logits : Tensor{};
    kernel::cross_entropy(loss, dlogits, logits, target.slice_rows(begin, end));
    if (wants_x) {
      Tensor out = dx.slice_rows(begin, end);
      kernel::matmul_nn(out, dlogits, W, false);
    }
    if (wants_w) kernel::matmul_tn(dw, dlogits, rows, true);
  }
  Tensor sum = Tensor::empty({1}, X.dtype(), X.device(), "loss");
  kernel::dot(sum, losses, Tensor::full({S}, 1, X.dtype(), X.device()), 1);
  return record("linear_cross_entropy", sum, {x, w}, [dx, dw](const Tensor& dy, Grads& g) {
    const double upstream = dy.item();
    if (g.wants(0)) {
      Tensor out = g.like(0);
      kernel::scale(out, dx, upstream);
      g.add(0, out);
    }
    if (Tensor out = g.accumulator(1); out.defined()) kernel::accumulate(out, dw, upstream);
  });
}

Tensor linear_log_prob(const Tensor& x, const Tensor& w, const Tensor& target, int64_t chunk_rows) {
  const int64_t S = x.dim(0);
  Tensor out = Tensor::empty({S}, x.dtype(), x.device(), "log_prob");
  for (int64_t begin = 0; begin < S; begin += chunk_rows) {
    const int64_t end = std::min(S, begin + chunk_rows);
    Tensor logits = Tensor::empty({end - begin, w.dim(0)}, x.dtype(), x.device(), "logits");
    kernel::matmul_nt(logits, x.slice_rows(begin, end), w, false);
    Tensor loss = out.slice_rows(begin, end), unwanted;
    kernel::cross_entropy(loss, unwanted, logits, target.slice_rows(begin, end));
  }
  kernel::scale(out, out, -1);
  return out;
}

}  // namespace burrow
