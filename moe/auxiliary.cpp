#include "moe/auxiliary.h"

#include <algorithm>
#include <map>
#include <numeric>

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

// x [N,1] -> [1]
Var mean_over_rows(const Var& x) {
  const Tensor& X = x.value();
  return dot(x, Var(Tensor::full(X.shape(), 1, X.dtype(), X.device())),
             1 / static_cast<double>(std::max<int64_t>(X.numel(), 1)));
}

// A router's probabilities and expert shares, averaged over the rows of each of G groups: both [G,E].
struct GroupMeans {
  Var probs, share;
};

GroupMeans group_means(const Routing& r, const Tensor& group, int64_t groups, BalanceShare share) {
  const bool of_weights = share == BalanceShare::weights;
  if (r.mean_probs.defined() && r.mean_probs.dim(0) == groups)  // route() has computed these means
    return {r.mean_probs, of_weights ? r.mean_weights : Var(r.mean_chosen)};
  const Tensor rows = at_rows(r, group);
  const Var counted = of_weights ? r.weights : Var(r.chosen);
  const Var probs = r.margin.defined() ? r.margin : r.probs;
  GroupMeans m{group_mean(probs, rows, groups), group_mean(counted, rows, groups)};
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
  // Routings with the same key are pooled before the product; those with different E cannot be pooled.
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

Var sparsity_loss(std::span<const Routing> routings, const SparsityConfig& config) {
  const int64_t k = config.experts;
  std::vector<Var> terms;
  for (const Routing& r : routings) {
    if (!r.lambda.defined() || r.logits.dim(1) <= k) continue;
    const Tensor& U = r.logits;
    const auto largest = [&](int64_t count) {  // sum of the `count` largest logits, [N,1]
      Tensor mask = Tensor::empty(U.shape(), U.dtype(), U.device(), "routing");
      kernel::top_k_mask(mask, U, count);
      return sum_columns(mul(Var(U), Var(mask)));
    };
    // lower = k u_(k+1) - S_k, S_k the sum of the k largest logits and u_(k+1) = S_(k+1) - S_k the next one
    const auto factor = static_cast<double>(k);
    const Var lower = add(scale(largest(k), -1 - factor), scale(largest(k + 1), factor));
    const Var one(Tensor::full(lower.shape(), 1, U.dtype(), U.device()));
    terms.push_back(mean_over_rows(unary(add(add(lower, one), scale(r.lambda, -1)), Unary::relu)));
  }
  return terms.empty() ? Var{} : mean_of(terms);
}

Var entropy_loss(std::span<const Routing> routings, const EntropyConfig& config) {
  std::vector<Var> terms;
  for (const Routing& r : routings) {
    if (r.probs.dim(1) == 1) continue;
    const Var h = r.entropy.defined() ? r.entropy : entropy_of(r.probs, config);
    terms.push_back(mean_over_rows(h));
  }
  return terms.empty() ? Var{} : mean_of(terms);
}

namespace {

// min(max(x, low), 1 - low); values within the bounds are unchanged to the bit.
Var clipped(const Var& x, double low) {
  const Tensor& X = x.value();
  const auto constant = [&](double value) {
    return Var(Tensor::full(X.shape(), value, X.dtype(), X.device()));
  };
  const Var below = add(unary(add(constant(low), scale(x, -1)), Unary::relu), x);  // max(x, low)
  return add(below, scale(unary(add(below, constant(low - 1)), Unary::relu), -1));
}

}  // namespace

Var prior_loss(std::span<const Routing> routings, const PriorConfig& config) {
  constexpr double kLeast = 1e-7;
  std::vector<Var> terms;
  for (const Routing& r : routings) {
    if (!r.prior.defined() || r.prior.dim(1) == 1) continue;
    const Var p = clipped(r.prior, kLeast), log_p = unary(p, Unary::log);
    if (config.form == PriorForm::cross_entropy) {
      terms.push_back(mean_over_rows(sum_columns(scale(mul(normalise_rows(Var(r.label)), log_p), -1))));
      continue;
    }
    const Var log_target = unary(softmax(Var(r.label)), Unary::log);  // no clipping needed: labels are 0 or 1
    terms.push_back(mean_over_rows(sum_columns(mul(p, add(log_p, scale(log_target, -1))))));
  }
  return terms.empty() ? Var{} : mean_of(terms);
}

namespace {

// [B,E]: localised_loss's factor i[b,e] times the rows of sample b, which turn a mean over these into a sum.
Tensor type_factors(const Segments& s, const LocalisedConfig& c, int64_t datasets, int64_t E, DType dtype) {
  std::vector<int64_t> types = c.types;
  if (types.empty()) {
    types.resize(static_cast<size_t>(datasets));
    std::iota(types.begin(), types.end(), 0);
  }
  BURROW_CHECK(static_cast<int64_t>(types.size()) >= datasets,
               "method.localised.types: {} values for {} data sets", types.size(), datasets);
  const int64_t T = 1 + *std::max_element(types.begin(), types.end());
  BURROW_CHECK(T <= E, "method.localised.types: {} types need at least as many experts, there are {}", T, E);
  std::vector<double> factors;
  for (int64_t b = 0; b < s.count(); ++b) {
    const auto i = static_cast<size_t>(b);
    const int64_t type = types[static_cast<size_t>(s.dataset[i])];
    for (int64_t e = 0; e < E; ++e) {
      const double sign = e * T / E == type ? 1 : -1;
      factors.push_back((1 + sign * c.delta) * (s.offsets[i + 1] - s.offsets[i]));
    }
  }
  return Tensor::of({s.count(), E}, factors).to(dtype);
}

// variance / (mean^2 + 1e-10) over all elements of z.
Var squared_variation(const Var& z) {
  const int64_t n = z.value().numel();
  const DType dtype = z.value().dtype();
  const Device device = z.value().device();
  const Tensor one_group = Tensor::zeros({n}, DType::i32, device);
  const Var column = reshape(z, {n, 1}), mean = group_mean(column, one_group, 1);
  const Var centred = add(column, scale(gather_rows(mean, one_group), -1));
  const Var variance = dot(centred, centred, 1 / static_cast<double>(std::max<int64_t>(n - 1, 1)));
  const Var square = add(dot(mean, mean), Var(Tensor::full({1}, 1e-10, dtype, device)));
  return mul(variance, unary(square, Unary::reciprocal));
}

}  // namespace

Var localised_loss(std::span<const Routing> routings, const nn::Pass& pass, const LocalisedConfig& config,
                   int64_t datasets) {
  const Segments& s = *pass.segments;
  std::vector<Var> terms;
  for (const Routing& r : routings) {
    const int64_t E = r.probs.dim(1);
    if (E == 1) continue;
    const Tensor& W = r.weights.value();
    const Tensor factors = type_factors(s, config, datasets, E, W.dtype()).to(W.device());
    const Var means = r.mean_weights.defined() && r.mean_weights.dim(0) == s.count()
                          ? r.mean_weights
                          : group_mean(r.weights, at_rows(r, pass.sequence), s.count());
    terms.push_back(squared_variation(mul(means, Var(factors))));
  }
  return terms.empty() ? Var{} : sum_of(terms);
}

std::vector<AuxiliaryTerm> auxiliary_terms(std::span<const Routing> routings, const nn::Pass& pass,
                                           const MethodConfig& c, const StepShare& share, int64_t datasets) {
  const double one_of_all = 1 / static_cast<double>(share.micro_batches);
  std::vector<AuxiliaryTerm> terms;
  const auto add_term = [&](const char* name, double weight, double part, const auto& value) {
    if (weight == 0) return;
    if (const Var v = value(); v.defined()) terms.push_back({name, weight, part, v});
  };
  add_term("balance", c.balance.weight, c.balance.scope == BalanceScope::sample ? share.samples : one_of_all,
           [&] { return balance_loss(routings, pass, c.balance); });
  add_term("entropy", c.entropy.weight, share.rows, [&] { return entropy_loss(routings, c.entropy); });
  add_term("sparsity", c.sparsity.weight, share.rows, [&] { return sparsity_loss(routings, c.sparsity); });
  add_term("prior", c.prior.weight, share.rows, [&] { return prior_loss(routings, c.prior); });
  add_term("localised", c.localised.weight, one_of_all,
           [&] { return localised_loss(routings, pass, c.localised, datasets); });
  return terms;
}

std::vector<RouterStatistics> routing_statistics(std::span<const Routing> routings, const nn::Pass& pass,
                                                 int64_t datasets) {
  const Segments& s = *pass.segments;
  std::vector<RouterStatistics> all;
  for (const Routing& r : routings) {
    BURROW_CHECK(r.sums.defined(), "[routing_statistics] no sums for '{}': decoding has none", r.site);
    const auto D = static_cast<size_t>(datasets), E = static_cast<size_t>(r.probs.dim(1));
    RouterStatistics stats{r.site, std::vector(D, std::vector<double>(E, 0)), std::vector<double>(D, 0),
                           std::vector<double>(D, 0), std::vector<double>(D, 0)};
    const Tensor sums = r.sums.to(Device::cpu).to(DType::f64);
    for (int64_t b = 0; b < s.count(); ++b) {
      const auto d = static_cast<size_t>(s.dataset[static_cast<size_t>(b)]);
      const double* row = sums.data<double>() + b * sums.dim(1);
      for (size_t e = 0; e < E; ++e) stats.chosen[d][e] += row[e];
      stats.active[d] += row[E];
      stats.entropy[d] += row[E + 1];
      stats.rows[d] += row[E + 2];
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
      sum[i].active[d] += more[i].active[d];
      for (size_t e = 0; e < sum[i].chosen[d].size(); ++e) sum[i].chosen[d][e] += more[i].chosen[d][e];
    }
  }
}

}  // namespace burrow::moe
