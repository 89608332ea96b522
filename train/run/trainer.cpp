#include "train/run/trainer.h"

#include <cmath>

#include "tensor/json.h"
#include "tensor/profile.h"
#include "train/run/progress.h"

namespace burrow::train {

using Json = nlohmann::ordered_json;

namespace {

bool tower_trains(const Setup& setup) {
  const auto& trainable = setup.attachment.trainable;
  return std::any_of(trainable.begin(), trainable.end(),
                     [](const nn::Parameter& p) { return p.role == nn::Role::tower; });
}

std::unique_ptr<data::Plan> make_plan(const RunConfig& c, const std::vector<data::Dataset>& sets) {
  std::vector<data::MixtureEntry> mixture;
  data::PlanOptions options;
  int64_t all = 0;
  for (size_t i = 0; i < sets.size(); ++i) {
    all += sets[i].size();
    mixture.push_back(
        {&sets[i], c.data.ratios.empty() ? static_cast<double>(sets[i].size()) : c.data.ratios[i]});
  }
  options.seed = static_cast<uint64_t>(c.train.seed);
  options.samples = c.data.samples > 0 ? c.data.samples : all;
  options.tokens_per_step = c.train.tokens_per_step;
  options.visual_tokens = c.model.sizes.vision.visual_tokens();
  options.accumulation = static_cast<int>(c.train.accumulation);
  return std::make_unique<data::Plan>(std::move(mixture), options);
}

}  // namespace

Trainer::Trainer(Setup& setup, std::function<void(const std::string&)> say)
    : setup_(setup), say_(std::move(say)), sets_(load_sets(setup, Split::train, setup.config.data.use)) {
  const RunConfig& c = setup.config;
  BURROW_CHECK(c.data.ratios.empty() || c.data.ratios.size() == sets_.size(),
               "data.ratios: {} values for {} sets", c.data.ratios.size(), sets_.size());
  for (const data::Dataset& set : sets_) {
    if (!set.skipped().empty()) {
      say_(fmt::format("{}: {} samples without a supervised token are skipped, the first: {}", set.name(),
                       set.skipped().size(), set.skipped()[0].text()));
    }
  }
  plan_ = make_plan(c, sets_);
  steps_ = c.train.max_steps > 0 ? std::min(c.train.max_steps, plan_->steps()) : plan_->steps();
  if (!tower_trains(setup)) {
    features_ = std::make_unique<FeatureCache>(setup.model->tower, c.data.feature_cache, say_);
    for (const data::Dataset& set : sets_) features_->add(set);
  }
  arena_ = nn::ParameterArena(setup.attachment.trainable);
  optimizer_ = std::make_unique<Optimizer>(arena_, c.train);
  learner_ = std::make_unique<Learner>(Learner{*setup.model, c.method, arena_, *optimizer_});
}

Var Trainer::features_of(const data::Batch& batch) const {
  if (batch.images.empty()) return {};
  if (features_) return Var(features_->gather(batch.images));
  return (*setup_.model->tower)(
      read_pixels(batch.images, plan_->mixture(), setup_.config.model.sizes.vision));
}

StepResult Trainer::gradients_of(int64_t i, const data::StepPlan& plan, bool statistics) {
  const RunConfig& c = setup_.config;
  const StepTotals totals{plan.end - plan.begin, plan.tokens, plan.supervised,
                          static_cast<int64_t>(plan.micro_batches.size())};
  const StepOptions options{.seed = static_cast<uint64_t>(c.train.seed),
                            .step = static_cast<uint64_t>(i),
                            .recompute_layers = c.train.recompute_layers,
                            .datasets = static_cast<int64_t>(sets_.size()),
                            .statistics = statistics};
  return compute_gradients(*learner_, totals, options, [&](int64_t part) {
    data::Batch batch = data::make_batch(*plan_, plan.micro_batches[static_cast<size_t>(part)],
                                         c.model.sizes.vision.visual_tokens());
    const Var features = features_of(batch);
    return MicroInputs{std::move(batch.segments), batch.ids, batch.supervised, batch.targets, features};
  });
}

StepResult Trainer::step(int64_t i, const data::StepPlan& plan) {
  const bool logs = metrics_ && (i % setup_.config.train.log_every == 0 || i + 1 == steps_);
  StepResult result = gradients_of(i, plan, logs);
  if (!result.finite()) report_divergence(i, plan, result);
  const double factor = schedule(setup_.config.train, i, steps_);
  optimizer_->step(result.gradient_norm, factor);
  if (logs) log(i, plan, result, factor);
  return result;
}

void Trainer::log(int64_t i, const data::StepPlan& plan, const StepResult& result, double factor) {
  Json line = {{"step", i}, {"loss", result.loss}};
  for (const auto& [name, value] : result.auxiliary) line[name] = value;
  line["lr"] = setup_.config.train.lr * factor;
  line["gradient_norm"] = result.gradient_norm;
  line["samples"] = plan.end;
  line["tokens"] = plan.tokens;
  line["supervised"] = plan.supervised;
  for (const moe::RouterStatistics& r : result.routing) {
    Json site = {{"site", r.site}};
    int64_t dead = 0;
    for (size_t e = 0; e < r.chosen[0].size(); ++e) {
      double rows = 0;
      for (const auto& by_expert : r.chosen) rows += by_expert[e];
      dead += rows == 0;
    }
    for (size_t d = 0; d < r.rows.size(); ++d) {
      if (r.rows[d] == 0) continue;
      Json load = Json::array();
      for (const double rows : r.chosen[d]) load.push_back(rows / r.rows[d]);
      site["load"][sets_[d].name()] = load;
      site["active"][sets_[d].name()] = r.active[d] / r.rows[d];
      site["entropy"][sets_[d].name()] = r.entropy[d] / r.rows[d];
    }
    site["dead_experts"] = dead;
    line["routing"].push_back(site);
  }
  metrics_->write(line);
}

void Trainer::report_divergence(int64_t i, const data::StepPlan& plan, const StepResult& result) {
  std::string where = std::isfinite(result.loss) ? "" : fmt::format("loss {}", result.loss);
  for (const auto& slot : arena_.slots()) {
    Tensor sum = Tensor::zeros({1}, DType::f64, arena_.grads.device());
    kernel::sum_squares(sum, arena_.grad(slot));
    if (!std::isfinite(sum.item())) {
      where += fmt::format("{}gradient of '{}'", where.empty() ? "" : ", ", slot.name);
      break;
    }
  }
  std::string kernel_message;
  try {  // repeat the step to find the first kernel with a non-finite output
    set_finite_check(true);
    gradients_of(i, plan, false);
  } catch (const Error& e) {
    kernel_message = e.what();
  }
  set_finite_check(false);
  std::string samples;
  for (int64_t ordinal = plan.begin; ordinal < plan.end; ++ordinal) {
    const data::Draw draw = plan_->draw(ordinal);
    samples +=
        fmt::format(" {}:{}", sets_[static_cast<size_t>(draw.dataset)].name(), plan_->sample(ordinal).record);
  }
  fail("[train] step {}: not finite: {}\n  first in {}\n  samples (set:record):{}", i, where,
       kernel_message.empty() ? "no kernel when the step was repeated" : kernel_message, samples);
}

TrainResult Trainer::train(RunDirectory& run) {
  const RunConfig& c = setup_.config;
  const auto resumed = load_checkpoint(run, arena_, *optimizer_, say_);
  Progress at = resumed.value_or(Progress{});
  if (resumed) say_(fmt::format("continuing at step {} of {}", at.step, steps_));
  metrics_ = std::make_unique<LineLog>(run.path() / "metrics.jsonl", at.metrics_bytes);
  const auto timings_path = run.path() / "timings.jsonl";
  LineLog timings(timings_path, std::filesystem::exists(timings_path)
                                    ? static_cast<int64_t>(std::filesystem::file_size(timings_path))
                                    : 0);
  ProgressLine progress("train", steps_);
  TrainResult result{steps_, 0, 0, 0};
  double checkpointed = seconds_now();
  int64_t tokens_since = 0;
  for (int64_t i = at.step; i < steps_; ++i) {
    const double begin = seconds_now();
    const data::StepPlan plan = plan_->step(i);
    step(i, plan);
    result.seconds += seconds_now() - begin;
    result.tokens += plan.tokens;
    tokens_since += plan.tokens;
    progress.update(i + 1,
                    fmt::format("{:.0f} tokens/s", static_cast<double>(result.tokens) / result.seconds));
    if (c.train.checkpoint_every > 0 && (i + 1) % c.train.checkpoint_every == 0 && i + 1 < steps_) {
      metrics_->sync();
      save_checkpoint(run, arena_, *optimizer_, {i + 1, metrics_->bytes()}, c.train.keep_checkpoints);
      const double now = seconds_now();
      timings.write({{"step", i + 1}, {"seconds", now - checkpointed}, {"tokens", tokens_since}});
      checkpointed = now;
      tokens_since = 0;
    }
  }
  metrics_->sync();
  save_checkpoint(run, arena_, *optimizer_, {steps_, metrics_->bytes()}, c.train.keep_checkpoints);
  save_trained((run.path() / "trained.safetensors").string(), arena_, c.method.name);
  result.peak_memory = memory_report(setup_.model->device()).peak;
  return result;
}

}  // namespace burrow::train
