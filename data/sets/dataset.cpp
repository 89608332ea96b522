#include "data/sets/dataset.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "data/json.h"
#include "data/sets/records.h"
#include "tensor/check.h"
#include "tensor/files.h"

namespace burrow::data {

std::string Fault::text() const {
  std::string where = file;
  if (record >= 0) where += fmt::format(", {} {}", by_line ? "line" : "record", record);
  if (!field.empty()) where += ", " + field;
  return where + ": " + reason;
}

int64_t Sample::length(int64_t visual_tokens) const {
  return static_cast<int64_t>(ids.size()) + (visual_at >= 0 ? visual_tokens : 0);
}
int64_t Sample::supervised() const {
  int64_t count = 0;
  for (size_t t = 0; t < ids.size(); ++t) count += supervises(t);
  return count;
}
int64_t Sample::first_answer() const { return std::find(answer.begin(), answer.end(), 1) - answer.begin(); }

namespace {

// What a record holds may be quoted in a reason: control characters are spelled out, and of a long text the
// beginning is kept, so that a report has one line a fault.
std::string one_line(std::string_view text) {
  constexpr size_t limit = 400;
  std::string line;
  for (const char c : text) {
    const bool continues =
        (static_cast<unsigned char>(c) & 0xC0) == 0x80;  // a character of UTF-8 stays whole
    if (line.size() >= limit && !continues) return line + "...";
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      line += fmt::format("\\x{:02x}", c);
    else
      line += c;
  }
  return line;
}

}  // namespace

// Turns records into rows of a Dataset. A record adds its row only when nothing is wrong with it.
class DatasetBuilder {
 public:
  DatasetBuilder(const DatasetSettings& settings, const Tokenizer& tokenizer)
      : chat_(ChatTemplate::by_name(settings.chat)),
        tokenizer_(tokenizer),
        by_line_(settings.format != Format::llava),
        begin_(tokenizer.begin_of_text()) {
    BURROW_CHECK(settings.max_tokens > 0 && settings.visual_tokens >= 0,
                 "[data] {}: max_tokens {} must be positive and visual_tokens {} not negative",
                 settings.file.string(), settings.max_tokens, settings.visual_tokens);
    if (!by_line_) chat_.check(tokenizer);
    data_.settings_ = settings;
    if (!settings.images.empty()) folder_.emplace(settings.images);
  }

  // Reads a file's text; `found(fault)` for each fault of an element or line. Throws an Error for what is
  // wrong with the whole file.
  template <class Found>
  void read(std::string_view text, Found&& found) {
    const auto use = [&](int64_t index, const nlohmann::json& element) {
      ++records_;
      if (auto fault = add(index, element)) found(std::move(*fault));
    };
    if (!by_line_) return for_each_record(text, file_name(), use);
    for_each_line(text, file_name(), use, [&](int64_t line, const std::string& reason) {
      ++records_;
      found(fault_of(line, "", reason));
    });
  }

  int64_t records() const { return records_; }

  const std::string& file_name() {
    if (file_.empty()) file_ = data_.settings_.file.string();
    return file_;
  }
  void skip(Fault fault) { data_.skipped_.push_back(std::move(fault)); }
  Dataset finish() { return std::move(data_); }

 private:
  Fault fault_of(int64_t index, const std::string& field, const std::string& reason) {
    return {file_name(), index, field, one_line(reason), false, by_line_};
  }

  // The fault of the element, if it has one.
  std::optional<Fault> add(int64_t index, const nlohmann::json& element) {
    try {
      switch (data_.settings_.format) {
        case Format::choices:
          return add_choice(index, element);
        case Format::text:
          return add_text(index, element);
        default:
          return add_conversation(index, element);
      }
    } catch (const RecordError& e) {
      return fault_of(index, e.field, e.reason);
    }
  }

  std::optional<Fault> add_conversation(int64_t index, const nlohmann::json& element) {
    const Record record = read_record(element);
    const int32_t image = record.image.empty() ? -1 : image_index(record.image);
    return add_tokens({index, image, type_index(record.type), 0, -1, language_index(record.language)},
                      "conversations", tokenize(chat_.spans(record.turns, image >= 0), tokenizer_));
  }

