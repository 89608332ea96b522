#include "train/evaluate.h"

#include <algorithm>

namespace burrow::train {
namespace {

// A sample up to its first answer.
data::Sample prompt_of(data::Sample s) {
  const auto n = static_cast<size_t>(s.first_answer());
  s.ids = s.ids.first(n);
  s.answer = s.answer.first(n);
  return s;
}

// The supervised tokens of the first answer without the token that ends it.
std::vector<int32_t> reference_of(const data::Sample& s, int32_t stop) {
  std::vector<int32_t> tokens;
  for (auto i = static_cast<size_t>(s.first_answer()); i < s.ids.size() && s.answer[i] && s.ids[i] != stop;
       ++i) {
    tokens.push_back(s.ids[i]);
  }
  return tokens;
}

void score_batch(const Setup& setup, const data::Dataset& set, std::span<const data::BatchSample> samples,
                 const FeatureCache& features, SetScore& score) {
  const int32_t stop = setup.tokenizer.end_of_text();
  std::vector<data::BatchSample> prompts(samples.begin(), samples.end());
  for (data::BatchSample& p : prompts) p.sample = prompt_of(p.sample);
  const data::Batch batch = data::make_batch(prompts, setup.config.model.sizes.vision.patches());
  const Tensor visual = features.gather(batch.images);
  const auto answers =
      nn::greedy_decode(*setup.model, batch.segments, batch.ids, visual.defined() ? Var(visual) : Var{}, stop,
                        setup.config.eval.max_new);
  for (size_t i = 0; i < samples.size(); ++i) {
    const data::Sample& s = samples[i].sample;
    const bool correct = answers[i] == reference_of(s, stop);
    score.correct += correct;
    score.count += 1;
    if (s.type < 0) continue;
    const std::string& type = set.types()[static_cast<size_t>(s.type)];
    auto found = std::find_if(score.by_type.begin(), score.by_type.end(),
                              [&](const auto& t) { return t.first == type; });
    if (found == score.by_type.end()) found = score.by_type.insert(score.by_type.end(), {type, {0, 0}});
    found->second.first += correct;
    found->second.second += 1;
  }
}

}  // namespace

std::vector<SetScore> evaluate(const Setup& setup, const std::vector<data::Dataset>& sets,
                               const FeatureCache& features) {
  const EvalConfig& c = setup.config.eval;
  std::vector<SetScore> scores;
  for (size_t d = 0; d < sets.size(); ++d) {
    SetScore score{sets[d].name(), 0, 0, {}};
    const int64_t count = c.limit > 0 ? std::min(c.limit, sets[d].size()) : sets[d].size();
    std::vector<data::BatchSample> waiting;
    int64_t tokens = 0;
    for (int64_t i = 0; i < count; ++i) {
      const data::Sample sample = sets[d].sample(i);
      const int64_t length = sample.length(setup.config.model.sizes.vision.patches());
      if (tokens + length > c.batch_tokens && !waiting.empty()) {
        score_batch(setup, sets[d], waiting, features, score);
        waiting.clear();
        tokens = 0;
      }
      waiting.push_back({sample, static_cast<int32_t>(d), i});
      tokens += length;
    }
    if (!waiting.empty()) score_batch(setup, sets[d], waiting, features, score);
    std::sort(score.by_type.begin(), score.by_type.end());
    scores.push_back(std::move(score));
  }
  return scores;
}

std::string answer(const Setup& setup, const data::Image* image, const std::string& question) {
  NoGrad no_grad;
  BURROW_CHECK(question.find_first_not_of(" \t\n") != question.npos, "the question is empty");
  const auto& chat = data::ChatTemplate::by_name(setup.config.data.chat);
  chat.check(setup.tokenizer);
  const data::Tokens tokens =
      data::tokenize(chat.spans({{question, ""}}, image != nullptr, true), setup.tokenizer);
  data::Sample sample;
  sample.ids = tokens.ids;
  sample.answer = tokens.answer;
  sample.visual_at = tokens.visual_at;
  sample.image = image ? 0 : -1;
  const nn::VisionConfig& vision = setup.config.model.sizes.vision;
  const int64_t length = sample.length(vision.patches()), most = setup.config.model.sizes.decoder.max_tokens;
  BURROW_CHECK(length < most, "the question is too long: {} tokens with its image, and the model reads {}",
               length, most - 1);
  const std::vector<data::BatchSample> one{{sample, 0, 0}};
  const data::Batch batch = data::make_batch(one, vision.patches());
  Var features;
  if (image) {
    const int64_t S = vision.image_size;
    features = setup.model->tower(pixels_of(*image, vision).reshape({1, 3, S, S}));
  }
  const auto answers = nn::greedy_decode(*setup.model, batch.segments, batch.ids, features,
                                         setup.tokenizer.end_of_text(), setup.config.eval.max_new);
  return setup.tokenizer.decode(answers[0]);
}

}  // namespace burrow::train
