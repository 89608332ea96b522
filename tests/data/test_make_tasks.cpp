#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "data/json.h"
#include "data/sets/choices.h"
#include "data/worlds/make.h"
#include "data/worlds/worlds.h"
#include "tensor/files.h"
#include "tensor/json.h"
#include "tests/support/data_testing.h"

using namespace burrow;
using namespace burrow::data;
namespace fs = std::filesystem;

namespace {

TaskOptions small(uint64_t seed = 1) {
  return {.seed = seed,
          .train = 12,
          .validation = 4,
          .test = 4,
          .texts = 20,
          .validation_texts = 5,
          .label_texts = 5};
}

std::vector<nlohmann::json> lines_of(const fs::path& path) {
  std::istringstream in(read_file(path.string()));
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(parse_json(line, path.string()));
  return lines;
}

// The items of the eight families, generated once for all test cases that count.
struct Made {
  Folder folder;
  std::map<std::string, std::map<std::string, std::vector<nlohmann::json>>> items;  // by family and split
  std::vector<nlohmann::json> texts;
  Made() {
    CHECK(make_tasks(folder.path, {.train = 4000,
                                   .validation = 1200,
                                   .test = 1200,
                                   .texts = 2000,
                                   .validation_texts = 100,
                                   .label_texts = 100}));
    for (const Family family : families)
      for (const char* split : {"train", "validation", "test"})
        items[name_of(family)][split] = lines_of(folder / fmt::format("{}/{}.jsonl", name_of(family), split));
    texts = lines_of(folder / "pretrain/train.jsonl");
  }
};
const Made& made() {
  static const Made all;
  return all;
}

std::string right_choice(const nlohmann::json& item) {
  return item["choices"].at(item["answer"].get<size_t>());
}

// An item without the order of its choices.
std::string content(const nlohmann::json& item) {
  std::vector<std::string> choices = item["choices"];
  std::sort(choices.begin(), choices.end());
  return fmt::format("{} {} {}", item.value("context", ""), item["question"].get<std::string>(),
                     fmt::join(choices, ", "));
}

// Score on `test` of choosing, in each item, the word that was most often the right answer in `train`.
double word_score(const std::vector<nlohmann::json>& train, const std::vector<nlohmann::json>& test) {
  std::map<std::string, std::pair<double, double>> seen;  // right, all
  for (const nlohmann::json& item : train)
    for (const std::string choice : item["choices"]) {
      seen[choice].first += choice == right_choice(item);
      seen[choice].second += 1;
    }
  const auto rate = [&](const std::string& choice) {
    const auto& [right, all] = seen[choice];
    return (right + 1) / (all + 2);
  };
  double correct = 0;
  for (const nlohmann::json& item : test) {
    const std::vector<std::string> choices = item["choices"];
    correct += right_choice(item) == *std::max_element(choices.begin(), choices.end(),
                                                       [&](auto& a, auto& b) { return rate(a) < rate(b); });
  }
  return correct / static_cast<double>(test.size());
}

// The same for questions of truth, by the sum of the log odds of the words in context and question.
double text_score(const std::vector<nlohmann::json>& train, const std::vector<nlohmann::json>& test) {
  std::map<std::string, std::pair<double, double>> seen;  // true, false
  const auto words = [](const nlohmann::json& item) {
    std::istringstream in(item.value("context", "") + " " + item["question"].get<std::string>());
    return std::set<std::string>{std::istream_iterator<std::string>(in), {}};
  };
  for (const nlohmann::json& item : train)
    for (const std::string& w : words(item)) (item["answer"] == 1 ? seen[w].first : seen[w].second) += 1;
  double correct = 0;
  for (const nlohmann::json& item : test) {
    double odds = 0;
    for (const std::string& w : words(item)) odds += std::log((seen[w].first + 1) / (seen[w].second + 1));
    correct += (odds > 0) == (item["answer"] == 1);
  }
  return correct / static_cast<double>(test.size());
}

}  // namespace

TEST_CASE("a seed gives the same bytes for any number of threads") {
  const Folder a, b, c;
  TaskOptions options = small();
  options.threads = 1;
  CHECK(make_tasks(a.path, options));
  options.threads = 3;
  CHECK(make_tasks(b.path, options));
  CHECK(make_tasks(c.path, small(2)));
  const auto files = tree(a.path), other = tree(c.path);
  CHECK(files.size() == 8 * 4 + 6 + 2);
  CHECK(files == tree(b.path));
  check_other_seed(files, other);
}

TEST_CASE("more items are a superset") {
  const Folder few, many;
  TaskOptions more = small();
  more.train = 17;
  more.texts = 31;
  make_tasks(few.path, small());
  make_tasks(many.path, more);
  const auto a = tree(few.path), b = tree(many.path);
  CHECK(a.size() == b.size());
  for (const auto& [name, bytes] : a) {
    if (name.ends_with("manifest.json")) continue;
    const bool longer = name.ends_with("train.jsonl");
    CHECK_MESSAGE(
        (longer ? b.at(name).starts_with(bytes) && b.at(name).size() > bytes.size() : b.at(name) == bytes),
        name);
  }
}

