#include "data/sets/batch.h"

#include "tensor/check.h"

namespace burrow::data {
namespace {

struct Rows {
  std::vector<int32_t> ids, supervised, targets;
};

void append_visual(Batch& batch, Rows& rows, int64_t visual_tokens) {
  const auto first = static_cast<int64_t>(batch.images.size()) * visual_tokens;
  for (int64_t v = first; v < first + visual_tokens; ++v) {
    rows.ids.push_back(static_cast<int32_t>(-1 - v));
    batch.segments.kind.push_back(TokenKind::visual);
  }
}

void append_sample(Batch& batch, Rows& rows, const BatchSample& s, int64_t visual_tokens) {
  Segments& segments = batch.segments;
  const Sample& sample = s.sample;
  const auto begin = static_cast<int32_t>(rows.ids.size());
  for (size_t t = 0; t < sample.ids.size(); ++t) {
    if (static_cast<int64_t>(t) == sample.visual_at) append_visual(batch, rows, visual_tokens);
    const auto row = static_cast<int32_t>(rows.ids.size());
    if (sample.supervises(t)) {
      rows.supervised.push_back(row - 1);
      rows.targets.push_back(sample.ids[t]);
    }
    rows.ids.push_back(sample.ids[t]);
    segments.kind.push_back(sample.answer[t] ? TokenKind::answer : TokenKind::prompt);
  }
  if (sample.visual_at == static_cast<int64_t>(sample.ids.size())) append_visual(batch, rows, visual_tokens);
  if (sample.visual_at >= 0) batch.images.push_back({s.dataset, sample.image});

  const auto end = static_cast<int32_t>(rows.ids.size());
  const auto index = static_cast<int32_t>(segments.count());
  for (int32_t row = begin; row < end; ++row) {
    segments.position.push_back(row - begin);
    segments.sequence.push_back(index);
  }
  segments.offsets.push_back(end);
  segments.ordinal.push_back(s.ordinal);
  segments.dataset.push_back(s.dataset);
}

Tensor column(const std::vector<int32_t>& values) {
  return Tensor::of({static_cast<int64_t>(values.size())}, values);
}

}  // namespace

Batch make_batch(std::span<const BatchSample> samples, int64_t visual_tokens) {
  BURROW_CHECK(!samples.empty() && visual_tokens >= 0, "[batch] {} samples with {} visual tokens each",
               samples.size(), visual_tokens);
  Batch batch;
  Rows rows;
  for (const BatchSample& s : samples) append_sample(batch, rows, s, visual_tokens);
  batch.ids = column(rows.ids);
  batch.supervised = column(rows.supervised);
  batch.targets = column(rows.targets);
  return batch;
}

Batch make_batch(const Plan& plan, const MicroBatch& micro_batch, int64_t visual_tokens) {
  std::vector<BatchSample> samples;
  for (int64_t o = micro_batch.begin; o < micro_batch.end; ++o)
    samples.push_back({plan.sample(o), plan.draw(o).dataset, o});
  return make_batch(samples, visual_tokens);
}

}  // namespace burrow::data
