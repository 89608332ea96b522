#include "train/run/evaluate.h"

#include <algorithm>
#include <cctype>

namespace burrow::train {
namespace {

using Samples = std::span<const data::BatchSample>;

// The sample cut off before its first answer.
data::Sample prompt_of(data::Sample s) {
  const auto n = static_cast<size_t>(s.first_answer());
  s.ids = s.ids.first(n);
  s.answer = s.answer.first(n);
  return s;
}

// The supervised tokens of the first answer, without the final `stop` token.
std::vector<int32_t> reference_of(const data::Sample& s, int32_t stop) {
  std::vector<int32_t> tokens;
  for (auto i = static_cast<size_t>(s.first_answer()); i < s.ids.size() && s.answer[i] && s.ids[i] != stop;
       ++i) {
    tokens.push_back(s.ids[i]);
  }
  return tokens;
}

void count(SetScore& score, const data::Dataset& set, const data::Sample& sample, bool correct) {
  if (set.settings().circular) {
    bool& all = score.turned.emplace(sample.record, true).first->second;
    all = all && correct;
    return;
  }
  score.correct += correct;
  score.count += 1;
  if (sample.type < 0) return;
  const std::string& type = set.types()[static_cast<size_t>(sample.type)];
  auto found = std::find_if(score.by_type.begin(), score.by_type.end(),
                            [&](const auto& t) { return t.first == type; });
  if (found == score.by_type.end()) found = score.by_type.insert(score.by_type.end(), {type, {0, 0}});
  found->second.first += correct;
  found->second.second += 1;
}

// Number of samples to evaluate: those of the first `limit` items (0: all); a circular item has several.
int64_t samples_of(const data::Dataset& set, int64_t limit) {
  if (limit == 0 || !set.settings().circular) return limit == 0 ? set.size() : std::min(limit, set.size());
  int64_t items = 0, i = 0;
  for (int64_t last = -1; i < set.size(); ++i) {
    const int64_t record = set.sample(i).record;
    items += record != last;
    if (items > limit) break;
    last = record;
  }
  return i;
}

data::Batch prompts_of(const Setup& setup, Samples samples) {
  std::vector<data::BatchSample> prompts(samples.begin(), samples.end());
  for (data::BatchSample& p : prompts) p.sample = prompt_of(p.sample);
  return data::make_batch(prompts, setup.config.model.sizes.vision.visual_tokens());
}

std::vector<std::vector<int32_t>> decode(const Setup& setup, const data::Batch& batch, const Tensor& visual) {
  return nn::greedy_decode(*setup.model, batch.segments, batch.ids, visual.defined() ? Var(visual) : Var{},
                           setup.tokenizer.end_of_text(), setup.config.eval.max_new);
}

void score_conversations(const Setup& setup, const data::Dataset& set, Samples samples,
                         const FeatureCache& features, SetScore& score) {
  const data::Batch batch = prompts_of(setup, samples);
  const auto answers = decode(setup, batch, features.gather(batch.images));
  for (size_t i = 0; i < samples.size(); ++i) {
    const data::Sample& s = samples[i].sample;
    count(score, set, s, answers[i] == reference_of(s, setup.tokenizer.end_of_text()));
  }
}

// The logits [B,V] after the last token of each prompt, on the host.
Tensor last_logits(const nn::Llava& model, const data::Batch& prompts, const Tensor& visual) {
  NoGrad no_grad;
  std::vector<int32_t> rows;
  for (size_t b = 1; b < prompts.segments.offsets.size(); ++b)
    rows.push_back(prompts.segments.offsets[b] - 1);
  const auto B = static_cast<int64_t>(rows.size());
  const Device device = model.device();
  const Var features = visual.defined() ? Var(visual) : Var{};
  nn::Pass pass(prompts.segments, device);
  const Var hidden = model.hidden(prompts.ids, features, pass);
  const Tensor last = gather_rows(hidden, Tensor::of({B}, rows).to(device)).value();
  Tensor logits =
      Tensor::empty({B, model.decoder.head.out()}, sum_type(last.dtype()), last.device(), "logits");
  kernel::matmul_nt(logits, last, model.decoder.head.weight.value(), {}, false);
  return logits.to(Device::cpu).to(DType::f64);
}

// Index of the label with the largest logit; labels that are not a single token (-1) are skipped.
int64_t best_label(const double* logits, std::span<const int32_t> labels) {
  int64_t best = -1;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0) continue;
    if (best < 0 || logits[labels[i]] > logits[labels[static_cast<size_t>(best)]])
      best = static_cast<int64_t>(i);
  }
  return best;
}

