#include "data/sets/records.h"

#include "data/json.h"
#include "tensor/files.h"

namespace burrow::data {
namespace {

using nlohmann::json;

constexpr std::string_view image_mark = "<image>";

[[noreturn]] void wrong(std::string field, std::string reason) {
  throw RecordError{std::move(field), std::move(reason)};
}

std::string optional_string(const json& element, const char* name) {
  const auto it = element.find(name);
  if (it == element.end() || it->is_null()) return "";
  if (!it->is_string()) wrong(name, fmt::format("must be a string, not {}", it->type_name()));
  return it->get<std::string>();
}

const std::string& text_of(const json& message, const char* name, size_t at) {
  const std::string field = fmt::format("conversations[{}].{}", at, name);
  const auto it = message.find(name);
  if (it == message.end()) wrong(field, "is missing");
  if (!it->is_string()) wrong(field, fmt::format("must be a string, not {}", it->type_name()));
  return it->get_ref<const std::string&>();
}

// Takes the <image> mark out of the first question, where alone it may stand, once, if there is an image.
void take_image_mark(Record& record) {
  size_t marks = 0;
  for (size_t i = 0; i < record.turns.size(); ++i)
    for (const std::string* text : {&record.turns[i].question, &record.turns[i].answer})
      for (size_t at = 0; (at = text->find(image_mark, at)) != std::string::npos; at += image_mark.size()) {
        if (++marks > 1 || i > 0 || text != &record.turns[0].question)
          wrong("conversations", "<image> may stand once, in the first human value");
      }
  if (marks == 1 && record.image.empty()) wrong("image", "is missing, but the first human value has <image>");
  if (marks == 0 && !record.image.empty())
    wrong("conversations", "the record has an image, but its first human value has no <image>");
  if (marks == 1) {
    std::string& question = record.turns[0].question;
    question.erase(question.find(image_mark), image_mark.size());
  }
}

}  // namespace

std::string trimmed(std::string_view text) {
  const char* space = " \t\r\n\v\f";
  const size_t begin = text.find_first_not_of(space);
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(space) - begin + 1));
}

Record read_record(const json& element) {
  if (!element.is_object()) wrong("", fmt::format("must be an object, not {}", element.type_name()));
  Record record{optional_string(element, "image"),
                optional_string(element, "type"),
                optional_string(element, "language"),
                {}};
  const auto it = element.find("conversations");
  if (it == element.end()) wrong("conversations", "is missing");
  if (!it->is_array()) wrong("conversations", fmt::format("must be an array, not {}", it->type_name()));

  bool human_next = true;
  for (size_t i = 0; i < it->size(); ++i) {
    const json& message = (*it)[i];
    if (!message.is_object())
      wrong(fmt::format("conversations[{}]", i),
            fmt::format("must be an object, not {}", message.type_name()));
    const std::string& from = text_of(message, "from", i);
    const std::string& value = text_of(message, "value", i);
    if (from != "human" && from != "gpt")
      wrong(fmt::format("conversations[{}].from", i), fmt::format("must be human or gpt, not '{}'", from));
    if (i == 0 && from == "gpt") continue;  // a leading answer has no question: dropped, as LLaVA does
    if ((from == "human") != human_next)
      wrong(fmt::format("conversations[{}].from", i),
            fmt::format("turns must alternate: {} is expected, not {}", human_next ? "human" : "gpt", from));
    if (human_next)
      record.turns.push_back({value, ""});
    else
      record.turns.back().answer = value;
    human_next = !human_next;
  }
  if (record.turns.empty()) wrong("conversations", "has no human turn");
  if (!human_next) wrong("conversations", "ends with a human turn");
  take_image_mark(record);
  for (Turn& turn : record.turns) turn = {trimmed(turn.question), trimmed(turn.answer)};
  return record;
}

void for_each_record(const std::filesystem::path& path,
                     const std::function<void(int64_t, const json&)>& use) {
  for_each_record(read_file(path.string()), path.string(), use);
}

void for_each_record(std::string_view text, const std::string& name,
                     const std::function<void(int64_t, const json&)>& use) {
  int64_t index = 0;
  const auto on_event = [&](int depth, json::parse_event_t event, json& parsed) {
    using Event = json::parse_event_t;
    if (depth == 0 && event != Event::array_start && event != Event::array_end)
      fail("[data] {}: a list of records is expected at the top", name);
    const bool whole = event == Event::object_end || event == Event::array_end || event == Event::value;
    if (depth != 1 || !whole) return true;
    use(index++, parsed);
    return false;  // the element has been used: drop it
  };
  try {
    const json list = json::parse(text, on_event);
    BURROW_CHECK(list.is_array(), "[data] {}: a list of records is expected at the top", name);
  } catch (const json::exception& e) {
    // A parse error says line and column, and quotes what was read last, which may be long.
    fail("[data] {}: after {} records: {:.400}", name, index, e.what());
  }
}

void for_each_line(std::string_view text, const std::string& name,
                   const std::function<void(int64_t, const json&)>& use,
                   const std::function<void(int64_t, const std::string&)>& broken) {
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != text.npos && text[first] == '[')
    fail("[data] {}: a JSON list: JSON lines are expected, an object on each (the format llava reads lists)",
         name);
  int64_t line = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view row = text.substr(begin, end - begin);
    begin = end + 1;
    ++line;
    if (row.find_first_not_of(" \t\r") == row.npos) continue;
    json element;
    try {
      element = json::parse(row);
    } catch (const json::exception& e) {  // says line 1: each is parsed alone
      const std::string what = e.what();
      const size_t column = what.find("column");
      broken(line, "malformed JSON: " + (column == what.npos ? what : what.substr(column)));
      continue;
    }
    use(line, element);
  }
}

}  // namespace burrow::data
