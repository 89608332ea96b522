#include "data/published/convert.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "data/json.h"
#include "data/published/convert_mmmb.h"
#include "data/sets/choices.h"
#include "data/sets/records.h"
#include "tensor/files.h"

namespace burrow::data {
namespace {

using Json = nlohmann::ordered_json;
using nlohmann::json;
namespace fs = std::filesystem;

[[noreturn]] void wrong(std::string field, std::string reason) {
  throw RecordError{std::move(field), std::move(reason)};
}

const json& field_of(const json& record, const char* name) {
  if (!record.is_object()) wrong("", fmt::format("must be an object, not {}", record.type_name()));
  const auto it = record.find(name);
  if (it == record.end()) wrong(name, "is missing");
  return *it;
}
std::string text_of(const json& record, const char* name) {
  const json& value = field_of(record, name);
  if (!value.is_string()) wrong(name, fmt::format("must be a string, not {}", value.type_name()));
  return value.get<std::string>();
}
std::vector<std::string> texts_of(const json& record, std::initializer_list<const char*> names) {
  std::vector<std::string> texts;
  for (const char* name : names) texts.push_back(text_of(record, name));
  return texts;
}

std::optional<int64_t> integer(std::string_view text) {
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || stop != text.data() + text.size()) return std::nullopt;
  return value;
}

// An index that files write as 3 or as "3", counted from `first`.
int64_t index_of(const json& record, const char* name, int64_t first) {
  const json& value = field_of(record, name);
  if (value.is_number_integer()) return value.get<int64_t>() - first;
  const auto number =
      value.is_string() ? integer(trimmed(value.get_ref<const std::string&>())) : std::nullopt;
  if (number) return *number - first;
  if (value.is_string() && value.get_ref<const std::string&>().empty())
    wrong(name, "is empty: a test file without its answers cannot be scored");
  wrong(name, fmt::format("must be a whole number, not {:.60}", value.dump()));
}

// What a record becomes, without its id and task; `answer` is open where a file of labels has it.
struct Item {
  std::string context, question;
  std::vector<std::string> choices;
  std::optional<int64_t> answer;
};

Item from_boolq(const json& r, bool passage) {
  const json& answer = field_of(r, "answer");
  if (!answer.is_boolean()) wrong("answer", fmt::format("must be true or false, not {}", answer.type_name()));
  return {passage ? text_of(r, "passage") : "",
          text_of(r, "question"),
          {"true", "false"},
          answer.get<bool>() ? 0 : 1};
}

Item from_question(const json& r) {  // arc and obqa
  const json& question = field_of(r, "question");
  Item item{"", text_of(question, "stem"), {}, std::nullopt};
  const json& choices = field_of(question, "choices");
  if (!choices.is_array())
    wrong("question.choices", fmt::format("must be an array, not {}", choices.type_name()));
  const std::string key = text_of(r, "answerKey");
  std::vector<std::string> labels;
  for (const json& choice : choices) {
    labels.push_back(text_of(choice, "label"));
    item.choices.push_back(text_of(choice, "text"));
    if (labels.back() == key) item.answer = static_cast<int64_t>(labels.size()) - 1;
  }
  if (!item.answer)
    wrong("answerKey", fmt::format("'{}' is none of the labels {}", key, fmt::join(labels, ", ")));
  return item;
}

Item read_published(const std::string& shape, const json& r, bool passage) {
  const auto own_label = [&](int64_t first) {
    return r.contains("label") ? std::optional(index_of(r, "label", first)) : std::nullopt;
  };
  if (shape == "boolq") return from_boolq(r, passage);
  if (shape == "piqa") {
    const auto choices = texts_of(r, {"sol1", "sol2"});
    return {"", text_of(r, "goal"), choices, own_label(0)};
  }
  if (shape == "siqa") {
    const auto choices = texts_of(r, {"answerA", "answerB", "answerC"});
    return {text_of(r, "context"), text_of(r, "question"), choices, own_label(1)};
  }
  if (shape == "hellaswag") {
    const json& endings = field_of(r, "endings");
    Item item{"", text_of(r, "ctx"), {}, index_of(r, "label", 0)};
    if (!endings.is_array()) wrong("endings", fmt::format("must be an array, not {}", endings.type_name()));
    for (const json& ending : endings) {
      if (!ending.is_string()) wrong("endings", "must be an array of strings");
      item.choices.push_back(ending.get<std::string>());
    }
    return item;
  }
  if (shape == "winogrande")
    return {"", text_of(r, "sentence"), texts_of(r, {"option1", "option2"}), index_of(r, "answer", 1)};
  return from_question(r);
}

// A label a line, counted from what the task counts from.
std::vector<int64_t> read_labels(const ConvertOptions& o) {
  const int64_t first = o.shape == "siqa" ? 1 : 0;
  std::vector<int64_t> labels;
  if (o.labels.empty()) return labels;
  BURROW_CHECK(o.shape == "piqa" || o.shape == "siqa",
               "--labels {}: the files of {} have their answers in the records", o.labels.string(), o.shape);
  const std::string text = read_file(o.labels.string());
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = trimmed(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
    if (line.empty() && begin >= text.size()) break;
    const auto label = integer(line);
    BURROW_CHECK(label, "{}, line {}: '{:.60}' is no label: a whole number is expected", o.labels.string(),
                 labels.size() + 1, line);
    labels.push_back(*label - first);
  }
  return labels;
}

std::string id_of(const std::string& shape, const json& record, int64_t line) {
  for (const char* name : {"id", "qID"}) {
    const auto it = record.find(name);
    if (it != record.end() && it->is_string()) return it->get<std::string>();
  }
  return fmt::format("{}-{}", shape, line);
}

// Turns records into lines of items.
class Converter {
 public:
  explicit Converter(const ConvertOptions& options) : o_(options), labels_(read_labels(options)) {}

