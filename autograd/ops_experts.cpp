#include <numeric>

#include "autograd/ops.h"

namespace burrow {

ExpertGroups group_by_expert(const Tensor& chosen, int64_t k) {
  BURROW_CHECK(chosen.rank() == 2, "[group_by_expert] chosen {} is not a matrix", chosen.shape());
  ExpertGroups groups{
      Tensor::empty({chosen.dim(0) * k}, DType::i32, chosen.device(), "expert_order"),
      Tensor::empty({chosen.dim(1) + 1}, DType::i32, chosen.device(), "expert_offsets"),
  };
  kernel::group_by_expert(groups.order, groups.offsets, chosen);
  return groups;
}

Var grouped_linear(const Var& x, const Var& a, const ExpertGroups& groups) {
  const Tensor &X = x.value(), &A = a.value();
  const int64_t E = groups.offsets.numel() - 1;
  BURROW_CHECK(X.rank() == 2 && A.rank() == 2 && X.dim(1) == A.dim(1) && E > 0 && A.dim(0) % E == 0,
               "[grouped_linear] x {} and a {} do not match for {} experts", X.shape(), A.shape(), E);
  Tensor h = Tensor::empty({groups.order.numel(), A.dim(0) / E}, X.dtype(), X.device(), "grouped_linear");
  kernel::gather_matmul_nt(h, X, A, groups);
  const Tensor kept_x = a.needs_grad() ? X : Tensor{}, kept_a = x.needs_grad() ? A : Tensor{};
  return record("grouped_linear", h, {x, a}, [kept_x, kept_a, groups](const Tensor& dh, Grads& g) {
    if (Tensor dx = g.accumulator(0); dx.defined()) kernel::scatter_matmul_nn(dx, dh, kept_a, groups);
    if (Tensor da = g.accumulator(1); da.defined()) kernel::gather_matmul_tn_a(da, dh, kept_x, groups);
  });
}

Var grouped_scale(const Var& h, const Var& weights, const ExpertGroups& groups, double alpha) {
  const Tensor &H = h.value(), &W = weights.value();
  BURROW_CHECK(H.rank() == 2 && W.rank() == 2 && H.dim(0) == groups.order.numel() &&
                   W.dim(1) + 1 == groups.offsets.numel(),
               "[grouped_scale] h {} and weights {} do not match for {} places of {} experts", H.shape(),
               W.shape(), groups.order.numel(), groups.offsets.numel() - 1);
  Tensor y = Tensor::empty(H.shape(), H.dtype(), H.device(), "grouped_scale");
  kernel::grouped_scale(y, H, W, groups, alpha);
  const Tensor kept_h = weights.needs_grad() ? H : Tensor{};
  return record("grouped_scale", y, {h, weights}, [kept_h, W, groups, alpha](const Tensor& dy, Grads& g) {
    Tensor dh = g.like(0), dweights = g.like(1);
    kernel::grouped_scale_backward(dh, dweights, dy, kept_h, W, groups, alpha);
    g.add(0, dh);
    g.add(1, dweights);
  });
}

Var grouped_swiglu(const Var& gate, const Var& up, const Var& weights, const ExpertGroups& groups) {
  const Tensor &G = gate.value(), &U = up.value(), &W = weights.value();
  BURROW_CHECK(G.rank() == 2 && U.shape() == G.shape() && W.rank() == 2 && G.dim(0) == groups.order.numel() &&
                   W.dim(1) + 1 == groups.offsets.numel(),
               "[grouped_swiglu] gate {}, up {} and weights {} do not match for {} places of {} experts",
               G.shape(), U.shape(), W.shape(), groups.order.numel(), groups.offsets.numel() - 1);
  Tensor y = Tensor::empty(G.shape(), G.dtype(), G.device(), "grouped_swiglu");
  kernel::grouped_swiglu(y, G, U, W, groups);
  return record("grouped_swiglu", y, {gate, up, weights}, [G, U, W, groups](const Tensor& dy, Grads& g) {
    Tensor dgate = g.like(0), dup = g.like(1), dweights = g.like(2);
    kernel::grouped_swiglu_backward(dgate, dup, dweights, dy, G, U, W, groups);
    g.add(0, dgate);
    g.add(1, dup);
    g.add(2, dweights);
  });
}

Var linear_with_grouped_lora(const Var& x, const Var& w, const Var& bias, const Var& h, const Var& b,
                             const ExpertGroups& groups) {
  const Tensor &X = x.value(), &W = w.value(), &H = h.value(), &B = b.value();
  BURROW_CHECK(
      X.dim(1) == W.dim(1) && H.dim(0) == groups.order.numel() && W.dim(0) == B.dim(0) &&
          B.dim(1) == H.dim(1) * (groups.offsets.numel() - 1),
      "[linear_with_grouped_lora] x {}, w {}, h {} and b {} do not match for {} places of {} experts",
      X.shape(), W.shape(), H.shape(), B.shape(), groups.order.numel(), groups.offsets.numel() - 1);
  Tensor y = Tensor::empty({X.dim(0), W.dim(0)}, X.dtype(), X.device(), "linear");
  kernel::matmul_nt(y, X, W, bias.value(), false);
  kernel::scatter_matmul_nt(y, H, B, groups);
  const Tensor kept_x = w.needs_grad() ? X : Tensor{}, kept_w = x.needs_grad() ? W : Tensor{};
  const Tensor kept_h = b.needs_grad() ? H : Tensor{}, kept_b = h.needs_grad() ? B : Tensor{};
  return record("linear_with_grouped_lora", y, {x, w, bias, h, b},
                [kept_x, kept_w, kept_h, kept_b, groups](const Tensor& dy, Grads& g) {
                  if (auto [dx, adds] = g.target(0); dx.defined()) kernel::matmul_nn(dx, dy, kept_w, adds);
                  if (auto [dw, adds] = g.target(1); dw.defined()) kernel::matmul_tn(dw, dy, kept_x, adds);
                  if (auto [dbias, adds] = g.target(2); dbias.defined()) kernel::sum_rows(dbias, dy, adds);
                  if (Tensor dh = g.like(3); dh.defined()) {
                    kernel::gather_matmul_nn(dh, dy, kept_b, groups);
                    g.add(3, dh);
                  }
                  if (Tensor db = g.accumulator(4); db.defined())
                    kernel::gather_matmul_tn_b(db, dy, kept_h, groups);
                });
}

ExpertGroups own_places(const ExpertGroups& groups) {
  std::vector<int32_t> place(static_cast<size_t>(groups.order.numel()));
  std::iota(place.begin(), place.end(), 0);
  return {Tensor::of(groups.order.shape(), place).to(groups.order.device()), groups.offsets};
}

Var spread_with_grouped_lora(const Var& y, const Var& h, const Var& b, const ExpertGroups& groups) {
  const Tensor &Y = y.value(), &H = h.value(), &B = b.value();
  BURROW_CHECK(Y.rank() == 2 && H.dim(0) == groups.order.numel() && Y.dim(1) == B.dim(0) &&
                   B.dim(1) == H.dim(1) * (groups.offsets.numel() - 1),
               "[spread_with_grouped_lora] y {}, h {} and b {} do not match for {} places of {} experts",
               Y.shape(), H.shape(), B.shape(), groups.order.numel(), groups.offsets.numel() - 1);
  const ExpertGroups own = own_places(groups);
  Tensor z = Tensor::empty({H.dim(0), Y.dim(1)}, Y.dtype(), Y.device(), "spread");
  kernel::spread_matmul_nt(z, Y, H, B, groups);
  const Tensor kept_h = b.needs_grad() ? H : Tensor{}, kept_b = h.needs_grad() ? B : Tensor{};
  return record("spread_with_grouped_lora", z, {y, h, b},
                [kept_h, kept_b, own, order = groups.order](const Tensor& dz, Grads& g) {
                  if (auto [dy, adds] = g.target(0); dy.defined()) kernel::scatter_rows(dy, dz, order, adds);
                  if (Tensor dh = g.like(1); dh.defined()) {
                    kernel::gather_matmul_nn(dh, dz, kept_b, own);
                    g.add(1, dh);
                  }
                  if (Tensor db = g.accumulator(2); db.defined())
                    kernel::gather_matmul_tn_b(db, dz, kept_h, own);
                });
}

}  // namespace burrow
