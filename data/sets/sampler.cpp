#include "data/sets/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tensor/check.h"
#include "tensor/rng.h"

namespace burrow::data {
namespace {

// `count` draws from `size` samples: whole permutations, then a part of one. The key holds the dataset's
// name, not its index, so that its order does not depend on the rest of the mixture.
std::vector<int32_t> draw_samples(uint64_t seed, const std::string& name, int64_t size, int64_t count) {
  std::vector<int32_t> drawn, order(static_cast<size_t>(size));
  drawn.reserve(static_cast<size_t>(count));
  const uint64_t key = random_key(seed, 0, "sampler/permutation/" + name);
  for (uint64_t pass = 0; static_cast<int64_t>(drawn.size()) < count; ++pass) {
    std::iota(order.begin(), order.end(), 0);
    Random(key, pass).shuffle(order);
    const auto take = std::min(size, count - static_cast<int64_t>(drawn.size()));
    drawn.insert(drawn.end(), order.begin(), order.begin() + take);
  }
  return drawn;
}

}  // namespace

std::vector<int64_t> apportion(int64_t total, const std::vector<double>& ratios) {
  double sum = 0;
  for (const double r : ratios) {
    BURROW_CHECK(std::isfinite(r) && r >= 0, "[sampler] ratio {} must be finite and not negative", r);
    sum += r;
  }
  BURROW_CHECK(sum > 0 && std::isfinite(sum), "[sampler] the ratios must have a positive, finite sum, not {}",
               sum);
  std::vector<int64_t> counts;
  std::vector<double> remainders;
  int64_t left = total;
  for (const double r : ratios) {
    const double exact = static_cast<double>(total) * (r / sum);
    counts.push_back(static_cast<int64_t>(std::floor(exact)));
    remainders.push_back(exact - std::floor(exact));
    left -= counts.back();
  }
  std::vector<size_t> order(ratios.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return remainders[a] > remainders[b]; });
  for (size_t i = 0; left > 0; i = (i + 1) % order.size())
    if (ratios[order[i]] > 0) {
      ++counts[order[i]];
      --left;
    }
  return counts;
}

Plan::Plan(std::vector<MixtureEntry> mixture, const PlanOptions& options)
    : mixture_(std::move(mixture)), options_(options) {
  BURROW_CHECK(
      options.samples > 0 && options.tokens_per_step > 0 && options.visual_tokens >= 0 &&
          options.accumulation > 0,
      "[sampler] samples {}, tokens_per_step {}, visual_tokens {}, accumulation {}: each must be positive",
      options.samples, options.tokens_per_step, options.visual_tokens, options.accumulation);
  BURROW_CHECK(options.samples < INT32_MAX, "[sampler] {} samples are more than a plan holds",
               options.samples);
  BURROW_CHECK(!mixture_.empty(), "[sampler] the mixture is empty");
  std::vector<double> ratios;
  for (const MixtureEntry& entry : mixture_) {
    BURROW_CHECK(entry.dataset != nullptr && entry.dataset->size() > 0,
                 "[sampler] a dataset of the mixture is empty");
    ratios.push_back(entry.ratio);
  }
  const std::vector<int64_t> counts = apportion(options.samples, ratios);
  draws_.reserve(static_cast<size_t>(options.samples));
  for (size_t d = 0; d < mixture_.size(); ++d) {
    const Dataset& dataset = *mixture_[d].dataset;
    for (const int32_t s : draw_samples(options.seed, dataset.name(), dataset.size(), counts[d]))
      draws_.push_back({static_cast<int32_t>(d), s});
  }
  Random(random_key(options.seed, 0, "sampler/interleave")).shuffle(draws_);

  first_.push_back(0);
  int64_t filled = 0;
  for (int64_t i = 0; i < draws(); ++i) {
    const int64_t tokens = length(i);
    if (i > first_.back() && filled + tokens > options.tokens_per_step) {
      first_.push_back(i);
      filled = 0;
    }
    filled += tokens;
  }
  first_.push_back(draws());
}

Sample Plan::sample(int64_t ordinal) const {
  const Draw d = draw(ordinal);
  return mixture_[static_cast<size_t>(d.dataset)].dataset->sample(d.sample);
}

std::vector<int64_t> Plan::counts() const {
  std::vector<int64_t> counts(mixture_.size());
  for (const Draw& d : draws_) ++counts[static_cast<size_t>(d.dataset)];
  return counts;
}

StepPlan Plan::step(int64_t i) const {
  BURROW_CHECK(i >= 0 && i < steps(), "[sampler] no step {} among {}", i, steps());
  StepPlan step{first_[static_cast<size_t>(i)], first_[static_cast<size_t>(i) + 1], 0, 0, {}};
  for (int64_t o = step.begin; o < step.end; ++o) {
    step.tokens += length(o);
    step.supervised += sample(o).supervised();
  }
  const int64_t parts = std::min<int64_t>(options_.accumulation, step.end - step.begin);
  int64_t at = step.begin, done = 0;
  for (int64_t part = 0; part < parts; ++part) {
    MicroBatch micro{at, at, 0, 0};
    const double goal =
        static_cast<double>(step.tokens) * static_cast<double>(part + 1) / static_cast<double>(parts);
    const int64_t last = step.end - (parts - 1 - part);  // leaves a sample for each later part
    while (at < last) {
      const int64_t tokens = length(at);
      // Ends the part at the sample boundary nearer to its goal. Each part has at least one sample; the last
      // part takes the rest.
      const double now = static_cast<double>(done), next = static_cast<double>(done + tokens);
      if (at > micro.begin && part + 1 < parts && next - goal > goal - now) break;
      micro.tokens += tokens;
      micro.supervised += sample(at).supervised();
      done += tokens;
      ++at;
    }
    micro.end = at;
    step.micro_batches.push_back(micro);
  }
  return step;
}

}  // namespace burrow::data
