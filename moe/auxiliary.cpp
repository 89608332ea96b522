#include "moe/auxiliary.h"

#include <map>

namespace burrow::moe {
namespace {

Var sum_of(const std::vector<Var>& terms) {
  Var sum = terms[0];
  for (size_t i = 1; i < terms.size(); ++i) sum = add(sum, terms[i]);
  return sum;
}
Var mean_of(const std::vector<Var>& terms) {
  const Var sum = sum_of(terms);
  return terms.size() == 1 ? sum : scale(sum, 1.0 / static_cast<double>(terms.size()));
}

// Probabilities and shares of one router, averaged over the rows of each group: both [G,E].
struct GroupMeans {
  Var probs, share;
};

GroupMeans group_means(const Routing& r, const Tensor& group, int64_t groups, BalanceShare share) {
  const Var counted = share == BalanceShare::weights ? r.weights : Var(r.chosen);
  GroupMeans m{group_mean(r.probs, group, groups), group_mean(counted, group, groups)};
  return m;
}

Var balance_term(const std::vector<GroupMeans>& pooled, int64_t groups, BalanceShare share) {
  std::vector<Var> probs, shares;
  for (const GroupMeans& m : pooled) {
    probs.push_back(m.probs);
    shares.push_back(m.share);
  }
  const Var mean = mean_of(shares);
  return dot(mean_of(probs), share == BalanceShare::choices ? normalise_rows(mean) : mean,
             1.0 / static_cast<double>(groups));
}

}  // namespace

Var balance_loss(std::span<const Routing> routings, const nn::Pass& pass, const BalanceConfig& config) {
  const bool per_sample = config.scope == BalanceScope::sample;
  const int64_t groups = per_sample ? pass.segments->count() : 1;
  const Tensor group =
      per_sample ? pass.sequence : Tensor::zeros({pass.segments->rows()}, DType::i32, pass.sequence.device());
  // Routings that share a key are pooled before the product. Experts of different number cannot be.
  std::map<std::pair<std::string, int64_t>, std::vector<GroupMeans>> pools;
  for (const Routing& r : routings) {
    const int64_t E = r.probs.dim(1);
    if (E == 1) continue;
    const std::string key = config.pool == BalancePool::all_layers ? ""
                            : config.pool == BalancePool::layer    ? fmt::format("{:06}", r.layer)
                                                                   : r.site;
    pools[{key, E}].push_back(group_means(r, group, groups, config.share));
  }
  if (pools.empty()) return {};
  std::vector<Var> terms;
  for (const auto& [key, pooled] : pools) {
    const Var term = balance_term(pooled, groups, config.share);
    terms.push_back(config.times_experts ? scale(term, static_cast<double>(key.second)) : term);
  }
  return config.sum ? sum_of(terms) : mean_of(terms);
}

Var entropy_loss(std::span<const Routing> routings, const EntropyConfig& config) {
  std::vector<Var> terms;
  for (const Routing& r : routings) {
    if (r.probs.dim(1) == 1) continue;
    const Var h = r.entropy.defined() ? r.entropy : entropy_of(r.probs, config);
    const Tensor& H = h.value();
    terms.push_back(dot(h, Var(Tensor::full(H.shape(), 1, H.dtype(), H.device())),
                        1 / static_cast<double>(std::max<int64_t>(H.numel(), 1))));
  }
  return terms.empty() ? Var{} : mean_of(terms);
}

std::vector<AuxiliaryTerm> auxiliary_terms(std::span<const Routing> routings, const nn::Pass& pass,
                                           const MethodConfig& c, const StepShare& share) {
  const double one_of_all = 1 / static_cast<double>(share.micro_batches);
  std::vector<AuxiliaryTerm> terms;
  const auto add_term = [&](const char* name, double weight, double part, const auto& value) {
    if (weight == 0) return;
    if (const Var v = value(); v.defined()) terms.push_back({name, weight, part, v});
  };
  add_term("balance", c.balance.weight, c.balance.scope == BalanceScope::sample ? share.samples : one_of_all,
           [&] { return balance_loss(routings, pass, c.balance); });
  add_term("entropy", c.entropy.weight, share.rows, [&] { return entropy_loss(routings, c.entropy); });
  return terms;
}

std::vector<RouterStatistics> routing_statistics(std::span<const Routing> routings, const nn::Pass& pass,
                                                 int64_t datasets) {
  NoGrad no_grad;
  const Segments& s = *pass.segments;
  std::vector<int32_t> dataset;
  for (const int32_t b : s.sequence) dataset.push_back(s.dataset[static_cast<size_t>(b)]);
  const Tensor group = Tensor::of({s.rows()}, dataset).to(pass.sequence.device());
  std::vector<RouterStatistics> all;
  for (const Routing& r : routings) {
    const Tensor& P = r.probs.value();
    Tensor entropy = Tensor::empty({P.dim(0)}, P.dtype(), P.device());
    kernel::entropy(entropy, P);
    Tensor share = Tensor::empty({datasets, P.dim(1)}, P.dtype(), P.device());
    Tensor mean_entropy = Tensor::empty({datasets, 1}, P.dtype(), P.device());
    Tensor count = Tensor::empty({datasets}, P.dtype(), P.device());
    kernel::group_mean(share, count, r.chosen, group);
    kernel::group_mean(mean_entropy, count, entropy.reshape({P.dim(0), 1}), group);
    RouterStatistics stats{r.site, {}, {}, {}};
    const Tensor h_share = share.to(Device::cpu).to(DType::f64),
                 h_entropy = mean_entropy.to(Device::cpu).to(DType::f64),
                 h_count = count.to(Device::cpu).to(DType::f64);
    for (int64_t d = 0; d < datasets; ++d) {
      const double rows = h_count.data<double>()[d];
      stats.rows.push_back(rows);
      stats.entropy.push_back(rows * h_entropy.data<double>()[d]);
      stats.chosen.emplace_back();
      for (int64_t e = 0; e < P.dim(1); ++e)
        stats.chosen.back().push_back(rows * h_share.data<double>()[d * P.dim(1) + e]);
    }
    all.push_back(std::move(stats));
  }
  return all;
}

void add_statistics(std::vector<RouterStatistics>& sum, const std::vector<RouterStatistics>& more) {
  if (sum.empty()) {
    sum = more;
    return;
  }
  for (size_t i = 0; i < sum.size(); ++i) {
    for (size_t d = 0; d < sum[i].rows.size(); ++d) {
      sum[i].rows[d] += more[i].rows[d];
      sum[i].entropy[d] += more[i].entropy[d];
      for (size_t e = 0; e < sum[i].chosen[d].size(); ++e) sum[i].chosen[d][e] += more[i].chosen[d][e];
    }
  }
}

}  // namespace burrow::moe
