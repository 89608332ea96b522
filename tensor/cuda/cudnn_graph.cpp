// The graphs of cuDNN's fused attention, forward and backward, over packed sequences.
// The library divides the work; here are only tensor shapes, strides and options.
#include "tensor/cuda/cudnn_graph.h"

namespace burrow::cuda {
namespace {

namespace graphs = cudnn_frontend::graph;
using Handle = std::shared_ptr<graphs::Tensor_attributes>;

// The tensors and options that forward and backward share. The library sees packed rows as [batch, heads,
// longest, size] with a ragged offset: the element at which each sequence begins.
struct Packed {
  const FusedProblem& p;
  std::shared_ptr<graphs::Graph> graph = std::make_shared<graphs::Graph>();
  Handle q_begins, k_begins, lse_begins, q_lengths, k_lengths;

  Packed(const FusedProblem& problem, int capability) : p(problem) {
    graph->set_io_data_type(cudnn_frontend::DataType_t::BFLOAT16)
        .set_intermediate_data_type(cudnn_frontend::DataType_t::FLOAT)
        .set_compute_data_type(cudnn_frontend::DataType_t::FLOAT)
        .set_sm_version(capability);
    const int64_t batch = p.sizes.batch;
    q_begins = index(kQBegins, batch + 1, cudnn_frontend::DataType_t::INT64);
    k_begins = index(kKBegins, batch + 1, cudnn_frontend::DataType_t::INT64);
    lse_begins = index(kLseBegins, batch + 1, cudnn_frontend::DataType_t::INT64);
    q_lengths = index(kQLengths, batch, cudnn_frontend::DataType_t::INT32);
    k_lengths = index(kKLengths, batch, cudnn_frontend::DataType_t::INT32);
  }

  Handle index(FusedTensor id, int64_t n, cudnn_frontend::DataType_t type) const {
    graphs::Tensor_attributes t;
    t.set_uid(id).set_dim({n, 1, 1, 1}).set_stride({1, 1, 1, 1}).set_data_type(type);
    return graph->tensor(t);
  }
  void describe(graphs::Tensor_attributes& t, FusedTensor id, int64_t heads, int64_t size,
                const Handle& begins) const {
    t.set_uid(id)
        .set_dim({p.sizes.batch, heads, p.sizes.longest, size})
        .set_stride({p.sizes.longest * heads * size, size, heads * size, 1})
        .set_ragged_offset(begins);
  }
  void describe_queries(graphs::Tensor_attributes& t, FusedTensor id) const {
    describe(t, id, p.heads, p.head_size, q_begins);
  }
  void describe_keys(graphs::Tensor_attributes& t, FusedTensor id) const {
    describe(t, id, p.kv_heads, p.head_size, k_begins);
  }
  // lse as [Nq,H], the layout of our own kernels.
  void describe_lse(graphs::Tensor_attributes& t) const {
    describe(t, kLse, p.heads, 1, lse_begins);
    t.set_data_type(cudnn_frontend::DataType_t::FLOAT);
  }
  Handle queries(FusedTensor id) const {
    graphs::Tensor_attributes t;
    describe_queries(t, id);
    return graph->tensor(t);
  }
  Handle keys(FusedTensor id) const {
    graphs::Tensor_attributes t;
    describe_keys(t, id);
    return graph->tensor(t);
  }
  // Scale, sequence lengths and mask of the scores, equal in both directions.
  template <class Attributes>
  Attributes scores() const {
    Attributes a;
    a.set_attn_scale(p.scale).set_padding_mask(true).set_seq_len_q(q_lengths).set_seq_len_kv(k_lengths);
    if (p.causal) {
      a.set_diagonal_alignment(cudnn_frontend::DiagonalAlignment_t::TOP_LEFT)
          .set_diagonal_band_right_bound(0);
    }
    return a;
  }
};

void forward(const Packed& packed) {
  auto attributes = packed.scores<graphs::SDPA_attributes>();
  attributes.set_name("attention").set_generate_stats(true);
  const auto [y, lse] =
      packed.graph->sdpa(packed.queries(kQ), packed.keys(kK), packed.keys(kV), std::move(attributes));
  packed.describe_queries(y->set_output(true), kY);
  packed.describe_lse(lse->set_output(true));
}

// Uses the deterministic algorithm: a separate product for each gradient, with the gradients of scores in
// memory that grows with batch * heads * longest^2.
void backward(const Packed& packed) {
  auto attributes = packed.scores<graphs::SDPA_backward_attributes>();
  attributes.set_name("attention_backward")
      .set_deterministic_algorithm(true)
      .set_max_total_seq_len_q(packed.p.sizes.q_rows)  // else scratch memory is sized for batch * longest
      .set_max_total_seq_len_kv(packed.p.sizes.k_rows);
  graphs::Tensor_attributes lse;
  packed.describe_lse(lse);
  const auto [dq, dk, dv] =
      packed.graph->sdpa_backward(packed.queries(kQ), packed.keys(kK), packed.keys(kV), packed.queries(kY),
                                  packed.queries(kDy), packed.graph->tensor(lse), std::move(attributes));
  packed.describe_queries(dq->set_output(true), kDq);
  packed.describe_keys(dk->set_output(true), kDk);
  packed.describe_keys(dv->set_output(true), kDv);
}

}  // namespace

std::shared_ptr<graphs::Graph> fused_graph(const FusedProblem& problem, int capability) {
  const Packed packed(problem, capability);
  problem.backward ? backward(packed) : forward(packed);
  return packed.graph;
}

}  // namespace burrow::cuda
