#pragma once
// A tokenized dataset. Its file has one of three formats (data/sets/format.h): multiple-choice items
// (data/sets/choices.h), texts as JSON lines {"text": "..."}, or LLaVA's conversations, a JSON list of
//   {"id": "...", "image": "path below the image folder", "type": "kind of question", "language": "...",
//    "conversations": [{"from": "human", "value": "<image>\n..."}, {"from": "gpt", "value": "..."}, ...]}
// id, image, type and language are optional. Memory: 5 bytes per token and about 40 per sample.
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/images/image.h"
#include "data/sets/choices.h"
#include "data/sets/format.h"
#include "data/text/chat.h"
#include "data/text/tokenizer.h"

namespace burrow::data {

enum class ImageCheck { none, exists, decode };  // how image files are checked while records are read

struct DatasetSettings {
  std::string name;            // in reports, and in the key of its sampling order
  std::filesystem::path file;  // the JSON list, or JSON lines
  Format format = Format::llava;
  std::filesystem::path images;  // the image folder; may be empty when no record has an image
  std::string chat = "plain";    // name of the ChatTemplate of conversations
  Supervision supervision = Supervision::answer;
  int64_t visual_tokens = 16;  // P: counted in max_tokens
  int64_t max_tokens = 2048;   // of a sample, visual tokens counted; the rest is cut off, but a text
                               // continues as the next sample
  bool circular = false;       // choices: one sample for each rotation of an item's choices
  ImageCheck check_images = ImageCheck::exists;
  ImageLimit image_limit;
};

// A fault of a record, or of the whole file (record -1).
struct Fault {
  std::string file;
  int64_t record = -1;  // index in the list, or the line
  std::string field;    // may be empty
  std::string reason;
  bool unsupervised = false;  // the sample has no supervised token: training skips it
  bool by_line = false;       // `record` is a line, counted from 1

  std::string text() const;  // "FILE, record 12, image: no such image file: ..."
};

// A view into a Dataset, valid as long as that lives.
struct Sample {
  std::span<const int32_t> ids;     // text tokens; visual tokens are not among them
  std::span<const uint8_t> answer;  // 1 where the token is an answer's
  int32_t visual_at = -1;           // visual tokens stand before ids[visual_at]; -1 without an image
  int32_t image = -1;               // index in Dataset::images
  int32_t type = -1;                // index in Dataset::types
  int64_t record = 0;               // index in the JSON list, or line of the JSON lines
  bool whole = false;               // prompts are supervised too
  int32_t choices = 0;              // number of choices; 0: not a multiple-choice item
  int32_t correct = -1;             // index of the right choice
  int32_t language = -1;            // index in Dataset::languages

  int64_t length(int64_t visual_tokens) const;  // T: text and visual tokens
  // Whether ids[t] is supervised; never the first of a sequence, which nothing predicts.
  bool supervises(size_t t) const { return (whole || answer[t]) && (t > 0 || visual_at == 0); }
  int64_t supervised() const;    // tokens
  int64_t first_answer() const;  // index in ids of the first supervised token
};

// One tokenized file: the tokens of all samples in one array. Images stay on disk.
class Dataset {
 public:
  // Throws an Error with the first fault, except that samples without a supervised token are skipped and
  // listed in skipped(). Throws when no sample is left.
  static Dataset load(const DatasetSettings& settings, const Tokenizer& tokenizer);
  // The same for text in memory; settings.file appears in errors.
  static Dataset parse(std::string_view text, const DatasetSettings& settings, const Tokenizer& tokenizer);

  const std::string& name() const { return settings_.name; }
  const DatasetSettings& settings() const { return settings_; }
  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  // Sample i of size(); a view.
  Sample sample(int64_t i) const;
  const std::vector<std::string>& types() const { return types_; }  // distinct, in order of appearance
  const std::vector<std::string>& languages() const { return languages_; }  // as types
  const std::vector<std::string>& images() const { return images_; }        // distinct, as written in records
  // The label tokens of an item's choices, in order; with `of_shape`, of all labels of its shape, -1 for a
  // label that is not a single token.
  std::span<const int32_t> labels(const Sample& sample, bool of_shape) const;
  // Reads and decodes image `index` of images().
  Image read_image(int64_t index) const;

  const std::vector<Fault>& skipped() const { return skipped_; }
  int64_t truncated() const { return truncated_; }     // samples cut at max_tokens
  int64_t unknown_tokens() const { return unknown_; }  // occurrences of the unknown token
  int64_t text_tokens() const { return static_cast<int64_t>(ids_.size()); }
  int64_t supervised_tokens() const { return supervised_; }

  // "record 3", or "line 3" of JSON lines.
  std::string place(const Sample& sample) const;
  // Two lines: facts about sample i, then its tokens, supervised ones between [[ and ]], visual ones as
  // <image x P>.
  std::string print_sample(int64_t i, const Tokenizer& tokenizer) const;

 private:
  friend class DatasetBuilder;
  struct Row {
    int64_t begin;  // in ids_
    int32_t length, visual_at, image, type;
    int64_t record;
    int32_t choices, correct, language;
  };
  DatasetSettings settings_;
  std::vector<Row> rows_;
  std::vector<int32_t> ids_;
  std::vector<uint8_t> answer_;
  std::vector<std::string> types_, images_, languages_;  // types of choices: names of their shapes
  std::vector<std::vector<int32_t>> labels_;             // by type, for choices
  std::vector<Fault> skipped_;
  int64_t truncated_ = 0, unknown_ = 0, supervised_ = 0;
};

// All faults of a dataset, in order; empty for a sound one. Never throws because of a file's content.
// `checked`, when given, receives the number of records read.
std::vector<Fault> check_dataset(const DatasetSettings& settings, const Tokenizer& tokenizer,
                                 int64_t* checked = nullptr);
// The same for text in memory; settings.file appears in errors.
std::vector<Fault> check_dataset(std::string_view text, const DatasetSettings& settings,
                                 const Tokenizer& tokenizer, int64_t* checked = nullptr);

}  // namespace burrow::data