  std::optional<Fault> add_choice(int64_t line, const nlohmann::json& element) {
    const ChoiceItem item = read_choice(element);
    const int32_t type = type_index(item.shape->name);
    const std::vector<int32_t>& labels = labels_of(type, *item.shape);
    for (size_t i = 0; i < item.choices.size(); ++i) {
      if (labels[i] < 0) throw RecordError{"task", label_fault(*item.shape, item.shape->labels[i])};
    }
    const int32_t image = item.image.empty() ? -1 : image_index(item.image);
    const auto count = static_cast<int32_t>(item.choices.size());
    for (int32_t by = 0; by < (data_.settings_.circular ? count : 1); ++by) {
      const ChoiceItem turned = rotated(item, by);
      auto fault = add_tokens(
          {line, image, type, count, static_cast<int32_t>(turned.answer), language_index(item.language)},
          "question", tokenize(choice_spans(turned, begin_ >= 0), tokenizer_));
      if (fault) return fault;
    }
    return std::nullopt;
  }

  // [begin] text [end], in pieces of max_tokens.
  std::optional<Fault> add_text(int64_t line, const nlohmann::json& element) {
    if (!element.is_object())
      throw RecordError{"", fmt::format("must be an object, not {}", element.type_name())};
    const auto text = element.find("text");
    if (text == element.end()) throw RecordError{"text", "is missing"};
    if (!text->is_string())
      throw RecordError{"text", fmt::format("must be a string, not {}", text->type_name())};
    std::vector<int32_t> ids = tokenizer_.encode_plain(text->get_ref<const std::string&>());
    if (ids.empty()) throw RecordError{"text", "is empty"};
    if (begin_ >= 0) ids.insert(ids.begin(), begin_);
    if (const int32_t end = tokenizer_.end_of_text(); end >= 0) ids.push_back(end);
    const auto most = static_cast<size_t>(data_.settings_.max_tokens);
    size_t used = 0;
    for (size_t at = 0; at < ids.size(); at += most) {
      const size_t n = std::min(most, ids.size() - at);
      if (n < 2) continue;  // one token predicts nothing
      Tokens piece;
      piece.ids.assign(ids.begin() + static_cast<ptrdiff_t>(at),
                       ids.begin() + static_cast<ptrdiff_t>(at + n));
      piece.answer.assign(n, 1);
      append({line, -1, -1}, piece);
      used += n;
    }
    if (used > 0) return std::nullopt;
    Fault fault = fault_of(line, "text", "no supervised token: a text needs two tokens");
    fault.unsupervised = true;
    return fault;
  }

  std::string label_fault(const TaskShape& shape, const std::string& label) const {
    const auto ids = tokenizer_.encode_plain(" " + label, Place::inside);
    return fmt::format("{}'s label '{}' must be one token of the tokenizer: {}", shape.name, label,
                       ids.size() == 1 ? "it is unknown" : fmt::format("it makes {}", ids.size()));
  }

  const std::vector<int32_t>& labels_of(int32_t type, const TaskShape& shape) {
    if (static_cast<size_t>(type) < data_.labels_.size()) return data_.labels_[static_cast<size_t>(type)];
    std::vector<int32_t> labels;
    for (const std::string& label : shape.labels) {
      const auto ids = tokenizer_.encode_plain(" " + label, Place::inside);
      labels.push_back(ids.size() == 1 && ids[0] != tokenizer_.unknown() ? ids[0] : -1);
    }
    return data_.labels_.emplace_back(std::move(labels));
  }

  // What a row has besides its tokens.
  struct Facts {
    int64_t index = 0;
    int32_t image = -1, type = -1, choices = 0, correct = -1, language = -1;
  };