void score_choices(const Setup& setup, const data::Dataset& set, Samples samples,
                   const FeatureCache& features, SetScore& score) {
  const EvalConfig& c = setup.config.eval;
  const data::Batch batch = prompts_of(setup, samples);
  const Tensor visual = features.gather(batch.images).to(setup.model->device());
  if (c.protocol == Protocol::generation) {
    const auto answers = decode(setup, batch, visual);
    for (size_t i = 0; i < samples.size(); ++i) {
      const data::Sample& s = samples[i].sample;
      std::vector<std::string> labels = data::task_shape(set.types()[static_cast<size_t>(s.type)]).labels;
      if (c.labels == LabelRange::item) labels.resize(static_cast<size_t>(s.choices));
      count(score, set, s, first_label(setup.tokenizer.decode(answers[i]), labels) == s.correct);
    }
    return;
  }
  const Tensor logits = last_logits(*setup.model, batch, visual);
  const int64_t V = logits.dim(1);
  for (size_t i = 0; i < samples.size(); ++i) {
    const data::Sample& s = samples[i].sample;
    const double* row = logits.data<double>() + static_cast<int64_t>(i) * V;
    const auto right = static_cast<size_t>(s.correct);
    count(score, set, s,
          c.protocol == Protocol::exact_match
              ? std::max_element(row, row + V) - row == set.labels(s, false)[right]
              : best_label(row, set.labels(s, c.labels == LabelRange::shape)) == s.correct);
  }
}

void score_texts(const Setup& setup, Samples samples, SetScore& score) {
  NoGrad no_grad;
  constexpr int64_t kRowsAtOnce = 256;
  const nn::Llava& model = *setup.model;
  const data::Batch batch = data::make_batch(samples, 0);
  const Device device = model.device();
  nn::Pass pass(batch.segments, device);
  const Var hidden = model.hidden(batch.ids, {}, pass);
  const Tensor rows = gather_rows(hidden, batch.supervised.to(device)).value();
  const Tensor& head = model.decoder.head.weight.value();
  const Tensor log_probs =
      linear_log_prob(rows, head, batch.targets.to(device)).to(Device::cpu).to(DType::f64);
  for (int64_t n = 0; n < log_probs.numel(); ++n) score.nats -= log_probs.data<double>()[n];
  for (int64_t begin = 0; begin < rows.dim(0); begin += kRowsAtOnce) {
    const int64_t end = std::min(begin + kRowsAtOnce, rows.dim(0));
    Tensor logits =
        Tensor::empty({end - begin, head.dim(0)}, sum_type(rows.dtype()), rows.device(), "logits");
    kernel::matmul_nt(logits, rows.slice_rows(begin, end), head, {}, false);
    Tensor index = Tensor::empty({end - begin}, DType::i32, rows.device());
    kernel::argmax(index, logits);
    const Tensor best = index.to(Device::cpu), target = batch.targets.slice_rows(begin, end);
    for (int64_t n = 0; n < end - begin; ++n) {
      score.correct += best.data<int32_t>()[n] == target.data<int32_t>()[n];
      score.count += 1;
    }
  }
}

void score_batch(const Setup& setup, const data::Dataset& set, Samples samples, const FeatureCache& features,
                 SetScore& score) {
  switch (set.settings().format) {
    case data::Format::choices:
      return score_choices(setup, set, samples, features, score);
    case data::Format::text:
      return score_texts(setup, samples, score);
    default:
      return score_conversations(setup, set, samples, features, score);
  }
}

bool equal_words(std::string_view a, std::string_view b) {
  if (b.size() == 1) return a == b;  // "A" is a label, "a" an article
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  });
}

}  // namespace

std::string scoring_of(const EvalConfig& c, const DataSet& set) {
  if (set.format == data::Format::llava) return "exact match";
  if (set.format == data::Format::text) return "next token";
  const char* turned = set.circular ? ", asked in a circle" : "";
  if (c.protocol == Protocol::exact_match) return fmt::format("exact match of the label{}", turned);
  return fmt::format("accuracy by {}, {} labels{}",
                     c.protocol == Protocol::generation ? "generation" : "label logits",
                     c.labels == LabelRange::item ? "the item's" : "all the shape's", turned);
}

