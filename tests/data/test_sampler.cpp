#include "data/sets/sampler.h"

#include <cmath>
#include <map>

#include "data/sets/batch.h"
#include "tests/support/data_testing.h"

using namespace burrow;
using namespace burrow::data;

namespace {

using Ids = std::vector<int32_t>;
using Counts = std::vector<int64_t>;

// Text-only samples; sample i has 4 + i % 5 tokens, 2 of them supervised.
Dataset text_samples(const std::string& name, int count) {
  Files files;
  std::string list;
  for (int i = 0; i < count; ++i) {
    std::string question = "p";
    for (int j = 0; j < i % 5; ++j) question += " q";
    list +=
        fmt::format(R"({}{{"conversations":[{{"from":"human","value":"{}"}},{{"from":"gpt","value":"r"}}]}})",
                    i == 0 ? "" : ",", question);
  }
  files.put("[" + list + "]");
  files.settings.name = name;
  return files.load();
}

PlanOptions options(int64_t samples) {
  return {.seed = 3, .samples = samples, .tokens_per_step = 40, .visual_tokens = 4, .accumulation = 3};
}

std::vector<std::pair<int, int>> sequence(const Plan& plan) {
  std::vector<std::pair<int, int>> all;
  for (int64_t i = 0; i < plan.draws(); ++i) all.emplace_back(plan.draw(i).dataset, plan.draw(i).sample);
  return all;
}

Ids values(const Tensor& t) { return Ids(t.data<int32_t>(), t.data<int32_t>() + t.numel()); }

}  // namespace

TEST_CASE("shares by largest remainder") {
  CHECK(apportion(50, {2, 1}) == Counts{33, 17});
  CHECK(apportion(10, {1, 1, 1}) == Counts{4, 3, 3});
  CHECK(apportion(11, {1, 1, 1}) == Counts{4, 4, 3});
  CHECK(apportion(7, {0.1, 0.2, 0.7}) == Counts{1, 1, 5});
  CHECK(apportion(5, {0, 1, 0}) == Counts{0, 5, 0});
  CHECK(apportion(1, {1e-300, 1e-300}) == Counts{1, 0});
  for (const double bad : {-1.0, std::nan(""), HUGE_VAL})
    CHECK(contains(error_of([&] { apportion(5, {1, bad}); }), "must be finite and not negative"));
  CHECK(contains(error_of([] { apportion(5, {0, 0}); }), "must have a positive, finite sum, not 0"));
  CHECK(contains(error_of([] { apportion(5, {}); }), "positive, finite sum"));
  CHECK_THROWS_AS(apportion(5, {1e308, 1e308}), Error);
}

TEST_CASE("samples are drawn by ratio, and none repeats before all were drawn") {
  const Dataset a = text_samples("a", 10), b = text_samples("b", 7);
  const Plan plan({{&a, 2}, {&b, 1}}, options(50));
  CHECK(plan.draws() == 50);
  CHECK(plan.counts() == Counts{33, 17});
  std::map<std::pair<int, int>, int> times;
  for (const auto& draw : sequence(plan)) ++times[draw];
  CHECK(times.size() == 17);
  for (const auto& [draw, n] : times) {
    const int whole = draw.first == 0 ? 3 : 2;  // 33 from 10, 17 from 7
    CHECK((n == whole || n == whole + 1));
  }
  const Plan some({{&a, 2}, {&b, 0}}, options(10));  // one permutation
  times.clear();
  for (const auto& draw : sequence(some)) ++times[draw];
  CHECK(times.size() == 10);
  CHECK(some.counts() == Counts{10, 0});
}

TEST_CASE("a plan is a function of its options alone") {
  const Dataset a = text_samples("a", 10), b = text_samples("b", 7), renamed = text_samples("c", 10);
  const auto drawn = [&](const Dataset& first, uint64_t seed) {
    PlanOptions o = options(50);
    o.seed = seed;
    return sequence(Plan({{&first, 2}, {&b, 1}}, o));
  };
  CHECK(drawn(a, 3) == drawn(a, 3));
  CHECK(drawn(a, 3) == drawn(text_samples("a", 10), 3));
  CHECK(drawn(a, 3) != drawn(a, 4));
  CHECK(drawn(a, 3) != drawn(renamed, 3));
  PlanOptions other = options(50);
  other.accumulation = 1;
  other.tokens_per_step = 9;
  CHECK(sequence(Plan({{&a, 2}, {&b, 1}}, other)) == drawn(a, 3));  // packing does not change the order
}

