#include <algorithm>

#include "autograd/ops.h"

namespace burrow {

namespace {

Var linear_of(const Var& x, const Var& w, const Var& bias, DType dtype) {
  const Tensor &X = x.value(), &W = w.value();
  BURROW_CHECK(X.rank() == 2 && W.rank() == 2 && X.dim(1) == W.dim(1),
               "[linear] x {} and w {}: inner sizes differ", X.shape(), W.shape());
  Tensor y = Tensor::empty({X.dim(0), W.dim(0)}, dtype, X.device(), "linear");
  kernel::matmul_nt(y, X, W, bias.value(), false);
  const Tensor kept_x = w.needs_grad() ? X : Tensor{}, kept_w = x.needs_grad() ? W : Tensor{};
  return record("linear", y, {x, w, bias}, [kept_x, kept_w](const Tensor& dy, Grads& g) {
    if (auto [dx, adds] = g.target(0); dx.defined()) kernel::matmul_nn(dx, dy, kept_w, adds);
    if (auto [dw, adds] = g.target(1); dw.defined()) kernel::matmul_tn(dw, dy, kept_x, adds);
    if (auto [db, adds] = g.target(2); db.defined()) kernel::sum_rows(db, dy, adds);
  });
}

}  // namespace

Var linear(const Var& x, const Var& w, const Var& bias) { return linear_of(x, w, bias, x.value().dtype()); }
Var linear_to_sums(const Var& x, const Var& w, const Var& bias) {
  return linear_of(x, w, bias, sum_type(x.value().dtype()));
}

Var linear_with_lora(const Var& x, const Var& w, const Var& bias, const Var& h, const Var& b) {
  const Tensor &X = x.value(), &W = w.value(), &H = h.value(), &B = b.value();
  BURROW_CHECK(X.dim(1) == W.dim(1) && H.dim(1) == B.dim(1) && X.dim(0) == H.dim(0) && W.dim(0) == B.dim(0),
               "[linear_with_lora] x {}, w {}, h {} and b {} do not match", X.shape(), W.shape(), H.shape(),
               B.shape());
  Tensor y = Tensor::empty({X.dim(0), W.dim(0)}, X.dtype(), X.device(), "linear");
  kernel::matmul_nt(y, X, W, bias.value(), false);
  kernel::matmul_nt(y, H, B, {}, true);
  const Tensor kept_x = w.needs_grad() ? X : Tensor{}, kept_w = x.needs_grad() ? W : Tensor{};
  const Tensor kept_h = b.needs_grad() ? H : Tensor{}, kept_b = h.needs_grad() ? B : Tensor{};
  return record("linear_with_lora", y, {x, w, bias, h, b},
                [kept_x, kept_w, kept_h, kept_b](const Tensor& dy, Grads& g) {
                  if (auto [dx, adds] = g.target(0); dx.defined()) kernel::matmul_nn(dx, dy, kept_w, adds);
                  if (auto [dw, adds] = g.target(1); dw.defined()) kernel::matmul_tn(dw, dy, kept_x, adds);
                  if (auto [dbias, adds] = g.target(2); dbias.defined()) kernel::sum_rows(dbias, dy, adds);
                  if (auto [dh, adds] = g.target(3); dh.defined()) kernel::matmul_nn(dh, dy, kept_b, adds);
                  if (auto [db, adds] = g.target(4); db.defined()) kernel::matmul_tn(db, dy, kept_h, adds);
                });
}

Var linear_cross_entropy(const Var& x, const Var& w, const Tensor& target, int64_t chunk_rows) {
  const Tensor &X = x.value(), &W = w.value();
  const int64_t S = X.dim(0), V = W.dim(0);
  BURROW_CHECK(X.dim(1) == W.dim(1) && target.shape() == Shape({S}),
               "[linear_cross_entropy] x {}, w {} and target {} do not match", X.shape(), W.shape(),
               target.shape());
  const DType sums = sum_type(X.dtype());
  const bool wants_x = any_needs_grad({&x}), wants_w = any_needs_grad({&w});
  Tensor losses = Tensor::empty({S}, sums, X.device(), "cross_entropy");
  Tensor dx = wants_x ? Tensor::empty(X.shape(), X.dtype(), X.device(), "cross_entropy") : Tensor{};
  Tensor dw = wants_w ? Tensor::zeros(W.shape(), sums, X.device(), "cross_entropy") : Tensor{};
  for (int64_t begin = 0; begin < S; begin += chunk_rows) {
    const int64_t end = std::min(S, begin + chunk_rows);
    const Tensor rows = X.slice_rows(begin, end);
    Tensor logits = Tensor::empty({end - begin, V}, X.dtype(), X.device(), "logits");
    kernel::matmul_nt(logits, rows, W, {}, false);
    Tensor loss = losses.slice_rows(begin, end), dlogits = wants_x || wants_w ? logits : Tensor{};
    kernel::cross_entropy(loss, dlogits, logits, target.slice_rows(begin, end));
    if (wants_x) {
      Tensor out = dx.slice_rows(begin, end);
      kernel::matmul_nn(out, dlogits, W, false);
    }
    if (wants_w) kernel::matmul_tn(dw, dlogits, rows, true);
  }
  Tensor sum = Tensor::empty({1}, sums, X.device(), "loss");
  kernel::dot(sum, losses, Tensor::full({S}, 1, sums, X.device()), 1);
  return record("linear_cross_entropy", sum, {x, w}, [dx, dw](const Tensor& dy, Grads& g) {
    if (g.wants(0)) {
      Tensor out = g.like(0);
      kernel::scale_by(out, dx, dy, 1, false);
      g.add(0, out);
    }
    if (Tensor out = g.accumulator(1); out.defined()) kernel::scale_by(out, dw, dy, 1, true);
  });
}

Tensor linear_log_prob(const Tensor& x, const Tensor& w, const Tensor& target, int64_t chunk_rows) {
  const int64_t S = x.dim(0);
  Tensor out = Tensor::empty({S}, sum_type(x.dtype()), x.device(), "log_prob");
  for (int64_t begin = 0; begin < S; begin += chunk_rows) {
    const int64_t end = std::min(S, begin + chunk_rows);
    Tensor logits = Tensor::empty({end - begin, w.dim(0)}, x.dtype(), x.device(), "logits");
    kernel::matmul_nt(logits, x.slice_rows(begin, end), w, {}, false);
    Tensor loss = out.slice_rows(begin, end), unwanted;
    kernel::cross_entropy(loss, unwanted, logits, target.slice_rows(begin, end));
  }
  kernel::scale(out, out, -1);
  return out;
}

}  // namespace burrow
