#include "tests/support/mini_llava.h"

#include <algorithm>
#include <cmath>

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
      const int32_t first = static_cast<int32_t>(kPatches) * s.image;  // visual row of its image's patch 0
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

// ---- models

nn::ModelConfig mini_config() {
  nn::ModelConfig c;
  c.vision = {.image_size = 32, .patch_size = 8, .width = 96, .layers = 2, .heads = 4, .mlp_width = 192};
  c.decoder = {.vocabulary = 110, .width = 128, .layers = 4, .heads = 4, .kv_heads = 4, .mlp_width = 256};
  return c;
}

Mini assemble(std::unique_ptr<nn::Llava> model, moe::Attachment attachment) {
  Mini mini{std::move(model), std::move(attachment), {}};
  mini.arena = nn::ParameterArena(mini.attachment.trainable());
  return mini;
}

Mini generated_mini(const moe::MethodConfig& method, DType dtype, const nn::ModelConfig& config) {
  GeneratedWeights source(dtype);
  auto model = std::make_unique<nn::Llava>(config, source);
  moe::Attachment attachment = moe::attach(*model, method, 0);
  for (const auto& [name, parameter] : attachment.trainable()) {
    *parameter = Var(generated_parameter(name, parameter->shape(), method.rank).to(dtype));
  }
  return assemble(std::move(model), std::move(attachment));
}

Mini random_mini(const moe::MethodConfig& method, DType dtype, uint64_t seed) {
  const auto source = nn::random_weights(seed, dtype);
  auto model = std::make_unique<nn::Llava>(mini_config(), *source);
  moe::Attachment attachment = moe::attach(*model, method, seed);
  return assemble(std::move(model), std::move(attachment));
}

moe::MethodConfig lora_method() {
  moe::MethodConfig c = moe::method("lora");
  c.rank = 2;
  c.alpha = 4;
  return c;
}
moe::MethodConfig mole_method(GateMode gate) {
  moe::MethodConfig c = moe::method("mole");
  c.experts = 3;
  c.rank = 2;
  c.alpha = 4;
  c.router.gate = gate;
  return c;
}
moe::MethodConfig dense_method() {
  moe::MethodConfig c = moe::method("dense");
  c.experts = 3;
  c.rank = 2;
  c.alpha = 4;
  return c;
}
// A threshold that some of the rows reach, and rows below it that keep one, two or three experts.
moe::MethodConfig dynmole_method() {
  moe::MethodConfig c = moe::method("dynmole");
  c.experts = 3;
  c.rank = 2;
  c.alpha = 4;
  c.router.entropy_threshold = 0.7;
  c.router.top_p = 0.97;
  c.router.top_k = 1;
  return c;
}
moe::MethodConfig loramoe_method() {
  moe::MethodConfig c = moe::method("loramoe");
  c.experts = 3;
  c.rank = 2;
  c.alpha = 4;
  c.localised.delta = 0.3;
  return c;
}
moe::MethodConfig mixlora_method() {
  moe::MethodConfig c = moe::method("mixlora");
  c.experts = 3;
  c.rank = 2;
  c.alpha = 4;
  return c;
}
moe::MethodConfig adamole_method() {
  moe::MethodConfig c = moe::method("adamole");
  c.experts = 3;
  c.rank = 2;
  c.alpha = 4;
  return c;
}
moe::MethodConfig ldmole_method() {
  moe::MethodConfig c = moe::method("ldmole");
  c.experts = 3;
  c.rank = 2;
  c.alpha = 4;
  c.router.lambda_width = 5;
  c.sparsity = {.weight = 0.1, .experts = 1};
  return c;
}
moe::MethodConfig factorllm_method() {
  moe::MethodConfig c = moe::method("factorllm");
  c.router.top_k = 2;
  return c;
}
moe::MethodConfig mola_method() {
  moe::MethodConfig c = moe::method("mola");
  c.experts = 3;
  c.experts_by_layer.clear();
  c.rank = 2;
  c.alpha = 4;
  return c;
}

// ---- losses and steps

namespace {

constexpr int64_t kTypes = 2;

Var hidden_of(Mini& mini, const Batch& batch, nn::Pass& pass) {
  pass.training = mini.training;
  pass.recomputation = {mini.recompute_layers, &mini.attachment};
  pass.seed = 7;
  pass.step = 3;
  mini.attachment.clear();
  const Var features = batch.images.defined() ? (*mini.model->tower)(batch.images) : Var{};
  mini.attachment.teach([&] { mini.model->hidden(batch.ids, features, pass); });
  return mini.model->hidden(batch.ids, features, pass);
}

}  // namespace

Losses evaluate(Mini& mini, const Batch& batch, double balance_weight, const moe::BalanceConfig& balance) {
  nn::Pass pass(batch.segments);
  Losses l;
  l.hidden = hidden_of(mini, batch, pass);
  const Var sum =
      linear_cross_entropy(gather_rows(l.hidden, batch.rows), mini.model->decoder.head.weight, batch.targets);
  l.task = scale(sum, 1.0 / static_cast<double>(batch.rows.numel()));
  l.balance = moe::balance_loss(mini.attachment.routings(), pass, balance);
  l.total =
      l.balance.defined() && balance_weight != 0 ? add(l.task, scale(l.balance, balance_weight)) : l.task;
  return l;
}

OwnLosses evaluate_own(Mini& mini, const Batch& batch, const moe::StepShare& share) {
  const Losses plain = evaluate(mini, batch);
  OwnLosses l{plain.task, plain.hidden, plain.task, {}};
  const nn::Pass pass(batch.segments);
  for (const moe::AuxiliaryTerm& term :
       moe::auxiliary_terms(mini.attachment.routings(), pass, mini.attachment.config(), share, kTypes)) {
    l.terms[term.name] = term.value;
    l.total = add(l.total, scale(term.value, term.share * term.weight));
  }
  return l;
}

std::vector<double> row_losses(Mini& mini, const Batch& batch) {
  const NoGrad no_grad;
  nn::Pass pass(batch.segments);
  const Var hidden = hidden_of(mini, batch, pass);
  const Tensor log_prob = linear_log_prob(gather_rows(hidden, batch.rows).value(),
                                          mini.model->decoder.head.weight.value(), batch.targets)
                              .to(DType::f64);
  std::vector<double> losses;
  for (int64_t i = 0; i < log_prob.numel(); ++i) losses.push_back(-log_prob.data<double>()[i]);
  return losses;
}

TrainingSteps::TrainingSteps(Mini& mini, double lr)
    : mini_(mini),
      lr_(lr),
      m_(Tensor::zeros(mini.arena.values.shape(), mini.arena.values.dtype())),
      v_(m_.clone()) {}

double TrainingSteps::step(const Batch& batch, double balance_weight) {
  mini_.arena.grads.zero();
  const Losses l = evaluate(mini_, batch, balance_weight);
  const double loss = l.total.value().item();
  backward(l.total);
  Tensor squares = Tensor::zeros({1}, DType::f64);
  kernel::sum_squares(squares, mini_.arena.grads);
  const double clip = std::min(1.0, 1 / (std::sqrt(squares.item()) + 1e-6));
  const AdamW options{.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8, .weight_decay = 0};
  kernel::adamw(mini_.arena.values, m_, v_, mini_.arena.grads, options, ++steps_, lr_, clip);
  return loss;
}

}  // namespace burrow::testing
