#include "train/baselines.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "data/records.h"
#include "tensor/check.h"

namespace burrow::train {
namespace {

// Answers with how often they came; a map, so that ties fall to the first in the alphabet.
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

template <class Use>
void for_each_first_turn(const std::string& file, Use&& use) {
  data::for_each_record(file, [&](int64_t index, const nlohmann::json& element) {
    try {
      const data::Record record = data::read_record(element);
      use(index, record.turns[0].question, record.turns[0].answer);
    } catch (const data::RecordError& e) {
      fail("{}, record {}, {}: {}", file, index, e.field, e.reason);
    }
  });
}

}  // namespace

Baselines baselines(const std::string& train_file, const std::string& test_file, int64_t limit) {
  Answers all;
  std::unordered_map<std::string, Answers> by_question;
  for_each_first_turn(train_file, [&](int64_t, const std::string& question, const std::string& answer) {
    all.add(answer);
    by_question[question].add(answer);
  });
  BURROW_CHECK(!all.empty(), "{}: no records", train_file);
  const std::string majority = all.most_frequent();
  std::unordered_map<std::string, std::string> blind;
  for (const auto& [question, answers] : by_question) blind[question] = answers.most_frequent();

  Baselines sum;
  int64_t count = 0;
  for_each_first_turn(test_file, [&](int64_t index, const std::string& question, const std::string& answer) {
    if (limit > 0 && index >= limit) return;
    const auto seen = by_question.find(question);
    sum.chance += (seen == by_question.end() ? all : seen->second).chance_of(answer);
    sum.majority += answer == majority;
    sum.blind += answer == (seen == by_question.end() ? majority : blind[question]);
    ++count;
  });
  BURROW_CHECK(count > 0, "{}: no records", test_file);
  const auto n = static_cast<double>(count);
  return {sum.chance / n, sum.majority / n, sum.blind / n};
}

}  // namespace burrow::train
