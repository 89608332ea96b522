#include "train/run/step.h"

#include <cmath>

#include "moe/shards.h"

namespace burrow::train {

nn::Pass training_pass(const nn::Llava& model, const MicroInputs& inputs, const StepOptions& options) {
  nn::Pass pass(inputs.segments, model.device());
  pass.training = true;
  pass.recompute_layers = options.recompute_layers;
  pass.seed = options.seed;
  pass.step = options.step;
  return pass;
}

namespace {

moe::StepShare share_of(const Segments& segments, const StepTotals& totals) {
  const auto part = [](int64_t mine, int64_t all) {
    return static_cast<double>(mine) / static_cast<double>(all);
  };
  return {part(segments.count(), totals.samples), part(segments.rows(), totals.tokens), totals.micro_batches};
}

}  // namespace

Losses losses_of(const nn::Llava& model, const moe::MethodConfig& method, const MicroInputs& in,
                 const StepTotals& totals, int64_t datasets, nn::Pass& pass) {
  const Device device = model.device();
  if (method.prior.weight > 0) moe::record_dense(model, in.ids, in.features, pass);
  Losses losses;
  losses.hidden = model.hidden(in.ids, in.features, pass);
  const Var sum = linear_cross_entropy(gather_rows(losses.hidden, in.supervised.to(device)),
                                       model.decoder.head.weight, in.targets.to(device));
  losses.task = scale(sum, 1.0 / static_cast<double>(totals.supervised));
  losses.total = losses.task;
  losses.terms = moe::auxiliary_terms(pass.routings, pass, method, share_of(in.segments, totals), datasets);
  for (const moe::AuxiliaryTerm& term : losses.terms)
    losses.total = add(losses.total, scale(term.value, term.share * term.weight));
  return losses;
}

StepResult compute_gradients(Learner& learner, const StepTotals& totals, const StepOptions& options,
                             const std::function<MicroInputs(int64_t)>& micro_batch) {
  StepResult result;
  Readback& readback = learner.readback;
  readback.forget();  // values of an earlier step that threw
  learner.arena.grads.zero();
  for (int64_t i = 0; i < totals.micro_batches; ++i) {
    const MicroInputs inputs = micro_batch(i);
    nn::Pass pass = training_pass(learner.model, inputs, options);
    Losses losses = losses_of(learner.model, learner.method, inputs, totals, options.datasets, pass);
    readback.add(losses.task.value(), [&result](double value) { result.loss += value; });
    for (const moe::AuxiliaryTerm& term : losses.terms) {
      readback.add(term.value.value(),
                   [&result, name = term.name, share = term.share, weight = term.weight](double value) {
                     result.auxiliary[name] += share * value;
                     result.weighted += weight * (share * value);
                   });
    }
    if (options.statistics)
      moe::add_statistics(result.routing, moe::routing_statistics(pass.routings, pass, options.datasets));
    const Var total = losses.total;
    losses = {};  // the backward needs none of these values
    backward(total);
  }
  readback.add(learner.optimizer.squared_norm(),
               [&result](double value) { result.gradient_norm = std::sqrt(value); });
  readback.read();
  return result;
}

}  // namespace burrow::train
