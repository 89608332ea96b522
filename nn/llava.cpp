#include "nn/llava.h"

#include <algorithm>

#include "tensor/profile.h"

namespace burrow::nn {

Llava::Llava(const ModelConfig& c, WeightSource& source)
    : config((check(c), c)),
      tower(c.vision.present() ? std::optional<VisionTower>(std::in_place, c.vision, source) : std::nullopt),
      projector(c.vision.present()
                    ? std::optional<Projector>(std::in_place, c.vision.width, c.decoder.width, source)
                    : std::nullopt),
      decoder(c.decoder, source) {}

Var Llava::hidden(const Tensor& ids, const Var& features, Pass& pass) const {
  BURROW_CHECK(projector || !features.defined(),
               "[model] visual features passed to a model without a vision tower");
  const auto converted = [this](const Var& x) {
    return compute && x.value().dtype() != *compute ? cast(x, *compute) : x;
  };
  const auto here = [this](const Var& x) {
    return x.value().device() == device() ? x : Var(x.value().to(device()));
  };
  Var visual = features.defined() ? (*projector)(converted(here(features))) : Var{};
  if (visual_module && visual.defined()) visual = (*visual_module)(visual, decoder.embedding, ids, pass);
  return decoder(converted(embedding(decoder.embedding, visual, ids.to(device()))), pass);
}

void Llava::parameters(const ParameterVisit& visit) {
  if (tower) tower->parameters(visit);
  if (projector) projector->parameters(visit);
  if (visual_module) visual_module->parameters(visit);
  decoder.parameters(visit);
}

Device Llava::device() const { return decoder.embedding.value().device(); }

void Llava::move_to(Device device) {
  parameters([device](const Parameter& p) { *p.var = Var(p.var->value().to(device)); });
}

void Llava::freeze() {
  parameters([](const Parameter& p) { *p.var = Var(p.var->value()); });
}

namespace {

// Attaches the cache to a pass and assigns to each row the next free slot of its sequence.
void enter_cache(Pass& pass, KvCache& cache) {
  const Segments& s = *pass.segments;
  std::vector<int32_t> slots;
  for (int64_t n = 0; n < s.rows(); ++n) {
    const auto b = static_cast<size_t>(s.sequence[static_cast<size_t>(n)]);
    BURROW_CHECK(cache.length[b] < cache.capacity, "[decode] sequence {} exceeds its cache of {} tokens", b,
                 cache.capacity);
    const auto slot = static_cast<int64_t>(b) * cache.capacity + cache.length[b]++;
    slots.push_back(static_cast<int32_t>(slot));
    cache.positions.data<int32_t>()[slot] = s.position[static_cast<size_t>(n)];
  }
  pass.cache = &cache;
  const Device device = pass.position.device();
  pass.cache_slots = Tensor::of({s.rows()}, slots).to(device);
  pass.ranges.k_offsets = cache.offsets.to(device);
  pass.ranges.k_positions = cache.positions.to(device);
  pass.ranges.known = {};  // these described keys of the pass, but keys are now those of the cache
}

std::vector<int32_t> best_tokens(const Llava& model, const Tensor& hidden) {
  Tensor logits = Tensor::empty({hidden.dim(0), model.config.decoder.vocabulary}, sum_type(hidden.dtype()),
                                hidden.device(), "logits");
  kernel::matmul_nt(logits, hidden, model.decoder.head.weight.value(), {}, false);
  Tensor index = Tensor::empty({hidden.dim(0)}, DType::i32, hidden.device());
  kernel::argmax(index, logits);
  const Tensor host = index.to(Device::cpu);
  return {host.data<int32_t>(), host.data<int32_t>() + host.numel()};
}

// Segments with one new token per sequence, after `done` earlier new ones.
Segments next_tokens(const Segments& prompts, int64_t done) {
  Segments s;
  for (int64_t b = 0; b < prompts.count(); ++b) {
    const auto i = static_cast<size_t>(b);
    s.position.push_back(static_cast<int32_t>(prompts.offsets[i + 1] - prompts.offsets[i] + done));
    s.sequence.push_back(static_cast<int32_t>(b));
    s.kind.push_back(TokenKind::answer);
    s.ordinal.push_back(prompts.ordinal[i]);
    s.dataset.push_back(prompts.dataset[i]);
    s.offsets.push_back(static_cast<int32_t>(b + 1));
  }
  return s;
}

}  // namespace

std::vector<std::vector<int32_t>> greedy_decode(const Llava& model, const Segments& prompts,
                                                const Tensor& ids, const Var& features, int32_t stop,
                                                int64_t max_new, std::vector<double>* seconds) {
  NoGrad no_grad;
  double begin = seconds_now();
  const auto note_time = [&] {
    const double end = seconds_now();
    if (seconds) seconds->push_back(end - begin);
    begin = end;
  };
  const int64_t B = prompts.count();
  int64_t longest = 0;
  std::vector<int32_t> last_row;
  for (size_t b = 0; b < static_cast<size_t>(B); ++b) {
    longest = std::max<int64_t>(longest, prompts.offsets[b + 1] - prompts.offsets[b]);
    last_row.push_back(prompts.offsets[b + 1] - 1);
  }
  KvCache cache(B, longest + max_new);
  const Device device = model.device();
  Pass prefill(prompts, device);
  enter_cache(prefill, cache);
  const Var hidden = model.hidden(ids, features, prefill);
  std::vector<int32_t> token =
      best_tokens(model, gather_rows(hidden, Tensor::of({B}, last_row).to(device)).value());
  note_time();

  std::vector<std::vector<int32_t>> answers(static_cast<size_t>(B));
  std::vector<bool> stopped(static_cast<size_t>(B), false);
  for (int64_t done = 0;; ++done) {
    bool all = true;
    for (size_t b = 0; b < answers.size(); ++b) {
      stopped[b] = stopped[b] || token[b] == stop;
      if (!stopped[b]) answers[b].push_back(token[b]);
      all = all && stopped[b];
    }
    if (all || done + 1 == max_new) return answers;
    const Segments step = next_tokens(prompts, done);
    Pass pass(step, device);
    enter_cache(pass, cache);
    token = best_tokens(model, model.hidden(Tensor::of({B}, token), {}, pass).value());
    note_time();
  }
}

}  // namespace burrow::nn
