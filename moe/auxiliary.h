#pragma once
// Auxiliary losses and statistics computed from the Routings of a micro-batch.
#include <span>

#include "moe/router.h"

namespace burrow::moe {

// Load balancing (LLaVA-MoLE's released code; Switch Transformer, arXiv 2101.03961, section 2.2):
//   mean over groups g of  sum_e  P[g,e] C[g,e]
// P is the mean probability of expert e (minus the threshold if one is learned, as in AdaMoLE's code), C its
// share (BalanceShare). A group is a sample or the micro-batch. All layers are pooled before the product, or
// the product is computed per layer or per router and then averaged, or summed with `sum`. Uniform top-K
// routing results in K/E, or K with times_experts. Routers with one expert are skipped; undefined if all have
// one. -> [1]
Var balance_loss(std::span<const Routing> routings, const nn::Pass& pass, const BalanceConfig& config);

// The entropy of the router probabilities, averaged over rows and routers (DynMoLE, arXiv 2504.00661, and its
// authors' code). Undefined without a router. -> [1]
Var entropy_loss(std::span<const Routing> routings, const EntropyConfig& config);

// LoRAMoE's localised balancing constraint as in its authors' code (arXiv 2312.09979; the paper divides by
// the mean), summed over routers:
//   variance(Z) / (mean(Z)^2 + 1e-10),  Z[b,e] = i[b,e] sum of expert e's weights over the rows of sample b
// The variance is unbiased, over all samples and experts of the micro-batch. i is 1 + delta if sample and
// expert have the same type, else 1 - delta. `datasets` is the number of data sets. Undefined without a
// router.
// -> [1]
Var localised_loss(std::span<const Routing> routings, const nn::Pass& pass, const LocalisedConfig& config,
                   int64_t datasets);

// LD-MoLE's sparsity loss (github.com/eshentw/LD-MoLE): the mean over rows and routers of
//   relu(1 - (sum of the k largest logits - k times the next) - lambda)
// which is 0 for a row with at most k experts of non-zero weight; the logits receive no gradient. Only
// sparsegen routers with more than k experts are included; undefined without any. -> [1]
Var sparsity_loss(std::span<const Routing> routings, const SparsityConfig& config);

// FactorLLM's Prior-Approximate loss (arXiv 2408.11855, its authors' code): KL(p || softmax(label)) averaged
// over rows and routers, p the router's probabilities on the input of the dense model's FFN, clipped to
// [1e-7, 1 - 1e-7]; or the cross entropy of p with the labels, each of the k with weight 1/k. Only routers
// with more than one block and a record of the dense model (record_dense) are included; undefined without
// any. -> [1]
Var prior_loss(std::span<const Routing> routings, const PriorConfig& config);

// The share of a step that one micro-batch makes up.
struct StepShare {
  double samples = 1, rows = 1;  // fraction of the step's samples, of its rows
  int64_t micro_batches = 1;
};
// One auxiliary loss of one micro-batch.
struct AuxiliaryTerm {
  const char* name;   // the config section below `method`
  double weight = 0;  // coefficient of the step's mean
  double share = 1;   // weight of this micro-batch in the step's mean
  Var value;          // [1]
};
// The auxiliary losses with non-zero weight. Means over samples or rows are weighted by the micro-batch's
// share of these, so that the step's loss does not depend on how it is split into micro-batches. A product of
// means over the micro-batch (scope batch) has weight 1/micro_batches, and does depend on it.
std::vector<AuxiliaryTerm> auxiliary_terms(std::span<const Routing> routings, const nn::Pass& pass,
                                           const MethodConfig& config, const StepShare& share,
                                           int64_t datasets);

// One router's decisions for the rows of each dataset, as sums over rows, so that micro-batches can be added.
struct RouterStatistics {
  std::string site;
  std::vector<std::vector<double>>
      chosen;  // [dataset][expert] rows that chose the expert (soft: as the most probable one)
  std::vector<double> active;         // [dataset] number of experts with non-zero weight, summed over rows
  std::vector<double> entropy, rows;  // [dataset] -sum p ln p in nats, summed over rows; number of rows
};
// One entry per router. `datasets` is the number of data sets.
std::vector<RouterStatistics> routing_statistics(std::span<const Routing> routings, const nn::Pass& pass,
                                                 int64_t datasets);
void add_statistics(std::vector<RouterStatistics>& sum, const std::vector<RouterStatistics>& more);

}  // namespace burrow::moe
