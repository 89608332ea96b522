#include "data/sets/choices.h"

#include <algorithm>
#include <sstream>

#include "data/sets/records.h"
#include "tensor/check.h"
#include "tensor/json.h"

namespace burrow::data {
namespace {

using nlohmann::json;

[[noreturn]] void wrong(std::string field, std::string reason) {
  throw RecordError{std::move(field), std::move(reason)};
}

std::string text_field(const json& element, const char* name, bool needed) {
  const auto it = element.find(name);
  if (it == element.end() || it->is_null()) {
    if (needed) wrong(name, "is missing");
    return "";
  }
  if (!it->is_string()) wrong(name, fmt::format("must be a string, not {}", it->type_name()));
  std::string text = trimmed(it->get_ref<const std::string&>());
  if (needed && text.empty()) wrong(name, "is empty");
  return text;
}

std::string shape_names() {
  std::vector<std::string> names;
  for (const TaskShape& s : task_shapes()) names.push_back(s.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

const TaskShape* find_shape(std::string_view name) {
  for (const TaskShape& s : task_shapes()) {
    if (s.name == name) return &s;
  }
  return nullptr;
}

std::vector<std::string> read_choices(const json& element, const TaskShape& shape) {
  const auto it = element.find("choices");
  if (it == element.end()) wrong("choices", "is missing");
  if (!it->is_array()) wrong("choices", fmt::format("must be an array of strings, not {}", it->type_name()));
  if (it->size() < 2 || it->size() > shape.labels.size())
    wrong("choices", fmt::format("has {} choices: an item of {} has 2{}", it->size(), shape.name,
                                 shape.labels.size() > 2 ? fmt::format(" to {}", shape.labels.size()) : ""));
  std::vector<std::string> choices;
  for (size_t i = 0; i < it->size(); ++i) {
    const json& choice = (*it)[i];
    const std::string field = fmt::format("choices[{}]", i);
    if (!choice.is_string()) wrong(field, fmt::format("must be a string, not {}", choice.type_name()));
    std::string text = trimmed(choice.get_ref<const std::string&>());
    if (text.empty()) wrong(field, "is empty");
    if (const auto same = std::find(choices.begin(), choices.end(), text); same != choices.end())
      wrong(field, fmt::format("repeats choices[{}]: '{}'", same - choices.begin(), text));
    if (shape.choices_are_labels &&
        std::find(shape.labels.begin(), shape.labels.end(), text) == shape.labels.end())
      wrong(field, fmt::format("'{}': the choices of {} are {}", text, shape.name,
                               fmt::join(shape.labels, " and ")));
    choices.push_back(std::move(text));
  }
  return choices;
}

void prompt(std::vector<Span>& spans, std::string text) {
  spans.push_back({TokenKind::prompt, Span::Content::text, std::move(text)});
}
// Text of the item, after the template's words that introduce it.
void words(std::vector<Span>& spans, const std::string& lead, const std::string& text) {
  prompt(spans, lead);
  spans.push_back({TokenKind::prompt, Span::Content::text, " " + text});
}

}  // namespace

const std::vector<TaskShape>& task_shapes() {
  const std::vector<std::string> letters{"A", "B", "C", "D", "E"};
  const auto first = [&](ptrdiff_t n) {
    return std::vector<std::string>(letters.begin(), letters.begin() + n);
  };
  static const std::vector<TaskShape> shapes{
      {"boolq", {"true", "false"}, true, false, "Is it true or false?", "Passage:", "Question:", "Answer:"},
      {"piqa", first(2), false, false, "Which way reaches the goal?", "Context:", "Goal:", "Better way:"},
      {"siqa", first(3), false, false, "Which answer fits what happened?",
       "Context:", "Question:", "Answer:"},
      {"hellaswag", first(4), false, false, "How does the text go on?", "Context:", "Text:", "Continuation:"},
      {"winogrande",
       {"1", "2"},
       false,
       false,
       "Which option fills the blank?",
       "Context:",
       "Sentence:",
       "Option:"},
      {"arc", first(5), false, true, "Which answer is right?", "Context:", "Question:", "Answer:"},
      {"obqa", first(4), false, true, "Which answer do the facts support?", "Fact:", "Question:", "Answer:"},
      {"mmmb", first(4), false, false, "", "Context:", "", "Answer:"}};
  return shapes;
}

const TaskShape& task_shape(std::string_view name) {
  const TaskShape* shape = find_shape(name);
  BURROW_CHECK(shape, "[choices] no task shape '{}': there are {}", name, shape_names());
  return *shape;
}

ChoiceItem read_choice(const json& element) {
  if (!element.is_object()) wrong("", fmt::format("must be an object, not {}", element.type_name()));
  ChoiceItem item;
  const std::string task = text_field(element, "task", true);
  item.shape = find_shape(task);
  if (!item.shape) wrong("task", fmt::format("no task shape '{}': there are {}", task, shape_names()));
  item.context = text_field(element, "context", false);
  item.question = text_field(element, "question", true);
  item.choices = read_choices(element, *item.shape);
  item.image = text_field(element, "image", false);
  item.language = text_field(element, "language", false);
  const auto answer = element.find("answer");
  if (answer == element.end()) wrong("answer", "is missing");
  if (!answer->is_number_integer())
    wrong("answer", fmt::format("must be the index of a choice, an integer from 0, not {}",
                                answer->is_number() ? answer->dump() : answer->type_name()));
  const auto count = static_cast<int64_t>(item.choices.size());
  if (answer->is_number_unsigned() && answer->get<uint64_t>() > static_cast<uint64_t>(count))
    item.answer = count;  // out of range; the value may not fit in int64_t
  else
    item.answer = answer->get<int64_t>();
  if (item.answer < 0 || item.answer >= count)
    wrong("answer",
          fmt::format("{} is out of range: the {} choices are 0 to {}", answer->dump(), count, count - 1));
  if (item.shape->choices_are_labels) {
    const std::string right = item.choices[static_cast<size_t>(item.answer)];
    item.choices = item.shape->labels;
    item.answer = std::find(item.choices.begin(), item.choices.end(), right) - item.choices.begin();
  }
  return item;
}

ChoiceItem rotated(ChoiceItem item, int64_t by) {
  const auto n = static_cast<int64_t>(item.choices.size());
  std::rotate(item.choices.begin(), item.choices.end() - by % n, item.choices.end());
  item.answer = (item.answer + by) % n;
  return item;
}

std::vector<Span> choice_spans(const ChoiceItem& item, bool begin) {
  const TaskShape& shape = *item.shape;
  std::vector<Span> spans;
  if (begin) spans.push_back({TokenKind::prompt, Span::Content::begin, ""});
  if (!item.image.empty()) spans.push_back({TokenKind::visual, Span::Content::image, ""});
  if (!shape.instruction.empty()) prompt(spans, shape.instruction + "\n");
  if (!item.context.empty()) {
    words(spans, shape.context, item.context);
    prompt(spans, "\n");
  }
  if (shape.question.empty())
    prompt(spans, item.question);
  else
    words(spans, shape.question, item.question);
  for (size_t i = 0; !shape.choices_are_labels && i < item.choices.size(); ++i)
    words(spans, fmt::format("{}({})", shape.one_line ? " " : "\n", shape.labels[i]), item.choices[i]);
  prompt(spans, "\n" + shape.cue);
  spans.push_back({TokenKind::answer, Span::Content::text, " " + item.label()});
  return spans;
}

std::vector<std::string> template_words() {
  std::vector<std::string> all;
  const auto add = [&](const std::string& text) {
    std::istringstream stream(text);
    for (std::string word; stream >> word;) {
      if (std::find(all.begin(), all.end(), word) == all.end()) all.push_back(word);
    }
  };
  for (const TaskShape& s : task_shapes()) {
    for (const std::string* text : {&s.instruction, &s.context, &s.question, &s.cue}) add(*text);
    for (const std::string& label : s.labels) {
      add(label);
      if (!s.choices_are_labels) add("(" + label + ")");
    }
  }
  return all;
}

}  // namespace burrow::data
