#pragma once
// Argument checks of the routing kernels, shared by both devices; each throws an Error.
#include "tensor/checks.h"
#include "tensor/kernels.h"

namespace burrow {

// The outputs and inputs of route, with those of groups if `group` is defined.
inline void check_route(const char* op, const RouteTensors& out, const Tensor& logits, const Tensor& group,
                        const RouteRule& rule) {
  const int64_t N = leading(logits), E = channels(logits);
  const bool hybrid = rule.choice == RouteRule::Choice::hybrid;
  BURROW_CHECK(E > 0 && rule.k >= (hybrid ? 0 : 1) && rule.k <= E, "[{}] k is {}, for logits {}", op, rule.k,
               logits.shape());
  BURROW_CHECK(!hybrid || out.entropy.defined(),
               "[{}] the hybrid choice needs an entropy, which is undefined", op);
  check_matrix(op, "probs", out.probs, logits.dtype(), N, E);
  check_matrix(op, "chosen", out.chosen, logits.dtype(), N, E);
  check_matrix(op, "weights", out.weights, logits.dtype(), N, E);
  if (out.entropy.defined()) check_vector(op, "entropy", out.entropy, logits.dtype(), N);
  if (!group.defined()) return;
  const int64_t G = leading(out.sums), means = leading(out.mean_probs);
  check_vector(op, "group", group, DType::i32, N);
  check_matrix(op, "sums", out.sums, logits.dtype(), G, E + 3);
  BURROW_CHECK(means == 1 || means == G,
               "[{}] {} rows of means for {} groups, expected one per group or one for all", op, means, G);
  check_matrix(op, "mean_probs", out.mean_probs, logits.dtype(), means, E);
  check_matrix(op, "mean_weights", out.mean_weights, logits.dtype(), means, E);
  check_matrix(op, "mean_chosen", out.mean_chosen, logits.dtype(), means, E);
  check_vector(op, "mean_rows", out.mean_rows, logits.dtype(), means);
}

// The arguments of route_sums.
inline void check_route_sums(const char* op, const Tensor& sums, const Tensor& probs, const Tensor& chosen,
                             const Tensor& weights, const Tensor& group) {
  check_same(op, "chosen", chosen, "probs", probs);
  check_same(op, "weights", weights, "probs", probs);
  check_vector(op, "group", group, DType::i32, leading(probs));
  check_matrix(op, "sums", sums, probs.dtype(), leading(sums), channels(probs) + 3);
}

// The arguments of route_backward: gradients have the shapes of their outputs.
inline void check_route_backward(const char* op, const Tensor& dlogits, const RouteTensors& dout,
                                 const RouteTensors& out, const Tensor& group) {
  const auto check = [&](const char* name, const Tensor& gradient, const Tensor& value) {
    if (gradient.defined()) check_same(op, name, gradient, "its output", value);
  };
  check_same(op, "dlogits", dlogits, "probs", out.probs);
  check("dprobs", dout.probs, out.probs);
  check("dweights", dout.weights, out.weights);
  check("dentropy", dout.entropy, out.entropy);
  check("dmean_probs", dout.mean_probs, out.mean_probs);
  check("dmean_weights", dout.mean_weights, out.mean_weights);
  if (dout.mean_probs.defined() || dout.mean_weights.defined())
    check_vector(op, "group", group, DType::i32, leading(out.probs));
}

}  // namespace burrow