  std::optional<Fault> add_tokens(const Facts& facts, const char* field, Tokens tokens) {
    const bool cut = truncate(tokens);
    if (std::find(tokens.answer.begin(), tokens.answer.end(), 1) == tokens.answer.end()) {
      Fault fault = fault_of(
          facts.index, field,
          cut ? fmt::format("no supervised token is left within {} tokens", data_.settings_.max_tokens)
              : "no supervised token");
      fault.unsupervised = true;
      return fault;
    }
    data_.truncated_ += cut;
    append(facts, tokens);
    return std::nullopt;
  }

  int32_t type_index(const std::string& type) { return name_index(type, type_ids_, data_.types_); }
  int32_t language_index(const std::string& language) {
    return name_index(language, language_ids_, data_.languages_);
  }
  // Its place among the distinct names so far; -1 of none.
  static int32_t name_index(const std::string& name, std::unordered_map<std::string, int32_t>& ids,
                            std::vector<std::string>& names) {
    if (name.empty()) return -1;
    const auto [it, added] = ids.emplace(name, static_cast<int32_t>(names.size()));
    if (added) names.push_back(name);
    return it->second;
  }

  // Index of a path in images(); checks the file when the path is new. A bad path is checked each time it
  // occurs, so that every record that names it is reported.
  int32_t image_index(const std::string& path) {
    if (const auto it = image_ids_.find(path); it != image_ids_.end()) return it->second;
    if (data_.settings_.check_images != ImageCheck::none) {
      if (!folder_) throw RecordError{"image", "the dataset has no image folder"};
      try {
        const std::filesystem::path file = folder_->resolve(path);
        if (data_.settings_.check_images == ImageCheck::decode) read_png(file, data_.settings_.image_limit);
      } catch (const Error& e) {
        throw RecordError{"image", e.what()};
      }
    }
    const auto id = static_cast<int32_t>(data_.images_.size());
    data_.images_.push_back(path);
    image_ids_.emplace(path, id);
    return id;
  }

  // Cuts the sample at max_tokens, visual tokens counted; true when something was cut off.
  bool truncate(Tokens& tokens) const {
    int64_t room = data_.settings_.max_tokens;
    if (tokens.visual_at >= 0) {
      room -= data_.settings_.visual_tokens;
      if (room < tokens.visual_at) room = 0;  // the image itself does not fit: nothing usable is left
    }
    if (static_cast<int64_t>(tokens.ids.size()) <= room) return false;
    tokens.ids.resize(static_cast<size_t>(std::max<int64_t>(room, 0)));
    tokens.answer.resize(tokens.ids.size());
    return true;
  }

  void append(const Facts& facts, const Tokens& tokens) {
    data_.rows_.push_back({static_cast<int64_t>(data_.ids_.size()), static_cast<int32_t>(tokens.ids.size()),
                           tokens.visual_at, facts.image, facts.type, facts.index, facts.choices,
                           facts.correct, facts.language});
    data_.ids_.insert(data_.ids_.end(), tokens.ids.begin(), tokens.ids.end());
    data_.answer_.insert(data_.answer_.end(), tokens.answer.begin(), tokens.answer.end());
    data_.unknown_ += std::count(tokens.ids.begin(), tokens.ids.end(), tokenizer_.unknown());
    data_.supervised_ += data_.sample(data_.size() - 1).supervised();
  }

