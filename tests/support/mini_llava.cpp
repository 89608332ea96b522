#include "tests/support/mini_llava.h"

namespace burrow::testing {

// ---- batches

Segments one_sequence(int64_t rows) {
  Segments s;
  s.offsets.push_back(static_cast<int32_t>(rows));
  s.ordinal = {0};
  s.dataset = {0};
  for (int32_t n = 0; n < rows; ++n) {
    s.position.push_back(n);
    s.sequence.push_back(0);
    s.kind.push_back(TokenKind::prompt);
  }
  return s;
}

std::vector<Sample> golden_samples() {
  const auto& tensors = golden_file("batch").tensors;
  const auto read = [&](const char* name) {
    const Tensor& t = tensors.at(std::string("batch.") + name);
    return std::vector<int32_t>(t.data<int32_t>(), t.data<int32_t>() + t.numel());
  };
  const auto offsets = read("offsets"), ids = read("ids"), kinds = read("kinds"), targets = read("targets"),
             images = read("images");
  std::vector<Sample> samples;
  for (size_t b = 0; b + 1 < offsets.size(); ++b) {
    Sample s;
    s.image = images[b];
    s.ordinal = static_cast<int64_t>(b);
    for (auto n = static_cast<size_t>(offsets[b]); n < static_cast<size_t>(offsets[b + 1]); ++n) {
      const int32_t first = static_cast<int32_t>(kPatches) * s.image;  // visual row of the image's patch 0
      s.ids.push_back(ids[n] < 0 ? ids[n] + first : ids[n]);
      s.kinds.push_back(static_cast<TokenKind>(kinds[n]));
      s.targets.push_back(targets[n]);
    }
    samples.push_back(std::move(s));
  }
  return samples;
}

Batch::Batch(const std::vector<Sample>& samples, DType dtype) {
  std::vector<int32_t> all_ids, supervised, predicted;
  std::vector<Tensor> pixels;
  for (const Sample& s : samples) {
    const auto first = static_cast<int32_t>(kPatches * static_cast<int64_t>(pixels.size()));
    const auto b = static_cast<int32_t>(segments.count());
    for (size_t i = 0; i < s.ids.size(); ++i) {
      if (s.targets[i] >= 0) {
        supervised.push_back(static_cast<int32_t>(all_ids.size()));
        predicted.push_back(s.targets[i]);
      }
      all_ids.push_back(s.ids[i] < 0 ? s.ids[i] - first : s.ids[i]);
      segments.position.push_back(static_cast<int32_t>(i));
      segments.sequence.push_back(b);
      segments.kind.push_back(s.kinds[i]);
    }
    segments.offsets.push_back(static_cast<int32_t>(all_ids.size()));
    segments.ordinal.push_back(s.ordinal);
    segments.dataset.push_back(s.image >= 0 ? 0 : 1);
    if (s.image >= 0)
      pixels.push_back(generated("batch.images", {4, 3, 32, 32}, 3).slice_rows(s.image, s.image + 1));
  }
  ids = Tensor::of({segments.rows()}, all_ids);
  rows = Tensor::of({static_cast<int64_t>(supervised.size())}, supervised);
  targets = Tensor::of({rows.numel()}, predicted);
  if (pixels.empty()) return;
  images = Tensor::empty({static_cast<int64_t>(pixels.size()), 3, 32, 32}, dtype);
  for (size_t i = 0; i < pixels.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    images.slice_rows(at, at + 1).copy_from(pixels[i].to(dtype));
  }
}

const Batch& batch(DType dtype) {
  static const Batch wide(golden_samples(), DType::f64), single(golden_samples(), DType::f32);
  return dtype == DType::f64 ? wide : single;
}

const std::array<Batch, 2>& batch_halves() {
  static const std::vector<Sample> s = golden_samples();
  static const std::array<Batch, 2> halves{Batch({s[0], s[1]}, DType::f64),
                                           Batch({s[2], s[3], s[4]}, DType::f64)};
  return halves;
}

// ---- models

Mini assemble(std::unique_ptr<nn::Llava> model, moe::Attachment attachment) {
  Mini mini{std::move(model), std::move(attachment), {}};
  mini.arena = nn::ParameterArena(mini.attachment.trainable);
  return mini;
}

Mini generated_mini(const moe::MethodConfig& method, DType dtype, const nn::ModelConfig& config) {
  GeneratedWeights source(dtype);
  auto model = std::make_unique<nn::Llava>(config, source);
  moe::Attachment attachment = moe::attach(*model, method, 0);
  for (const nn::Parameter& p : attachment.trainable)
    *p.var = Var(generated_parameter(p.name, p.var->shape(), method.rank).to(dtype));
  return assemble(std::move(model), std::move(attachment));
}

Mini random_mini(const moe::MethodConfig& method, DType dtype, uint64_t seed) {
  const auto source = nn::random_weights(seed, dtype);
  auto model = std::make_unique<nn::Llava>(mini_config(), *source);
  moe::Attachment attachment = moe::attach(*model, method, seed);
  return assemble(std::move(model), std::move(attachment));
}

Tensor hidden_of(const nn::Llava& model, DType dtype) {
  nn::Pass pass(batch(dtype).segments);
  return model.hidden(batch(dtype).ids, (*model.tower)(batch(dtype).images), pass).value();
}

Tensor frozen_hidden(DType dtype) {
  return hidden_of(nn::Llava(mini_config(), *nn::random_weights(1, dtype)), dtype);
}

bool is_router(const std::string& parameter) { return contains(parameter, ".router."); }

void zero_routers(Mini& mini) {
  for (const auto& slot : mini.arena.slots()) {
    if (is_router(slot.name)) mini.arena.value(slot).zero();
  }
}

std::string attach_error(const moe::MethodConfig& method, const nn::ModelConfig& config) {
  nn::Llava model(config, *nn::random_weights(1, DType::f32));
  return error_of([&] { moe::attach(model, method, 1); });
}

// ---- losses and steps

namespace {

constexpr int64_t kDatasets = 2;
constexpr train::StepOptions kOptions{.seed = 7, .step = 3, .datasets = kDatasets};

train::StepTotals totals_of(const Batch& batch) {
  return {batch.segments.count(), batch.segments.rows(), batch.rows.numel(), 1};
}

// The method with the balance loss as its only auxiliary loss.
moe::MethodConfig with_balance(moe::MethodConfig method, double weight) {
  method.entropy.weight = method.localised.weight = method.sparsity.weight = method.prior.weight = 0;
  method.balance = {.weight = weight};
  return method;
}

}  // namespace

train::MicroInputs inputs_of(const Mini& mini, const Batch& batch) {
  return {batch.segments, batch.ids, batch.rows, batch.targets,
          batch.images.defined() ? (*mini.model->tower)(batch.images) : Var{}};
}

nn::Pass pass_of(const Mini& mini, const Batch& batch) {
  nn::Pass pass(batch.segments);
  pass.training = mini.training;
  pass.recompute_layers = mini.recompute_layers;
  pass.seed = kOptions.seed;
  pass.step = kOptions.step;
  return pass;
}

std::vector<nn::Routing> routings_of(const Mini& mini, const Batch& batch) {
  const NoGrad no_grad;
  nn::Pass pass = pass_of(mini, batch);
  const train::MicroInputs inputs = inputs_of(mini, batch);
  mini.model->hidden(inputs.ids, inputs.features, pass);
  return pass.routings;
}

Losses evaluate(Mini& mini, const Batch& batch, double balance_weight, const moe::BalanceConfig& balance) {
  nn::Pass pass = pass_of(mini, batch);
  const train::Losses l = train::losses_of(*mini.model, mini.attachment.method, inputs_of(mini, batch),
                                           totals_of(batch), kDatasets, pass);
  const Var even = moe::balance_loss(pass.routings, pass, balance);
  const bool added = even.defined() && balance_weight != 0;
  return {l.task, even, l.hidden, added ? add(l.task, scale(even, balance_weight)) : l.task, pass.routings};
}

OwnLosses evaluate_own(Mini& mini, const Batch& batch, const train::StepTotals& totals) {
  nn::Pass pass = pass_of(mini, batch);
  const train::Losses l = train::losses_of(*mini.model, mini.attachment.method, inputs_of(mini, batch),
                                           totals.samples ? totals : totals_of(batch), kDatasets, pass);
  OwnLosses own{l.task, l.hidden, l.total, {}, pass.routings};
  for (const moe::AuxiliaryTerm& term : l.terms) own.terms[term.name] = term.value;
  return own;
}

Tensor gradients_of(Mini& mini, const Var& loss) {
  mini.arena.grads.zero();
  backward(loss);
  return mini.arena.grads.clone();
}

std::vector<double> row_losses(Mini& mini, const Batch& batch) {
  const NoGrad no_grad;
  nn::Pass pass = pass_of(mini, batch);
  const train::MicroInputs inputs = inputs_of(mini, batch);
  const Var hidden = mini.model->hidden(inputs.ids, inputs.features, pass);
  const Tensor log_prob = linear_log_prob(gather_rows(hidden, batch.rows).value(),
                                          mini.model->decoder.head.weight.value(), batch.targets)
                              .to(DType::f64);
  std::vector<double> losses;
  for (int64_t i = 0; i < log_prob.numel(); ++i) losses.push_back(-log_prob.data<double>()[i]);
  return losses;
}

TrainingSteps::TrainingSteps(Mini& mini, double lr)
    : mini_(mini), optimizer_(mini.arena, [lr] {
        train::TrainConfig config;
        config.lr = lr;
        return config;
      }()) {}

double TrainingSteps::step(const Batch& batch, double balance_weight) {
  const moe::MethodConfig method = with_balance(mini_.attachment.method, balance_weight);
  train::Learner learner{*mini_.model, method, mini_.arena, optimizer_};
  const train::StepResult result = train::compute_gradients(learner, totals_of(batch), kOptions,
                                                            [&](int64_t) { return inputs_of(mini_, batch); });
  optimizer_.step(result.gradient_norm, 1);
  return result.total();
}

}  // namespace burrow::testing
