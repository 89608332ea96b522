#include "data/dataset.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "data/json.h"
#include "data/records.h"
#include "tensor/check.h"

namespace burrow::data {

std::string Fault::text() const {
  std::string where = file;
  if (record >= 0) where += fmt::format(", record {}", record);
  if (!field.empty()) where += ", " + field;
  return where + ": " + reason;
}

int64_t Sample::length(int64_t visual_tokens) const {
  return static_cast<int64_t>(ids.size()) + (visual_at >= 0 ? visual_tokens : 0);
}
int64_t Sample::supervised() const { return std::count(answer.begin(), answer.end(), 1); }
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
      : chat_(ChatTemplate::by_name(settings.chat)), tokenizer_(tokenizer) {
    BURROW_CHECK(settings.max_tokens > 0 && settings.visual_tokens >= 0,
                 "[data] {}: max_tokens {} must be positive and visual_tokens {} not negative",
                 settings.file.string(), settings.max_tokens, settings.visual_tokens);
    chat_.check(tokenizer);
    data_.settings_ = settings;
    if (!settings.images.empty()) folder_.emplace(settings.images);
  }

  // The fault of the element, if it has one.
  std::optional<Fault> add(int64_t index, const nlohmann::json& element) {
    const std::string& file = file_name();
    try {
      const Record record = read_record(element);
      const int32_t image = record.image.empty() ? -1 : image_index(record.image);
      Tokens tokens = tokenize(chat_.spans(record.turns, image >= 0), tokenizer_);
      const bool cut = truncate(tokens);
      if (std::find(tokens.answer.begin(), tokens.answer.end(), 1) == tokens.answer.end())
        return Fault{
            file, index, "conversations",
            cut ? fmt::format("no supervised token is left within {} tokens", data_.settings_.max_tokens)
                : "no supervised token",
            true};
      data_.truncated_ += cut;
      append(index, tokens, image, record.type);
      return std::nullopt;
    } catch (const RecordError& e) {
      return Fault{file, index, e.field, one_line(e.reason), false};
    }
  }

  const std::string& file_name() {
    if (file_.empty()) file_ = data_.settings_.file.string();
    return file_;
  }
  void skip(Fault fault) { data_.skipped_.push_back(std::move(fault)); }
  Dataset finish() { return std::move(data_); }

 private:
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

  void append(int64_t index, const Tokens& tokens, int32_t image, const std::string& type) {
    int32_t type_id = -1;
    if (!type.empty()) {
      const auto [it, added] = type_ids_.emplace(type, static_cast<int32_t>(data_.types_.size()));
      if (added) data_.types_.push_back(type);
      type_id = it->second;
    }
    data_.rows_.push_back({static_cast<int64_t>(data_.ids_.size()), static_cast<int32_t>(tokens.ids.size()),
                           tokens.visual_at, image, type_id, index});
    data_.ids_.insert(data_.ids_.end(), tokens.ids.begin(), tokens.ids.end());
    data_.answer_.insert(data_.answer_.end(), tokens.answer.begin(), tokens.answer.end());
    data_.unknown_ += std::count(tokens.ids.begin(), tokens.ids.end(), tokenizer_.unknown());
    data_.supervised_ += std::count(tokens.answer.begin(), tokens.answer.end(), 1);
  }

  const ChatTemplate& chat_;
  const Tokenizer& tokenizer_;
  std::optional<ImageFolder> folder_;
  Dataset data_;
  std::string file_;
  std::unordered_map<std::string, int32_t> image_ids_, type_ids_;
};

Dataset Dataset::load(const DatasetSettings& settings, const Tokenizer& tokenizer) {
  return parse(read_text(settings.file), settings, tokenizer);
}

Dataset Dataset::parse(std::string_view text, const DatasetSettings& settings, const Tokenizer& tokenizer) {
  DatasetBuilder builder(settings, tokenizer);
  for_each_record(text, settings.file.string(), [&](int64_t index, const nlohmann::json& element) {
    auto fault = builder.add(index, element);
    if (!fault) return;
    if (!fault->unsupervised) fail("[data] {}", fault->text());
    builder.skip(std::move(*fault));
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
          row.record};
}

Image Dataset::read_image(int64_t index) const {
  BURROW_CHECK(index >= 0 && index < static_cast<int64_t>(images_.size()), "[data] {}: no image {} among {}",
               settings_.file.string(), index, images_.size());
  return read_png(resolve_image(settings_.images, images_[static_cast<size_t>(index)]),
                  settings_.image_limit);
}

std::string Dataset::print_sample(int64_t i, const Tokenizer& tokenizer) const {
  const Sample s = sample(i);
  std::string text =
      fmt::format("{}, sample {} (record {}): {} tokens, {} supervised", settings_.file.string(), i, s.record,
                  s.length(settings_.visual_tokens), s.supervised());
  if (s.type >= 0) text += fmt::format(", type {}", types_[static_cast<size_t>(s.type)]);
  if (s.image >= 0) text += fmt::format(", image {}", images_[static_cast<size_t>(s.image)]);
  text += "\n";
  const auto visual = [&] { text += fmt::format(" <image x {}>", settings_.visual_tokens); };
  for (size_t t = 0; t < s.ids.size(); ++t) {
    if (static_cast<int64_t>(t) == s.visual_at) visual();
    const bool opens = s.answer[t] && (t == 0 || !s.answer[t - 1]);
    const bool closes = s.answer[t] && (t + 1 == s.ids.size() || !s.answer[t + 1]);
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
    text = read_text(settings.file);
  } catch (const Error& e) {
    if (checked != nullptr) *checked = 0;
    return {{settings.file.string(), -1, "", e.what(), false}};
  }
  return check_dataset(text, settings, tokenizer, checked);
}

std::vector<Fault> check_dataset(std::string_view text, const DatasetSettings& settings,
                                 const Tokenizer& tokenizer, int64_t* checked) {
  std::vector<Fault> faults;
  int64_t count = 0;
  try {
    DatasetBuilder builder(settings, tokenizer);
    for_each_record(text, settings.file.string(), [&](int64_t index, const nlohmann::json& element) {
      ++count;
      if (auto fault = builder.add(index, element)) faults.push_back(std::move(*fault));
    });
  } catch (const Error& e) {
    faults.push_back({settings.file.string(), -1, "", e.what(), false});
  }
  if (checked != nullptr) *checked = count;
  return faults;
}

}  // namespace burrow::data
