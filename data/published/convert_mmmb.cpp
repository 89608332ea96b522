#include "data/published/convert_mmmb.h"

#include <charconv>
#include <set>
#include <span>

#include "data/images/image.h"
#include "data/json.h"
#include "data/published/base64.h"
#include "data/sets/choices.h"
#include "data/sets/records.h"
#include "tensor/files.h"
#include "tensor/json.h"

namespace burrow::data {
namespace {

namespace fs = std::filesystem;
using Row = std::map<std::string, std::string>;
using Json = nlohmann::ordered_json;

constexpr int64_t first_rotated_index = 1'000'000;  // MMBench numbers rotated copies of items from here on
constexpr size_t longest_index = 64;                // characters; a longer value is an image

// The values of the record at `at`. Moves `at` behind the record and adds its line breaks to `line`.
std::vector<std::string> read_values(std::string_view text, size_t& at, int64_t& line,
                                     const std::string& name) {
  std::vector<std::string> values(1);
  const int64_t begin = line;
  bool quoted = false;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    line += c == '\n';
    const char next = at + 1 < text.size() ? text[at + 1] : '\0';
    if (quoted && c == '"' && next == '"') {
      values.back() += text[++at];
    } else if (c == '"' && (quoted || values.back().empty())) {
      quoted = !quoted;
    } else if (!quoted && c == '\t') {
      values.emplace_back();
    } else if (!quoted && c == '\n') {
      ++at;
      break;
    } else if (quoted || c != '\r' || next != '\n') {
      values.back() += c;
    }
  }
  BURROW_CHECK(!quoted, "{}, line {}: a double quote is not closed", name, begin);
  return values;
}

std::string value_of(const Row& row, const std::string& column) {
  const auto found = row.find(column);
  const std::string text = found == row.end() ? "" : trimmed(found->second);
  return text == "nan" ? "" : text;  // pandas writes nan for a missing value
}

std::string kind_of(std::string_view bytes) {
  if (bytes.starts_with("\x89PNG")) return "PNG";
  if (bytes.starts_with("\xff\xd8\xff")) return "JPEG";
  if (bytes.starts_with("RIFF")) return "WebP";
  return "unknown";
}

class Converter {
 public:
  Converter(const ConvertOptions& o, const std::vector<Row>& rows) : o_(o) {
    for (const Row& row : rows) by_index_.emplace(value_of(row, "index"), &row);
  }

  void add(const Row& row) {
    const std::string index = value_of(row, "index");
    const auto wrong = [&](const std::string& column, const std::string& reason) {
      fail("{}, index {}: {}: {}", o_.in.string(), index.empty() ? "(none)" : index, column, reason);
    };
    int64_t number = 0;
    const auto [stop, error] = std::from_chars(index.data(), index.data() + index.size(), number);
    if (error != std::errc{} || stop != index.data() + index.size())
      wrong("index", fmt::format("must be a whole number, not '{:.60}'", index));
    if (number >= first_rotated_index && by_index_.contains(std::to_string(number % first_rotated_index)))
      return;
    Json item = {{"id", fmt::format("mmmb-{}", index)}, {"task", "mmmb"}};
    if (!o_.language.empty()) item["language"] = o_.language;
    item["image"] = image_of(row, index, wrong);
    if (const std::string hint = value_of(row, "hint"); !hint.empty()) item["context"] = hint;
    item["question"] = value_of(row, "question");
    const std::vector<std::string>& labels = task_shape("mmmb").labels;
    item["choices"] = Json::array();
    for (const std::string& label : labels) {
      const std::string choice = value_of(row, label);
      if (choice.empty()) break;
      item["choices"].push_back(choice);
    }
    const std::string answer = value_of(row, "answer");
    const auto right = std::find(labels.begin(), labels.end(), answer);
    if (answer.empty()) wrong("answer", "is empty: a file without its answers cannot be scored");
    if (right == labels.end())
      wrong("answer", fmt::format("'{:.60}' is not one of {}", answer, fmt::join(labels, ", ")));
    item["answer"] = right - labels.begin();
    try {
      const ChoiceItem read = read_choice(item);  // checks the item as training will
      ++done_.answers[read.label()];
      ++done_.items;
      text_ += item.dump() + "\n";
    } catch (const RecordError& e) {
      if (!o_.leave_out) wrong(e.field, e.reason + " (--leave-out drops such items)");
      ++done_.left_out;
    }
  }

  Converted finish() const {
    BURROW_CHECK(done_.items > 0, "{}: no item to write", o_.in.string());
    write_file_atomically(o_.out.string(), text_);
    return done_;
  }

 private:
  // Writes the row's image, unless it is already written, and returns its file name.
  template <class Wrong>
  std::string image_of(const Row& row, std::string index, const Wrong& wrong) {
    std::string text = value_of(row, "image");
    if (const auto other = by_index_.find(text); text.size() <= longest_index && other != by_index_.end()) {
      index = text;
      text = value_of(*other->second, "image");
    }
    if (text.empty()) wrong("image", "is empty");
    const auto bytes = from_base64(text);
    if (!bytes) wrong("image", "is neither base64 nor the index of a row");
    std::string file = index + ".png";
    if (!written_.insert(file).second) return file;
    const std::string kind = kind_of(*bytes);
    if (kind == "JPEG")
      write_png(o_.images / file,
                parse_jpeg(std::as_bytes(std::span(*bytes)), o_.in.string() + ", " + index));
    else if (kind == "PNG")
      write_file_atomically((o_.images / file).string(), *bytes);
    else
      wrong("image", fmt::format("{} format is not supported, only PNG and JPEG", kind));
    return file;
  }

  const ConvertOptions& o_;
  std::map<std::string, const Row*> by_index_;
  std::set<std::string> written_;
  std::string text_;
  Converted done_;
};

}  // namespace

std::vector<Row> read_tsv(std::string_view text, const std::string& name) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  size_t at = 0;
  int64_t line = 1;
  const std::vector<std::string> columns = read_values(text, at, line, name);
  std::vector<Row> rows;
  while (at < text.size()) {
    const int64_t begin = line;
    const std::vector<std::string> values = read_values(text, at, line, name);
    if (values.size() == 1 && trimmed(values[0]).empty()) continue;
    BURROW_CHECK(values.size() == columns.size(), "{}, line {}: {} values for {} columns", name, begin,
                 values.size(), columns.size());
    Row& row = rows.emplace_back();
    for (size_t i = 0; i < values.size(); ++i) row[columns[i]] = values[i];
  }
  return rows;
}

Converted convert_mmmb(const ConvertOptions& o) {
  BURROW_CHECK(!o.images.empty(), "{}: name the folder that images are written to with --images",
               o.in.string());
  BURROW_CHECK(o.labels.empty() && !o.passage, "--labels and --passage: mmmb has neither");
  const std::vector<Row> rows = read_tsv(read_file(o.in.string()), o.in.string());
  for (const char* column : {"index", "image", "question", "A", "B", "answer"})
    BURROW_CHECK(!rows.empty() && rows[0].contains(column), "{}: no column '{}'", o.in.string(), column);
  fs::create_directories(o.images);
  Converter converter(o, rows);
  for (const Row& row : rows) converter.add(row);
  return converter.finish();
}

}  // namespace burrow::data
