// data make, check, show: what needs no model.
#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "data/sets/dataset.h"
#include "data/worlds/make.h"
#include "train/commands/commands.h"
#include "train/run/progress.h"

namespace burrow::train {
namespace {

namespace fs = std::filesystem;

// A list is llava's; of JSON lines the first object says what they are.
data::Format format_of(const DataFile& file) {
  for (const auto& [name, format] : enum_names(data::Format{})) {
    if (file.format == name) return format;
  }
  BURROW_CHECK(file.format.empty(), "--format {}: llava, choices or text", file.format);
  std::ifstream stream(file.path);
  std::string line;
  while (line.find_first_not_of(" \t\r") == line.npos && std::getline(stream, line)) {
  }
  const auto first = nlohmann::json::parse(line, nullptr, false);
  if (!first.is_object()) return data::Format::llava;
  return first.contains("text") && !first.contains("choices") ? data::Format::text : data::Format::choices;
}

// The image folder of a list is the one named images beside it, or its own.
data::DatasetSettings settings_of(const DataFile& f) {
  BURROW_CHECK(fs::exists(f.path), "{}: no such file", f.path);
  data::DatasetSettings s;
  const fs::path file(f.path);
  s.name = file.stem().string();
  s.file = file;
  s.format = format_of(f);
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  if (s.format != data::Format::text) {
    s.images = !f.images.empty()                     ? fs::path(f.images)
               : fs::is_directory(folder / "images") ? folder / "images"
                                                     : folder;
  }
  s.chat = f.chat;
  s.max_tokens = f.max_tokens;
  return s;
}

data::Tokenizer tokenizer_near(const std::string& path, const std::string& given) {
  if (!given.empty()) return data::Tokenizer::load(given);
  const fs::path folder = fs::absolute(path).parent_path();
  for (const fs::path& place : {folder, folder.parent_path()}) {
    for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
      if (fs::exists(place / name)) return data::Tokenizer::load(place / name);
    }
  }
  fail("{}: no tokenizer.json or tokenizer.model beside it or above it; name one with --tokenizer", path);
}

// A line for each file in the making.
data::Progress progress_of(const char* unit) {
  struct State {
    std::unique_ptr<ProgressLine> line;
    std::string current;
  };
  return [unit, state = std::make_shared<State>()](const std::string& what, int64_t done, int64_t total) {
    if (what != state->current) {
      state->line = std::make_unique<ProgressLine>(what, total);
      state->current = what;
    }
    state->line->update(done, unit);
  };
}

int report(const std::string& folder, bool written) {
  fmt::print(stderr, "{}: {}\n", folder, written ? "written" : "holds exactly this already");
  return 0;
}

}  // namespace

int run_data_make(const DataMakeCommand& c) {
  if (c.pretrain) {
    data::PretrainOptions o;
    o.seed = static_cast<uint64_t>(c.seed);
    o.images = c.images;
    o.records_per_image = static_cast<int>(c.records_per_image);
    return report(c.folder, data::make_pretrain(c.folder, o, progress_of("images")));
  }
  data::MakeOptions o;
  o.seed = static_cast<uint64_t>(c.seed);
  o.train = c.train;
  o.validation = c.validation;
  o.test = c.test;
  return report(c.folder, data::make_domains(c.folder, o, progress_of("images")));
}

int run_data_make_tasks(const DataMakeTasksCommand& c) {
  data::TaskOptions o;
  o.seed = static_cast<uint64_t>(c.seed);
  o.train = c.train;
  o.validation = c.validation;
  o.test = c.test;
  o.texts = c.texts;
  return report(c.folder, data::make_tasks(c.folder, o, progress_of("lines")));
}

int run_data_make_languages(const DataMakeLanguagesCommand& c) {
  if (c.pretrain) {
    data::LanguagePretrainOptions o;
    o.seed = static_cast<uint64_t>(c.seed);
    return report(c.folder, data::make_language_pretrain(c.folder, o, progress_of("records")));
  }
  data::LanguageOptions o;
  o.seed = static_cast<uint64_t>(c.seed);
  o.train = c.train;
  o.validation = c.validation;
  o.test = c.test;
  return report(c.folder, data::make_languages(c.folder, o, progress_of("records")));
}

int run_data_convert(const data::ConvertOptions& options) {
  const data::Converted done = data::convert_choices(options);
  std::string answers;
  for (const auto& [label, count] : done.answers)
    answers += fmt::format("{}{} {}", answers.empty() ? "" : ", ", label, count);
  fmt::print("{}: {} items of {}; right answers: {}{}\n", options.out.string(), done.items, options.shape,
             answers, done.left_out ? fmt::format("; {} items left out", done.left_out) : "");
  return 0;
}

int run_data_check(const DataFile& file) {
  data::DatasetSettings settings = settings_of(file);
  settings.check_images = data::ImageCheck::decode;
  int64_t checked = 0;
  const auto faults = data::check_dataset(settings, tokenizer_near(file.path, file.tokenizer), &checked);
  int64_t unsupervised = 0;
  for (const data::Fault& f : faults) {
    fmt::print("{}\n", f.text());
    unsupervised += f.unsupervised;
  }
  fmt::print("{}: {} records, {} faults{}\n", file.path, checked, faults.size(),
             unsupervised ? fmt::format(" ({} samples without a supervised token, which training leaves out)",
                                        unsupervised)
                          : "");
  return faults.empty() ? 0 : 1;
}

int run_data_show(const DataFile& file, int64_t sample) {
  data::DatasetSettings settings = settings_of(file);
  settings.check_images = data::ImageCheck::none;
  const data::Tokenizer words = tokenizer_near(file.path, file.tokenizer);
  const data::Dataset set = data::Dataset::load(settings, words);
  BURROW_CHECK(sample >= 0 && sample < set.size(), "{}: no sample {}; there are {}", file.path, sample,
               set.size());
  fmt::print("{}", set.print_sample(sample, words));
  return 0;
}

}  // namespace burrow::train