int64_t first_label(std::string_view text, const std::vector<std::string>& labels) {
  const auto in_word = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || (static_cast<unsigned char>(c) & 0x80);
  };
  for (size_t i = 0; i < text.size();) {
    size_t end = i;
    while (end < text.size() && in_word(text[end])) ++end;
    for (size_t l = 0; l < labels.size() && end > i; ++l) {
      if (equal_words(text.substr(i, end - i), labels[l])) return static_cast<int64_t>(l);
    }
    i = end + 1;
  }
  return -1;
}

std::vector<SetScore> evaluate(const Setup& setup, const std::vector<data::Dataset>& sets,
                               const FeatureCache& features) {
  const EvalConfig& c = setup.config.eval;
  std::vector<SetScore> scores;
  for (size_t d = 0; d < sets.size(); ++d) {
    SetScore score;
    score.name = sets[d].name();
    score.left_out = static_cast<int64_t>(sets[d].skipped().size());
    const int64_t count = samples_of(sets[d], c.limit);
    std::vector<data::BatchSample> waiting;
    int64_t tokens = 0;
    for (int64_t i = 0; i < count; ++i) {
      const data::Sample sample = sets[d].sample(i);
      const int64_t length = sample.length(setup.config.model.sizes.vision.visual_tokens());
      if (tokens + length > c.batch_tokens && !waiting.empty()) {
        score_batch(setup, sets[d], waiting, features, score);
        waiting.clear();
        tokens = 0;
      }
      waiting.push_back({sample, static_cast<int32_t>(d), i});
      tokens += length;
    }
    if (!waiting.empty()) score_batch(setup, sets[d], waiting, features, score);
    for (const auto& [record, all] : score.turned) {
      score.correct += all;
      score.count += 1;
    }
    std::sort(score.by_type.begin(), score.by_type.end());
    scores.push_back(std::move(score));
  }
  return scores;
}

namespace {

std::vector<data::Span> prompt_spans(const Setup& setup, bool has_image, const std::string& question) {
  if (setup.converses() || has_image) {
    const auto& chat = data::ChatTemplate::by_name(setup.config.data.chat);
    chat.check(setup.tokenizer);
    return chat.spans({{question, ""}}, has_image, true);
  }
  std::vector<data::Span> spans;
  if (setup.tokenizer.begin_of_text() >= 0)
    spans.push_back({TokenKind::prompt, data::Span::Content::begin, ""});
  spans.push_back({TokenKind::prompt, data::Span::Content::text, question});
  return spans;
}

}  // namespace

std::string answer(const Setup& setup, const data::Image* image, const std::string& question) {
  NoGrad no_grad;
  BURROW_CHECK(question.find_first_not_of(" \t\n") != question.npos, "the question is empty");
  BURROW_CHECK(!image || setup.model->tower, "the model has no vision tower: omit the image");
  const data::Tokens tokens =
      data::tokenize(prompt_spans(setup, image != nullptr, question), setup.tokenizer);
  data::Sample sample;
  sample.ids = tokens.ids;
  sample.answer = tokens.answer;
  sample.visual_at = tokens.visual_at;
  sample.image = image ? 0 : -1;
  const nn::VisionConfig& vision = setup.config.model.sizes.vision;
  const int64_t length = sample.length(vision.visual_tokens()),
                most = setup.config.model.sizes.decoder.max_tokens;
  BURROW_CHECK(length < most, "the question is too long: {} tokens with its image, the limit is {}", length,
               most - 1);
  const std::vector<data::BatchSample> one{{sample, 0, 0}};
  const data::Batch batch = data::make_batch(one, vision.visual_tokens());
  Var features;
  if (image) {
    const int64_t S = vision.image_size;
    features = (*setup.model->tower)(pixels_of(*image, vision).reshape({1, 3, S, S}));
  }
  const auto answers = nn::greedy_decode(*setup.model, batch.segments, batch.ids, features,
                                         setup.tokenizer.end_of_text(), setup.config.eval.max_new);
  return setup.tokenizer.decode(answers[0]);
}

}  // namespace burrow::train