TEST_CASE("steps fill their budget and their parts partition them") {
  const Dataset a = text_samples("a", 10), b = text_samples("b", 7);
  for (const auto& [budget, parts] : {std::pair{40, 3}, {40, 1}, {8, 2}, {5, 3}, {1, 2}, {10'000, 7}}) {
    PlanOptions o = options(50);
    o.tokens_per_step = budget;
    o.accumulation = parts;
    const Plan plan({{&a, 2}, {&b, 1}}, o);
    int64_t next = 0, supervised = 0;
    for (int64_t i = 0; i < plan.steps(); ++i) {
      const StepPlan step = plan.step(i);
      CHECK(step.begin == next);
      REQUIRE(step.end > step.begin);
      int64_t tokens = 0, at = step.begin, part_tokens = 0, part_supervised = 0;
      for (int64_t s = step.begin; s < step.end; ++s) tokens += plan.sample(s).length(o.visual_tokens);
      CHECK(step.tokens == tokens);
      CHECK((tokens <= budget || step.end == step.begin + 1));
      if (step.end < plan.draws()) CHECK(tokens + plan.sample(step.end).length(o.visual_tokens) > budget);
      CHECK(step.micro_batches.size() ==
            static_cast<size_t>(std::min<int64_t>(parts, step.end - step.begin)));
      for (const MicroBatch& m : step.micro_batches) {
        CHECK(m.begin == at);
        CHECK(m.end > m.begin);
        at = m.end;
        part_tokens += m.tokens;
        part_supervised += m.supervised;
        CHECK(m.supervised == 2 * (m.end - m.begin));
      }
      CHECK(at == step.end);
      CHECK(part_tokens == step.tokens);
      CHECK(part_supervised == step.supervised);
      supervised += step.supervised;
      next = step.end;
    }
    CHECK(next == 50);
    CHECK(supervised == 100);
    CHECK_THROWS_AS(plan.step(plan.steps()), Error);
  }
}

TEST_CASE("parts of a step are nearly even, and visual tokens count") {
  const Dataset a = text_samples("a", 50);
  PlanOptions o = options(50);
  o.tokens_per_step = 1000;
  o.accumulation = 4;
  const StepPlan step = Plan({{&a, 1}}, o).step(0);
  CHECK(step.tokens == 300);
  for (const MicroBatch& m : step.micro_batches) CHECK(std::abs(m.tokens - 75) <= 8);
  Files files;
  files.put("[" + with_image + "]");
  const Dataset image = files.load();
  CHECK(Plan({{&image, 1}}, options(8)).step(0).end == 4);  // 9 tokens each, of 40
}

TEST_CASE("invalid options are rejected") {
  const Dataset a = text_samples("a", 3);
  const auto refused = [&](void (*change)(PlanOptions&)) {
    PlanOptions o = options(5);
    change(o);
    return contains(error_of([&] { Plan({{&a, 1}}, o); }), "each must be positive");
  };
  CHECK(refused([](PlanOptions& o) { o.samples = 0; }));
  CHECK(refused([](PlanOptions& o) { o.tokens_per_step = 0; }));
  CHECK(refused([](PlanOptions& o) { o.accumulation = 0; }));
  CHECK(refused([](PlanOptions& o) { o.visual_tokens = -1; }));
  CHECK(contains(error_of([] { Plan({}, options(5)); }), "the mixture is empty"));
  CHECK(contains(error_of([] { Plan({{nullptr, 1}}, options(5)); }), "is empty"));
  CHECK(contains(error_of([&] { Plan({{&a, -1}}, options(5)); }), "ratio -1 must be"));
}

TEST_CASE("a batch concatenates its samples") {
  Files files;
  files.put("[" + with_image + "," + two_turns + "]");
  const Dataset data = files.load();
  const BatchSample first{data.sample(0), 1, 70}, second{data.sample(1), 0, 71}, third{data.sample(0), 1, 72};
  const Batch batch = make_batch(std::vector{first, second}, 2);
  const Segments& s = batch.segments;
  CHECK(values(batch.ids) == Ids{-1, -2, 7, 4, 2, 9, 3, 4, 2, 5, 3, 6, 2, 10, 0, 3});
  CHECK(values(batch.supervised) == Ids{4, 5, 8, 9, 12, 13, 14});
  CHECK(values(batch.targets) == Ids{9, 3, 5, 3, 10, 0, 3});
  CHECK(batch.images == std::vector<ImageRef>{{1, 0}});
  CHECK(s.offsets == Ids{0, 7, 16});
  CHECK(s.position == Ids{0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(s.sequence == Ids{0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1});
  CHECK(s.ordinal == Counts{70, 71});
  CHECK(s.dataset == Ids{1, 0});
  std::string kinds;
  for (const TokenKind kind : s.kind) kinds += "vpa"[static_cast<int>(kind)];
  CHECK(kinds == "vvpppaappaappaaa");

  const Batch images = make_batch(std::vector{first, third}, 2);
  CHECK(values(images.ids) == Ids{-1, -2, 7, 4, 2, 9, 3, -3, -4, 7, 4, 2, 9, 3});
  CHECK(images.images == std::vector<ImageRef>{{1, 0}, {1, 0}});
  CHECK_THROWS_AS(make_batch(std::vector<BatchSample>{}, 2), Error);
}

TEST_CASE("the batch of a micro-batch of a plan") {
  Files files;
  files.put("[" + with_image + "," + two_turns + "]");
  const Dataset data = files.load(), text = text_samples("text", 5);
  const Plan plan({{&data, 1}, {&text, 1}}, options(20));
  for (int64_t i = 0; i < plan.steps(); ++i)
    for (const MicroBatch& m : plan.step(i).micro_batches) {
      const Batch batch = make_batch(plan, m, 4);
      CHECK(batch.segments.rows() == m.tokens);
      CHECK(batch.targets.numel() == m.supervised);
      CHECK(batch.segments.count() == m.end - m.begin);
      CHECK(batch.segments.ordinal.front() == m.begin);
      for (size_t b = 0; b < batch.segments.dataset.size(); ++b)
        CHECK(batch.segments.dataset[b] == plan.draw(batch.segments.ordinal[b]).dataset);
    }
}
