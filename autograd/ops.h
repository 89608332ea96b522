#pragma once
// Differentiable operations. Each is one function in autograd/ops_<topic>.cpp with four parts in order: shape
// checks, output, kernel call, record(name, output, {inputs}, gradient). Gradients that are not wanted are
// not computed, and their inputs not kept, which saves most memory with a frozen base.
// N rows (tokens), C channels, O output channels, H heads, D head size, V vocabulary, E experts, R rank.
#include "autograd/var.h"
#include "tensor/kernels.h"

namespace burrow {

// ops_linear.cpp
Var linear(const Var& x, const Var& w, const Var& bias = {});  // x [N,C], w [O,C], bias [O] -> [N,O]
// The same with y in f32 if x is bf16, for a router's logits, which must not be rounded. -> [N,O]
Var linear_to_sums(const Var& x, const Var& w, const Var& bias = {});
// A Linear with a LoRA update: x wᵀ + bias + h bᵀ, with h [N,R] and LoRA's B as b [O,R] (Hu et al. 2021,
// arXiv 2106.09685, section 4.1). -> [N,O]
Var linear_with_lora(const Var& x, const Var& w, const Var& bias, const Var& h, const Var& b);
// Sum over rows of -log softmax(x wᵀ)[target]. Only the logits of one chunk of rows exist at a time; the
// gradient is computed in the forward, at unit scale. x [S,C], w [V,C], target i32 [S] -> [1]
Var linear_cross_entropy(const Var& x, const Var& w, const Tensor& target, int64_t chunk_rows = 1024);
// The log-probability of each target, for scoring; has no gradient. -> [S]
Tensor linear_log_prob(const Tensor& x, const Tensor& w, const Tensor& target, int64_t chunk_rows = 1024);

// ops_pointwise.cpp: any shape
Var unary(const Var& x, Unary op);
Var add(const Var& a, const Var& b);
Var mul(const Var& a, const Var& b);
Var scale(const Var& x, double alpha);
Var cast(const Var& x, DType dtype);         // the same elements in another float type
Var swiglu(const Var& gate, const Var& up);  // silu(gate) * up
// Inverted dropout, drawn by (ordinal, position, channel): x [N,C], ordinal position i32 [N] -> [N,C]
Var dropout(const Var& x, const Tensor& ordinal, const Tensor& position, uint64_t key, double p);
Var dot(const Var& a, const Var& b, double alpha = 1);  // alpha sum(a b) -> [1]

// ops_norm.cpp
Var rms_norm(const Var& x, const Var& w, double eps);  // x [N,C], w [C] -> [N,C]
// s = x + added and rms_norm(s) in one pass, for a residual stream and the layer that reads it.
struct NormedSum {
  Var sum, normed;  // [N,C]
};
NormedSum add_rms_norm(const Var& x, const Var& added, const Var& w, double eps);  // x added [N,C], w [C]
Var layer_norm(const Var& x, const Var& w, const Var& b, double eps);  // x [N,C], w b [C] -> [N,C]

// ops_attention.cpp
// x [N,H*D], position i32 [N] -> [N,H*D]
Var rope(const Var& x, const Tensor& position, int64_t heads, double theta);
// q [Nq,H*D], k v [Nk,Hkv*D] -> [Nq,H*D]; kernels.def says which keys a query sees
Var attention(const Var& q, const Var& k, const Var& v, const AttentionRanges& ranges,
              const AttentionShape& shape);

// ops_rows.cpp
// y[n] = table[id[n]], or visual[-1 - id[n]] where id is negative. table [V,C], visual [M,C] -> [N,C]
Var embedding(const Var& table, const Var& visual, const Tensor& id);
Var reshape(const Var& x, Shape shape);                   // the same elements in row-major order
Var concat_rows(const std::vector<Var>& x);               // x_i [N_i,C] -> [sum of N_i, C]
Var columns(const Var& x, int64_t first, int64_t count);  // x [N,C] -> [N,count] from column `first`
Var gather_rows(const Var& x, const Tensor& index);       // x [M,C], index i32 [N] -> [N,C]
// y[m] = sum of x[n] with index[n] = m: x [N,C], index i32 [N] -> [rows,C]
Var scatter_rows(const Var& x, const Tensor& index, int64_t rows);
Var group_mean(const Var& x, const Tensor& group, int64_t groups);  // x [N,C], group i32 [N] -> [groups,C]

// ops_routing.cpp: probs weights [N,E]
Var softmax(const Var& x);  // rows of [N,C] -> [N,C]
// Groups of rows for the sums and means of route: `of` i32 [N] in [-1, count), or undefined.
struct RouteGroups {
  Tensor of = {};
  int64_t count = 0;
  bool one_mean = false;  // the means are over all groups, [1,E], instead of [count,E]
};
// The outputs of route, with the shapes of RouteTensors. Those that neither rule nor groups request are
// undefined. The choice has no gradient; the weights have one if rule.weights_learn().
struct Routed {
  Var probs = {}, weights = {}, entropy = {}, mean_probs = {}, mean_weights = {};
  Tensor chosen = {}, mean_chosen = {}, sums = {};
};
Routed route(const Var& logits, const RouteRule& rule, const RouteGroups& groups = {});  // logits [N,E]
// y[n, e*R + r] = alpha weights[n,e] h[n, e*R + r]: h [N,E*R], weights [N,E] -> [N,E*R]
Var scale_experts(const Var& h, const Var& weights, double alpha);
Var sum_columns(const Var& x);     // y[n] = sum_e x[n,e]: x [N,E] -> [N,1]
Var normalise_rows(const Var& x);  // x[n,e] / sum_j x[n,j], and 0 where that sum is 0: x [N,E] -> [N,E]

// ops_experts.cpp: LoRA experts computed only on the rows that chose them. M = N*K places (kernels.def).
ExpertGroups group_by_expert(const Tensor& chosen, int64_t k);               // chosen [N,E], k per row
Var grouped_linear(const Var& x, const Var& a, const ExpertGroups& groups);  // x [N,C], a [E*R,C] -> [M,R]
// y[j] = alpha weights[n,e] h[j], e the expert of place j and n its row: h [M,R], weights [N,E] -> [M,R]
Var grouped_scale(const Var& h, const Var& weights, const ExpertGroups& groups, double alpha);
// y[j] = weights[n,e] silu(gate[j]) up[j]: whole FFNs as experts. gate up [M,F], weights [N,E] -> [M,F]
Var grouped_swiglu(const Var& gate, const Var& up, const Var& weights, const ExpertGroups& groups);
// x wᵀ + bias, and b_e h[j] added to the row of each place j: h [M,R], b [O,E*R] -> [N,O]
Var linear_with_grouped_lora(const Var& x, const Var& w, const Var& bias, const Var& h, const Var& b,
                             const ExpertGroups& groups);
// Groups in which each place j has a row of its own, row j.
ExpertGroups own_places(const ExpertGroups& groups);
// z[j] = y[n] + b_e h[j]: a row of output per choice, from a shared y [N,O]; h [M,R], b [O,E*R] -> [M,O]
Var spread_with_grouped_lora(const Var& y, const Var& h, const Var& b, const ExpertGroups& groups);

}  // namespace burrow
