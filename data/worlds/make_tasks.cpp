// Writes the reasoning tasks and their pretraining text.
#include "data/json.h"
#include "data/worlds/make.h"
#include "data/worlds/make_files.h"
#include "data/worlds/worlds.h"
#include "tensor/files.h"

namespace burrow::data {
namespace fs = std::filesystem;
namespace {

struct TaskSplit {
  const char* name;
  int64_t items;
  uint64_t first, last;  // tenths of all questions
};

std::string item_line(Family family, const TaskSplit& split, int64_t index, uint64_t seed) {
  Random random = random_of(seed, fmt::format("tasks/{}/{}", name_of(family), split.name), index);
  const auto answer = static_cast<int>(index % choices_of(family));  // each place equally often
  WorldItem item;
  uint64_t tenth = 0;
  do {
    item = draw_item(random, family, Cast::tasks, answer);
    tenth = tenth_of(item);
  } while (tenth < split.first || tenth > split.last);
  nlohmann::ordered_json line;
  line["id"] = fmt::format("{}-{}-{:06}", name_of(family), split.name, index);
  line["task"] = shape_of(family);
  if (!item.context.empty()) line["context"] = item.context;
  line["question"] = item.question;
  line["choices"] = item.choices;
  line["answer"] = item.answer;
  return line.dump();
}

void make_family(const fs::path& work, Family family, const TaskOptions& options, const Progress& progress) {
  const TaskSplit splits[] = {{"train", options.train, 0, last_train_tenth},
                              {"validation", options.validation, last_train_tenth + 1, last_train_tenth + 1},
                              {"test", options.test, last_train_tenth + 2, 9}};
  for (const TaskSplit& split : splits)
    write_lines(
        work / fmt::format("{}.jsonl", split.name), split.items, options.threads,
        fmt::format("{}/{}", name_of(family), split.name),
        [&](int64_t i) { return item_line(family, split, i, options.seed); }, progress);
}

void make_texts(const fs::path& work, const TaskOptions& options, const Progress& progress) {
  const auto write = [&](const char* name, int64_t lines, const std::function<std::string(Random&)>& draw) {
    write_lines(
        work / fmt::format("{}.jsonl", name), lines, options.threads, fmt::format("pretrain/{}", name),
        [&](int64_t i) {
          Random random = random_of(options.seed, fmt::format("tasks/pretrain/{}", name), i);
          return nlohmann::json{{"text", draw(random)}}.dump();
        },
        progress);
  };
  const auto mixed = [&](Random& random) {
    const auto percent = static_cast<int>(random.below(100));
    if (percent < options.prompt_percent) return draw_world_prompt(random);
    return percent % 5 == 0 ? draw_label_text(random, false) : draw_world_text(random);
  };
  write("labels", options.label_texts, [](Random& random) { return draw_label_text(random, true); });
  write("lists", options.label_texts * 3 / 2, [](Random& random) { return draw_label_text(random, false); });
  write("same", options.label_texts, [](Random& random) { return draw_world_prompt(random, true); });
  write("train", options.texts, mixed);
  write("validation", options.validation_texts, mixed);
}

}  // namespace

bool make_tasks(const fs::path& dir, const TaskOptions& options, const Progress& progress) {
  for (const int64_t count : {options.train, options.validation, options.test, options.texts,
                              options.validation_texts, options.label_texts})
    BURROW_CHECK(sound({count}), "[make] {} items or texts: out of range", count);
  BURROW_CHECK(options.threads > 0 && options.prompt_percent >= 0 && options.prompt_percent <= 100,
               "[make] threads {}, prompt_percent {}: out of range", options.threads, options.prompt_percent);
  const nlohmann::json of_items = {{"seed", options.seed},
                                   {"train", options.train},
                                   {"validation", options.validation},
                                   {"test", options.test}};
  const nlohmann::json of_texts = {{"seed", options.seed},
                                   {"texts", options.texts},
                                   {"validation_texts", options.validation_texts},
                                   {"label_texts", options.label_texts},
                                   {"prompt_percent", options.prompt_percent}};
  const MakeLock lock(dir);
  nlohmann::json all = of_items;
  all.update(of_texts);
  return make_all(dir, make_manifest("tasks", all), task_tokenizer(), [&] {
    bool made = false;
    for (const Family family : families)
      made |= make_folder(dir, name_of(family), make_manifest(name_of(family), of_items),
                          [&](const fs::path& work) { make_family(work, family, options, progress); });
    made |= make_folder(dir, "pretrain", make_manifest("task texts", of_texts),
                        [&](const fs::path& work) { make_texts(work, options, progress); });
    return made;
  });
}

}  // namespace burrow::data
