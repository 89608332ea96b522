// data make, check, show: what needs no model.
#include <fmt/format.h>

#include "data/dataset.h"
#include "data/make.h"
#include "train/commands.h"
#include "train/progress.h"

namespace burrow::train {
namespace {

namespace fs = std::filesystem;

// The image folder of a list is the one named images beside it, or its own.
data::DatasetSettings settings_of(const std::string& path, const std::string& images,
                                  const std::string& chat) {
  data::DatasetSettings s;
  const fs::path file(path);
  s.name = file.stem().string();
  s.file = file;
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  s.images = !images.empty()                       ? fs::path(images)
             : fs::is_directory(folder / "images") ? folder / "images"
                                                   : folder;
  s.chat = chat;
  return s;
}

data::Tokenizer tokenizer_near(const std::string& path, const std::string& given) {
  BURROW_CHECK(fs::exists(path), "{}: no such file", path);
  if (!given.empty()) return data::Tokenizer::load(given);
  const fs::path folder = fs::absolute(path).parent_path();
  for (const fs::path& place : {folder, folder.parent_path()}) {
    if (fs::exists(place / "tokenizer.json")) return data::Tokenizer::load(place / "tokenizer.json");
  }
  fail("{}: no tokenizer.json beside it or above it; name one with --tokenizer", path);
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

int run_data_check(const std::string& path, const std::string& images, const std::string& tokenizer,
                   const std::string& chat) {
  data::DatasetSettings settings = settings_of(path, images, chat);
  settings.check_images = data::ImageCheck::decode;
  int64_t checked = 0;
  const auto faults = data::check_dataset(settings, tokenizer_near(path, tokenizer), &checked);
  int64_t unsupervised = 0;
  for (const data::Fault& f : faults) {
    fmt::print("{}\n", f.text());
    unsupervised += f.unsupervised;
  }
  fmt::print("{}: {} records, {} faults{}\n", path, checked, faults.size(),
             unsupervised ? fmt::format(" ({} samples without a supervised token, which training leaves out)",
                                        unsupervised)
                          : "");
  return faults.empty() ? 0 : 1;
}

int run_data_show(const std::string& path, const std::string& images, const std::string& tokenizer,
                  const std::string& chat, int64_t sample) {
  data::DatasetSettings settings = settings_of(path, images, chat);
  settings.check_images = data::ImageCheck::none;
  const data::Tokenizer words = tokenizer_near(path, tokenizer);
  const data::Dataset set = data::Dataset::load(settings, words);
  BURROW_CHECK(sample >= 0 && sample < set.size(), "{}: no sample {}; there are {}", path, sample,
               set.size());
  fmt::print("{}", set.print_sample(sample, words));
  return 0;
}

}  // namespace burrow::train
