#include "train/run/trainer.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "tensor/profile.h"
#include "train/run/progress.h"

namespace burrow::train {

using Json = nlohmann::ordered_json;

namespace {

bool tower_trains(const Setup& setup) {
  for (const auto& [name, var] : setup.attachment.trainable()) {
    if (name.starts_with("vision_tower.")) return true;
  }
  return false;
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
      say_(fmt::format("{}: {} samples without a supervised token are left out, the first: {}", set.name(),
                       set.skipped().size(), set.skipped()[0].text()));
    }
  }
  plan_ = make_plan(c, sets_);
  steps_ = c.train.max_steps > 0 ? std::min(c.train.max_steps, plan_->steps()) : plan_->steps();
  if (!tower_trains(setup)) {
    features_ = std::make_unique<FeatureCache>(setup.model->tower, c.data.feature_cache, say_);
    for (const data::Dataset& set : sets_) features_->add(set);
  }
  arena_ = nn::ParameterArena(setup.attachment.trainable());
  optimizer_ = std::make_unique<Optimizer>(arena_, c.train);
}

Var Trainer::features_of(const data::Batch& batch) const {
  if (batch.images.empty()) return {};
  if (features_) return Var(features_->gather(batch.images));
  return (*setup_.model->tower)(
      read_pixels(batch.images, plan_->mixture(), setup_.config.model.sizes.vision));
}

void Trainer::forward_backward(StepSums& sums, int64_t i, const data::StepPlan& plan, bool with_routing) {
  const RunConfig& c = setup_.config;
  const nn::Llava& model = *setup_.model;
  for (const data::MicroBatch& micro : plan.micro_batches) {
    const data::Batch batch = data::make_batch(*plan_, micro, c.model.sizes.vision.visual_tokens());
    const Device device = model.device();
    nn::Pass pass(batch.segments, device);
    pass.training = true;
    pass.recomputation = {c.train.recompute_layers, &setup_.attachment};
    pass.seed = static_cast<uint64_t>(c.train.seed);
    pass.step = static_cast<uint64_t>(i);
    setup_.attachment.clear();
    const Var features = features_of(batch);
    setup_.attachment.teach([&] { model.hidden(batch.ids, features, pass); });
    const Var hidden = model.hidden(batch.ids, features, pass);
    const Var loss = scale(linear_cross_entropy(gather_rows(hidden, batch.supervised.to(device)),
                                                model.decoder.head.weight, batch.targets.to(device)),
                           1.0 / static_cast<double>(plan.supervised));
    readback_.add(loss.value(), [&sums](double value) { sums.loss += value; });
    Var total = loss;
    const auto part = [](int64_t mine, int64_t all) {
      return static_cast<double>(mine) / static_cast<double>(all);
    };
    const moe::StepShare share{part(micro.end - micro.begin, plan.end - plan.begin),
                               part(batch.segments.rows(), plan.tokens),
                               static_cast<int64_t>(plan.micro_batches.size())};
    for (const moe::AuxiliaryTerm& term : moe::auxiliary_terms(setup_.attachment.routings(), pass, c.method,
                                                               share, static_cast<int64_t>(sets_.size()))) {
      readback_.add(term.value.value(),
                    [&sums, name = term.name, share = term.share, weight = term.weight](double value) {
                      sums.auxiliary[name] += share * value;
                      sums.weighted += weight * (share * value);
                    });
      total = add(total, scale(term.value, term.share * term.weight));
    }
    if (with_routing) {
      moe::add_statistics(sums.routing, moe::routing_statistics(setup_.attachment.routings(), pass,
                                                                static_cast<int64_t>(sets_.size())));
    }
    backward(total);
  }
  setup_.attachment.clear();
}

Trainer::StepFigures Trainer::step(int64_t i, const data::StepPlan& plan) {
  const bool logs = metrics_ && (i % setup_.config.train.log_every == 0 || i + 1 == steps_);
  arena_.grads.zero();
  StepSums sums;
  double norm = 0;
  readback_.forget();  // of a step that ended in an error
  forward_backward(sums, i, plan, logs);
  readback_.add(optimizer_->squared_norm(), [&norm](double value) { norm = std::sqrt(value); });
  readback_.read();  // the one time in a step that the host waits for the device
  if (!std::isfinite(sums.loss) || !std::isfinite(norm)) report_divergence(i, plan, sums);
  const double factor = schedule(setup_.config.train, i, steps_);
  optimizer_->step(norm, factor);
  if (logs) log(i, plan, sums, norm, factor);
  return {sums.loss + sums.weighted, norm};
}

void Trainer::log(int64_t i, const data::StepPlan& plan, const StepSums& sums, double norm, double factor) {
  Json line = {{"step", i}, {"loss", sums.loss}};
  for (const auto& [name, value] : sums.auxiliary) line[name] = value;
  line["lr"] = setup_.config.train.lr * factor;
  line["gradient_norm"] = norm;
  line["samples"] = plan.end;
  line["tokens"] = plan.tokens;
  line["supervised"] = plan.supervised;
  for (const moe::RouterStatistics& r : sums.routing) {
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

void Trainer::report_divergence(int64_t i, const data::StepPlan& plan, const StepSums& sums) {
  std::string where = std::isfinite(sums.loss) ? "" : fmt::format("loss {}", sums.loss);
  for (const auto& slot : arena_.slots()) {
    Tensor sum = Tensor::zeros({1}, DType::f64, arena_.grads.device());
    kernel::sum_squares(sum, arena_.grad(slot));
    if (!std::isfinite(sum.item())) {
      where += fmt::format("{}gradient of '{}'", where.empty() ? "" : ", ", slot.name);
      break;
    }
  }
  std::string kernel_message;
  try {  // once more, to name the first kernel whose output is not finite
    set_finite_check(true);
    StepSums again;
    forward_backward(again, i, plan, false);
  } catch (const Error& e) {
    kernel_message = e.what();
  }
  set_finite_check(false);
  readback_.forget();
  std::string samples;
  for (int64_t ordinal = plan.begin; ordinal < plan.end; ++ordinal) {
    const data::Draw draw = plan_->draw(ordinal);
    samples +=
        fmt::format(" {}:{}", sets_[static_cast<size_t>(draw.dataset)].name(), plan_->sample(ordinal).record);
  }
  fail("[train] step {}: not finite: {}\n  first in {}\n  samples (set:record):{}", i, where,
       kernel_message.empty() ? "no kernel of the repeated step" : kernel_message, samples);
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