  const ChatTemplate& chat_;
  const Tokenizer& tokenizer_;
  const bool by_line_;
  const int32_t begin_;  // the token that begins a text; -1 without one
  int64_t records_ = 0;
  std::optional<ImageFolder> folder_;
  Dataset data_;
  std::string file_;
  std::unordered_map<std::string, int32_t> image_ids_, type_ids_, language_ids_;
};

Dataset Dataset::load(const DatasetSettings& settings, const Tokenizer& tokenizer) {
  return parse(read_file(settings.file.string()), settings, tokenizer);
}

Dataset Dataset::parse(std::string_view text, const DatasetSettings& settings, const Tokenizer& tokenizer) {
  DatasetBuilder builder(settings, tokenizer);
  builder.read(text, [&](Fault fault) {
    if (!fault.unsupervised) fail("[data] {}", fault.text());
    builder.skip(std::move(fault));
  });
  Dataset data = builder.finish();
  BURROW_CHECK(data.size() > 0, "[data] {}: no sample to train on ({} without a supervised token)",
               settings.file.string(), data.skipped().size());
  return data;
}

Sample Dataset::sample(int64_t i) const {
  BURROW_CHECK(i >= 0 && i < size(), "[data] {}: no sample {} among {}", settings_.file.string(), i, size());
  const Row& row = rows_[static_cast<size_t>(i)];
  const auto begin = static_cast<size_t>(row.begin), length = static_cast<size_t>(row.length);
  return {std::span(ids_).subspan(begin, length),
          std::span(answer_).subspan(begin, length),
          row.visual_at,
          row.image,
          row.type,
          row.record,
          settings_.supervision == Supervision::all,
          row.choices,
          row.correct,
          row.language};
}

std::span<const int32_t> Dataset::labels(const Sample& s, bool of_shape) const {
  BURROW_CHECK(s.choices > 0, "[data] {}: a sample without choices has no labels", settings_.file.string());
  const std::vector<int32_t>& all = labels_.at(static_cast<size_t>(s.type));
  return of_shape ? std::span(all) : std::span(all).first(static_cast<size_t>(s.choices));
}

std::string Dataset::place(const Sample& s) const {
  return fmt::format("{} {}", settings_.format == Format::llava ? "record" : "line", s.record);
}

Image Dataset::read_image(int64_t index) const {
  BURROW_CHECK(index >= 0 && index < static_cast<int64_t>(images_.size()), "[data] {}: no image {} among {}",
               settings_.file.string(), index, images_.size());
  return read_png(resolve_image(settings_.images, images_[static_cast<size_t>(index)]),
                  settings_.image_limit);
}

std::string Dataset::print_sample(int64_t i, const Tokenizer& tokenizer) const {
  const Sample s = sample(i);
  std::string text = fmt::format("{}, sample {} ({}): {} tokens, {} supervised", settings_.file.string(), i,
                                 place(s), s.length(settings_.visual_tokens), s.supervised());
  if (s.type >= 0) text += fmt::format(", type {}", types_[static_cast<size_t>(s.type)]);
  if (s.language >= 0) text += fmt::format(", language {}", languages_[static_cast<size_t>(s.language)]);
  if (s.image >= 0) text += fmt::format(", image {}", images_[static_cast<size_t>(s.image)]);
  if (s.choices > 0) text += fmt::format(", {} choices, right: {}", s.choices, s.correct);
  text += "\n";
  const auto visual = [&] { text += fmt::format(" <image x {}>", settings_.visual_tokens); };
  for (size_t t = 0; t < s.ids.size(); ++t) {
    if (static_cast<int64_t>(t) == s.visual_at) visual();
    const bool opens = s.supervises(t) && (t == 0 || !s.supervises(t - 1));
    const bool closes = s.supervises(t) && (t + 1 == s.ids.size() || !s.supervises(t + 1));
    text += opens ? " [[" : " ";
    text += tokenizer.token(s.ids[t]);
    if (closes) text += "]]";
  }
  return text + "\n";
}

std::vector<Fault> check_dataset(const DatasetSettings& settings, const Tokenizer& tokenizer,
                                 int64_t* checked) {
  std::string text;
  try {
    text = read_file(settings.file.string());
  } catch (const Error& e) {
    if (checked != nullptr) *checked = 0;
    return {{settings.file.string(), -1, "", e.what(), false}};
  }
  return check_dataset(text, settings, tokenizer, checked);
}

std::vector<Fault> check_dataset(std::string_view text, const DatasetSettings& settings,
                                 const Tokenizer& tokenizer, int64_t* checked) {
  std::vector<Fault> faults;
  std::optional<DatasetBuilder> builder;
  try {
    builder.emplace(settings, tokenizer);
    builder->read(text, [&](Fault fault) { faults.push_back(std::move(fault)); });
  } catch (const Error& e) {
    faults.push_back({settings.file.string(), -1, "", e.what(), false});
  }
  if (checked != nullptr) *checked = builder ? builder->records() : 0;
  return faults;
}

}  // namespace burrow::data