  void add(int64_t line, const json& record) {
    const size_t number = records_++;
    try {
      Item item = read_published(o_.shape, record, o_.passage);
      if (!labels_.empty()) {
        BURROW_CHECK(number < labels_.size(), "{} has {} labels, but {} has more records", o_.labels.string(),
                     labels_.size(), o_.in.string());
        item.answer = labels_[number];
      }
      if (!item.answer) wrong("label", "is missing: name the file of labels (.lst) with --labels");
      Json json = {{"id", id_of(o_.shape, record, line)}, {"task", o_.shape}};
      if (!item.context.empty()) json["context"] = item.context;
      json["question"] = item.question;
      json["choices"] = item.choices;
      json["answer"] = *item.answer;
      write(json);
    } catch (const RecordError& e) {
      broken(line, (e.field.empty() ? "" : e.field + ": ") + e.reason);
    }
  }

  [[noreturn]] void broken(int64_t line, const std::string& reason) const {
    fail("{}, line {}: {}", o_.in.string(), line, reason);
  }

  Converted finish() {
    BURROW_CHECK(labels_.empty() || labels_.size() == records_, "{} has {} labels, but {} has {} records",
                 o_.labels.string(), labels_.size(), o_.in.string(), records_);
    BURROW_CHECK(done_.items > 0, "{}: no item to write", o_.in.string());
    write_file_atomically(o_.out.string(), text_);
    return done_;
  }

 private:
  void write(const Json& item) {
    try {
      const ChoiceItem read = read_choice(item);  // what training will do
      ++done_.answers[read.label()];
      ++done_.items;
      text_ += item.dump() + "\n";
    } catch (const RecordError& e) {
      // A label beside the choices is a mistake in the call, not in the item.
      if (o_.leave_out && e.field != "answer") {
        ++done_.left_out;
        return;
      }
      wrong(e.field, e.reason + (e.field == "answer" ? "" : " (--leave-out drops such items)"));
    }
  }

  const ConvertOptions& o_;
  std::vector<int64_t> labels_;
  size_t records_ = 0;
  std::string text_;
  Converted done_;
};

}  // namespace

Converted convert_choices(const ConvertOptions& options) {
  task_shape(options.shape);  // throws where there is none
  BURROW_CHECK(!options.passage || options.shape == "boolq", "--passage: only boolq has passages, not {}",
               options.shape);
  std::error_code ignored;
  BURROW_CHECK(!fs::equivalent(options.in, options.out, ignored), "{}: the output is the input",
               options.out.string());
  if (options.shape == "mmmb") return convert_mmmb(options);
  Converter converter(options);
  for_each_line(
      read_file(options.in.string()), options.in.string(),
      [&](int64_t line, const json& record) { converter.add(line, record); },
      [&](int64_t line, const std::string& reason) { converter.broken(line, reason); });
  return converter.finish();
}

}  // namespace burrow::data