TEST_CASE("a finished folder is recognised, a killed run is continued, other options are rejected") {
  const Folder folder;
  CHECK(make_tasks(folder.path, small()));
  const auto before = tree(folder.path);
  CHECK(!make_tasks(folder.path, small()));
  TaskOptions more = small();
  more.texts = 21;
  for (const TaskOptions& options : {more, small(2)})
    CHECK(contains(error_of([&] { make_tasks(folder.path, options); }), "was requested"));
  CHECK(tree(folder.path) == before);
  fs::remove(folder / "manifest.json");
  fs::remove_all(folder / "rules");
  fs::create_directories(folder / ".rules.incomplete");
  write_bytes(folder / ".rules.incomplete/train.jsonl", "half");
  CHECK(make_tasks(folder.path, small()));
  CHECK(tree(folder.path) == before);
  CHECK(contains(error_of([&] { make_domains(folder.path, {}); }), "was requested"));
  TaskOptions wrong = small();
  wrong.prompt_percent = 101;
  CHECK(contains(error_of([&] { make_tasks(folder / "x", wrong); }), "out of range"));
  wrong = small();
  wrong.test = -1;
  CHECK(contains(error_of([&] { make_tasks(folder / "x", wrong); }), "out of range"));
}

TEST_CASE("items are sound, short and of known words") {
  const Tokenizer tokenizer = Tokenizer::load(made().folder / "tokenizer.json");
  for (const char* label : {"true", "false", "A", "B", "C", "D", "E", "1", "2", "3", "4", "5"})
    CHECK(tokenizer.find(label) >= 0);
  for (const auto& [family, splits] : made().items)
    for (const auto& [split, items] : splits)
      for (const nlohmann::json& line : items) {
        std::string text;
        for (const Span& span : choice_spans(read_choice(line), false)) text += span.text;
        const std::vector<int32_t> ids = tokenizer.encode_plain(text);
        CHECK_MESSAGE(std::count(ids.begin(), ids.end(), tokenizer.unknown()) == 0, text);
        CHECK_MESSAGE(ids.size() <= 48, text);
      }
  int64_t prompts = 0;
  for (const nlohmann::json& line : made().texts) {
    const std::string text = line["text"];
    const std::vector<int32_t> ids = tokenizer.encode_plain(text);
    CHECK_MESSAGE(std::count(ids.begin(), ids.end(), tokenizer.unknown()) == 0, text);
    prompts += contains(text, "\n");
  }
  CHECK(prompts > 820);
  CHECK(prompts < 980);
}

TEST_CASE("splits share no item") {
  for (const auto& [family, splits] : made().items) {
    std::map<std::string, std::string> where;  // content -> split
    int64_t shared = 0;
    for (const auto& [split, items] : splits)
      for (const nlohmann::json& item : items) {
        const auto [it, fresh] = where.emplace(content(item), split);
        shared += !fresh && it->second != split;
      }
    CHECK_MESSAGE(shared == 0, family);
  }
}

TEST_CASE("tasks ask about no entity of the pretraining prompts") {
  std::set<std::string> kept;
  for (size_t i = 2; i < person_words.size(); i += 3) kept.insert(person_words[i]);
  for (size_t i = 2; i < animal_words.size(); i += 3) kept.insert(animal_words[i]);
  for (size_t i = 2; i < object_words.size(); i += 3) kept.insert(object_words[i]);
  std::set<std::string> asked;
  for (const auto& [family, splits] : made().items) {
    if (family == "continuation") continue;  // a step may contain the name of a thing
    for (const auto& [split, items] : splits)
      for (const nlohmann::json& item : items) {
        std::istringstream in(content(item));
        for (std::string w; in >> w;) asked.insert(w);
      }
  }
  for (const std::string& w : kept) CHECK_MESSAGE(!asked.contains(w), w);
}

TEST_CASE("places of answers are balanced, and words alone do not predict the answer") {
  for (const Family family : families) {
    const auto& splits = made().items.at(name_of(family));
    const double chance = 1.0 / choices_of(family);
    for (const auto& [split, items] : splits) {
      std::vector<int64_t> places(static_cast<size_t>(choices_of(family)));
      for (const nlohmann::json& item : items) {
        CHECK(item["choices"].size() == places.size());
        ++places.at(item["answer"].get<size_t>());
      }
      const auto [least, most] = std::minmax_element(places.begin(), places.end());
      CHECK(*most - *least <= 1);
    }
    const double score = family == Family::negation ? text_score(splits.at("train"), splits.at("test"))
                                                    : word_score(splits.at("train"), splits.at("test"));
    CHECK_MESSAGE(score < chance + 0.08, name_of(family), ": ", score);
  }
}
