// data: makes, converts, checks and shows data sets. No model is needed.
#include <fmt/format.h>

#include <fstream>

#include "data/published/convert.h"
#include "data/sets/dataset.h"
#include "data/worlds/make.h"
#include "tensor/enum_names.h"
#include "tensor/json.h"
#include "train/commands/commands.h"
#include "train/run/progress.h"

namespace burrow::train {
namespace {

namespace fs = std::filesystem;

// make, make-tasks and make-languages. Counts are records per domain, family or language.
struct MakeCommand {
  std::string folder;
  int64_t train, validation, test, seed = 0;
  bool pretrain = false;
  int64_t images = 60000, records_per_image = 8;  // make --pretrain
  int64_t texts = 300000;                         // make-tasks
};

// A file of records and how to read it; `sample` is for show.
struct DataFile {
  std::string path, format, images, tokenizer, chat = "plain";
  int64_t max_tokens = 2048, sample = 0;
};

// A JSON list has the format llava; for JSON lines the first object decides.
data::Format format_of(const DataFile& file) {
  if (!file.format.empty()) return value_named<data::Format>("--format", file.format);
  std::ifstream stream(file.path);
  std::string line;
  while (line.find_first_not_of(" \t\r") == line.npos && std::getline(stream, line)) {
  }
  const auto first = nlohmann::json::parse(line, nullptr, false);
  if (!first.is_object()) return data::Format::llava;
  return first.contains("text") && !first.contains("choices") ? data::Format::text : data::Format::choices;
}

// The default image folder is `images` beside the file if it exists, else the folder of the file.
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
  fail("{}: no tokenizer.json or tokenizer.model in its folder or the one above; name one with --tokenizer",
       path);
}

// One progress line per file that is being made.
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

template <class Options>
Options options_of(const MakeCommand& c) {
  Options o;
  o.seed = static_cast<uint64_t>(c.seed);
  o.train = c.train;
  o.validation = c.validation;
  o.test = c.test;
  return o;
}

int run_make(const MakeCommand& c) {
  if (!c.pretrain) {
    const auto o = options_of<data::MakeOptions>(c);
    return report(c.folder, data::make_domains(c.folder, o, progress_of("images")));
  }
  data::PretrainOptions o;
  o.seed = static_cast<uint64_t>(c.seed);
  o.images = c.images;
  o.records_per_image = static_cast<int>(c.records_per_image);
  return report(c.folder, data::make_pretrain(c.folder, o, progress_of("images")));
}

int run_make_tasks(const MakeCommand& c) {
  auto o = options_of<data::TaskOptions>(c);
  o.texts = c.texts;
  return report(c.folder, data::make_tasks(c.folder, o, progress_of("lines")));
}

int run_make_languages(const MakeCommand& c) {
  if (!c.pretrain) {
    const auto o = options_of<data::LanguageOptions>(c);
    return report(c.folder, data::make_languages(c.folder, o, progress_of("records")));
  }
  data::LanguagePretrainOptions o;
  o.seed = static_cast<uint64_t>(c.seed);
  return report(c.folder, data::make_language_pretrain(c.folder, o, progress_of("records")));
}

int run_convert(const data::ConvertOptions& options) {
  const data::Converted done = data::convert_choices(options);
  std::string answers;
  for (const auto& [label, count] : done.answers)
    answers += fmt::format("{}{} {}", answers.empty() ? "" : ", ", label, count);
  fmt::print("{}: {} items of {}; right answers: {}{}\n", options.out.string(), done.items, options.shape,
             answers, done.left_out ? fmt::format("; {} items left out", done.left_out) : "");
  return 0;
}

int run_check(const DataFile& file) {
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

int run_show(const DataFile& file) {
  data::DatasetSettings settings = settings_of(file);
  settings.check_images = data::ImageCheck::none;
  const data::Tokenizer words = tokenizer_near(file.path, file.tokenizer);
  const data::Dataset set = data::Dataset::load(settings, words);
  BURROW_CHECK(file.sample >= 0 && file.sample < set.size(), "{}: no sample {}; there are {}", file.path,
               file.sample, set.size());
  fmt::print("{}", set.print_sample(file.sample, words));
  return 0;
}

// Adds the options that set counts of records; `of_each` is what their help says, e.g. "records of each
// domain".
void add_make_options(Command& command, MakeCommand& c, const std::string& of_each) {
  command.option("folder", c.folder, "where to");
  command.option("--seed", c.seed, "of everything drawn", {.range = {0, INT64_MAX}});
  command.option("--train", c.train, "training " + of_each);
  command.option("--validation", c.validation, "validation " + of_each);
  command.option("--test", c.test, "test " + of_each);
}

void add_make(Command& data) {
  auto [make, c] =
      data.command("make", "Write the three generated domains (or the stage-1 set): JSON, PNG, tokenizer",
                   run_make, {"", 32000, 1500, 1500});
  add_make_options(make, c, "records of each domain");
  make.flag("--pretrain", c.pretrain, "the stage-1 set instead: captions, grounding, counting, copying");
  make.option("--images", c.images, "images of the stage-1 set");
  make.option("--records-per-image", c.records_per_image, "records that share an image of the stage-1 set",
              {.range = {1, 1000}});
}

void add_make_tasks(Command& data) {
  auto [tasks, c] = data.command(
      "make-tasks", "Write the eight reasoning tasks and their pretraining text: JSON lines, tokenizer",
      run_make_tasks, {"", 16000, 1000, 2000});
  add_make_options(tasks, c, "items of each family");
  tasks.option("--texts", c.texts, "lines of the pretraining text");
}

void add_make_languages(Command& data) {
  auto [languages, c] = data.command(
      "make-languages",
      "Write conversations and multiple-choice items about one set of scenes in six artificial languages",
      run_make_languages, {"", 8000, 400, 400});
  add_make_options(languages, c, "records of each language");
  languages.flag("--pretrain", c.pretrain,
                 "a base model's lessons instead: captions in English, text in all languages");
}

void add_convert(Command& data) {
  auto [convert, c] = data.command(
      "convert",
      "Write multiple-choice items (the format choices) from a task's published file. What is read of each "
      "line:\n"
      "  boolq       question, passage, answer (true or false)\n"
      "  piqa        goal, sol1, sol2; labels 0 or 1\n"
      "  siqa        context, question, answerA, answerB, answerC; labels 1 to 3\n"
      "  hellaswag   ctx, endings, label\n"
      "  winogrande  sentence, option1, option2, answer (1 or 2)\n"
      "  arc, obqa   question.stem, question.choices (label, text), answerKey\n"
      "  mmmb        tab-separated: index, image (in base64), question, A to D, answer; hint, category\n"
      "e.g. burrow data convert piqa train.jsonl piqa/train.jsonl --labels train-labels.lst",
      run_convert);
  convert.option("shape", c.shape, "boolq, piqa, siqa, hellaswag, winogrande, arc, obqa or mmmb");
  convert.option("in", c.in, "the published file, JSON lines or TSV");
  convert.option("out", c.out, "file of items to write");
  convert.option("--labels", c.labels, "piqa, siqa: the file with a label a line (.lst)");
  convert.option("--images", c.images, "mmmb: the folder that images are written to");
  convert.option("--language", c.language, "mmmb: what the items say of their language");
  convert.flag("--passage", c.passage, "boolq: give the passage, which MixLoRA's protocol leaves out");
  convert.flag("--leave-out", c.leave_out,
               "drop items that are none (equal choices, empty ones), and say how many");
}

// Options of check and show.
void add_file(Command& command, DataFile& file) {
  command.option("path", file.path, "file of records");
  command.option("--format", file.format,
                 "llava (a JSON list of conversations), choices (JSON lines of multiple-choice items) "
                 "or text (JSON lines {\"text\": \"...\"}); default: what the file looks like");
  command.option("--images", file.images, "image folder of conversations (default: the file's folder)");
  command.option("--tokenizer", file.tokenizer,
                 "tokenizer.json or .model (default: found beside the file or above it)");
  command.option("--chat", file.chat, "chat template of conversations: plain or vicuna_v1");
  command.option("--max-tokens", file.max_tokens, "longest sample, as model.decoder.max_tokens",
                 {.show_default = true, .range = kPositive});
}

void add_check(Command& data) {
  auto [check, c] = data.command(
      "check", "Read every record and image; print each fault with file, record or line, field and reason",
      run_check);
  add_file(check, c);
}

void add_show(Command& data) {
  auto [show, c] =
      data.command("show", "Print one sample's token stream, supervised tokens marked", run_show);
  add_file(show, c);
  show.option("--sample", c.sample, "index of the sample", {.required = true});
}

}  // namespace

void add_data(Command& app) {
  Command data = app.group("data", "Make, convert, check and show data sets");
  for (const auto add : {add_make, add_make_tasks, add_make_languages, add_convert, add_check, add_show})
    add(data);
}

}  // namespace burrow::train
