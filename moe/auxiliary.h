#pragma once
// Terms over the Routings that a micro-batch gathered.
#include <span>

#include "moe/router.h"

namespace burrow::moe {

// Load balancing (LLaVA-MoLE's released code; Switch Transformer, arXiv 2101.03961, section 2.2):
//   mean over groups g of  sum_e  P[g,e] C[g,e]
// P the mean probability of expert e, C the share of rows that chose it (no gradient). A group is a sample
// or the micro-batch; layers are pooled before the product, or the product is taken per layer or per router
// and then averaged. Uniform top-K routing gives K/E, or K with times_experts. Routers with one expert are
// left out; without any other the result is undefined. -> [1]
Var balance_loss(std::span<const Routing> routings, const nn::Pass& pass, const BalanceConfig& config);

// What a micro-batch's balance loss counts for in its step: its share of the samples (scope sample), or one
// of the micro-batches (scope batch, where equality under accumulation is not claimed).
double balance_share(const BalanceConfig& config, int64_t samples, int64_t step_samples,
                     int64_t micro_batches);

// How one router treated one dataset's rows: summed over rows, so that micro-batches add up.
struct RouterStatistics {
  std::string site;
  std::vector<std::vector<double>> chosen;  // [dataset][expert] rows that chose it
  std::vector<double> entropy, rows;        // [dataset] sum of -sum p ln p in nats, and the rows
};
// One entry a router. `datasets` is the number of datasets that the segments' indices run over.
std::vector<RouterStatistics> routing_statistics(std::span<const Routing> routings, const nn::Pass& pass,
                                                 int64_t datasets);
void add_statistics(std::vector<RouterStatistics>& sum, const std::vector<RouterStatistics>& more);

}  // namespace burrow::moe
