#pragma once
// Terms over the Routings that a micro-batch gathered.
#include <span>

#include "moe/router.h"

namespace burrow::moe {

// Load balancing (LLaVA-MoLE's released code; Switch Transformer, arXiv 2101.03961, section 2.2):
//   mean over groups g of  sum_e  P[g,e] C[g,e]
// P the mean probability of expert e (less the threshold where one is learned, as AdaMoLE's code has it), C
// its share (BalanceShare). A group is a sample or the micro-batch; layers are pooled before the product, or
// the product is taken per layer or per router and then averaged, or summed with `sum`. Uniform top-K routing
// gives K/E, or K with times_experts. Routers with one expert are left out; without any other the result is
// undefined. -> [1]
Var balance_loss(std::span<const Routing> routings, const nn::Pass& pass, const BalanceConfig& config);

// The mean over rows and routers of the entropy of their probabilities (DynMoLE, arXiv 2504.00661, and its
// authors' code). Undefined without a router. -> [1]
Var entropy_loss(std::span<const Routing> routings, const EntropyConfig& config);

// LoRAMoE's localised balancing constraint in its authors' form (arXiv 2312.09979, divides by
// the mean): summed over routers, with Z[b,e] = i[b,e] sum of expert e's weights over the rows of sample b,
//   variance(Z) / (mean(Z)^2 + 1e-10)
// over all samples and experts of the micro-batch, the variance unbiased. i is 1 + delta where sample and
// expert are of one type, else 1 - delta. `datasets` is the number of data sets that the segments' indices
// run over. Undefined without a router. -> [1]
Var localised_loss(std::span<const Routing> routings, const nn::Pass& pass, const LocalisedConfig& config,
                   int64_t datasets);

// LD-MoLE's sparsity loss (github.com/eshentw/LD-MoLE): the mean over rows and routers of
//   relu(1 - (sum of the k largest logits - k times the next) - lambda)
// which is 0 where at most k experts have a share; the logits have no gradient. Routers of sparsegen with
// more than k experts count; without any the result is undefined. -> [1]
Var sparsity_loss(std::span<const Routing> routings, const SparsityConfig& config);

// FactorLLM's Prior-Approximate loss (arXiv 2408.11855, its authors' code): the mean over rows and routers of
// KL(p || softmax(label)), p the router's probabilities on what the dense model's FFN read, clipped to
// [1e-7, 1 - 1e-7]; or of the cross entropy of p with the labels, each of the k with weight 1/k. Routers of
// more than one block with a record of the dense model (record_dense) count; without any the result is
// undefined. -> [1]
Var prior_loss(std::span<const Routing> routings, const PriorConfig& config);

// What a micro-batch is of its step.
struct StepShare {
  double samples = 1, rows = 1;  // its part of the step's
  int64_t micro_batches = 1;
};
// One loss beside the task's, over one micro-batch.
struct AuxiliaryTerm {
  const char* name;   // its section in the config
  double weight = 0;  // of the mean over the step
  double share = 1;   // of this micro-batch in that mean
  Var value;          // [1]
};
// The terms whose weight is not 0. A mean over samples or rows counts by the share of these, so that the step
// does not depend on its micro-batches; a product of means over the micro-batch (scope batch) counts as one
// of them, and equality is not claimed.
std::vector<AuxiliaryTerm> auxiliary_terms(std::span<const Routing> routings, const nn::Pass& pass,
                                           const MethodConfig& config, const StepShare& share,
                                           int64_t datasets);

// How one router treated one dataset's rows: summed over rows, so that micro-batches add up.
struct RouterStatistics {
  std::string site;
  std::vector<std::vector<double>>
      chosen;                  // [dataset][expert] rows that chose it (soft: whose most probable it is)
  std::vector<double> active;  // [dataset] sum of the experts whose weight is not 0
  std::vector<double> entropy, rows;  // [dataset] sum of -sum p ln p in nats, and the rows
};
// One entry a router. `datasets` is the number of datasets that the segments' indices run over.
std::vector<RouterStatistics> routing_statistics(std::span<const Routing> routings, const nn::Pass& pass,
                                                 int64_t datasets);
void add_statistics(std::vector<RouterStatistics>& sum, const std::vector<RouterStatistics>& more);

}  // namespace burrow::moe
