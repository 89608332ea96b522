#include "train/run/baselines.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_map>

#include "data/json.h"
#include "data/sets/choices.h"
#include "data/sets/records.h"
#include "tensor/check.h"
#include "tensor/files.h"

namespace burrow::train {
namespace {

// Counts of answers; a sorted map, so that most_frequent() resolves ties alphabetically.
class Answers {
 public:
  void add(const std::string& answer) { ++counts_[answer]; }
  const std::string& most_frequent() const {
    const auto rarer = [](const auto& a, const auto& b) { return a.second < b.second; };
    return std::max_element(counts_.begin(), counts_.end(), rarer)->first;
  }
  double chance_of(const std::string& answer) const {
    return counts_.contains(answer) ? 1 / static_cast<double>(counts_.size()) : 0;
  }
  bool empty() const { return counts_.empty(); }

 private:
  std::map<std::string, int64_t> counts_;
};

// The question and answer of a record. For conversations, label equals answer.
struct Asked {
  std::string question, answer, label;
  double choices = 0;  // number of the item's choices; 0: not multiple-choice
};

template <class Use>
void for_each_conversation(const std::string& file, Use&& use) {
  data::for_each_record(file, [&](int64_t index, const nlohmann::json& element) {
    try {
      const data::Turn turn = data::read_record(element).turns[0];
      use(Asked{turn.question, turn.answer, turn.answer, 0});
    } catch (const data::RecordError& e) {
      fail("{}, record {}, {}: {}", file, index, e.field, e.reason);
    }
  });
}

template <class Use>
void for_each_item(const std::string& file, Use&& use) {
  const auto broken = [&](int64_t line, const std::string& reason) {
    fail("{}, line {}: {}", file, line, reason);
  };
  data::for_each_line(
      read_file(file), file,
      [&](int64_t line, const nlohmann::json& element) {
        try {
          const data::ChoiceItem item = data::read_choice(element);
          use(Asked{item.shape->name + "\n" + item.context + "\n" + item.question,
                    item.choices[static_cast<size_t>(item.answer)], item.label(),
                    static_cast<double>(item.choices.size())});
        } catch (const data::RecordError& e) {
          broken(line, fmt::format("{}: {}", e.field, e.reason));
        }
      },
      broken);
}

template <class Use>
void for_each_asked(data::Format format, const std::string& file, Use&& use) {
  BURROW_CHECK(format != data::Format::text, "{}: texts have no answers to guess", file);
  if (format == data::Format::choices) return for_each_item(file, use);
  for_each_conversation(file, use);
}

}  // namespace

Baselines baselines(data::Format format, const std::string& train_file, const std::string& test_file,
                    int64_t limit, bool circle) {
  Answers answers, labels;
  std::unordered_map<std::string, Answers> by_question;
  for_each_asked(format, train_file, [&](const Asked& a) {
    answers.add(a.answer);
    labels.add(a.label);
    by_question[a.question].add(a.answer);
  });
  BURROW_CHECK(!answers.empty(), "{}: no records", train_file);
  const std::string majority = labels.most_frequent();

  Baselines sum;
  int64_t count = 0;
  for_each_asked(format, test_file, [&](const Asked& a) {
    if (limit > 0 && count >= limit) return;
    const auto seen = by_question.find(a.question);
    const bool known = seen != by_question.end();
    const double guess = a.choices > 0 ? 1 / a.choices : (known ? seen->second : answers).chance_of(a.answer);
    const bool by_majority = !circle && a.label == majority;
    sum.chance += circle ? std::pow(guess, a.choices) : guess;
    sum.majority += by_majority;
    sum.blind += known ? a.answer == seen->second.most_frequent() : by_majority;
    ++count;
  });
  BURROW_CHECK(count > 0, "{}: no records", test_file);
  const auto n = static_cast<double>(count);
  return {sum.chance / n, sum.majority / n, sum.blind / n};
}

}  // namespace burrow::train
