#pragma once
// Writes the generated datasets as users' own data look: a tokenizer.json, LLaVA conversation lists, PNG
// files.
//
//   DIR/tokenizer.json
//   DIR/{general,document,biomedicine}/{train,validation,test}.json    image paths are relative to
//   DIR/{general,document,biomedicine}/images/<split>/NNNNNN.png       .../images
//   DIR/pretrain/{train,validation}.json, DIR/pretrain/images/<split>/NNNNNN.png
//   DIR/manifest.json, and one in each of the four folders
//
// Sample i of a split is a function of (seed, domain, split, i) alone: more samples of one seed are a
// superset. A folder is written beside its place and renamed into it, with its manifest, when it is whole; a
// run that was killed leaves nothing that passes as complete, and the next run starts that folder again.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace burrow::data {

// Called now and then with the records' file in the making, and its images or records done and to do.
using Progress = std::function<void(const std::string& what, int64_t done, int64_t total)>;

inline constexpr int64_t kMostRecords = 10'000'000;  // of a split: more is a slip of the keyboard

struct MakeOptions {
  uint64_t seed = 1;
  int64_t train = 16000, validation = 1500, test = 1500;  // samples of each domain; one image each
  int knowledge_percent = 40;                             // of the questions tried that ask for a code
  int threads = 2;                                        // changes no byte
};

// The stage-1 set: image and text records that teach the base model to see and to copy.
struct PretrainOptions {
  uint64_t seed = 1;
  int64_t images = 50000;     // train images, over the three domains in turn
  int records_per_image = 8;  // different questions as far as the scene has them
  int64_t validation = 1500;  // records, each with an image of its own or text alone
  int records_per_copy = 12;  // image records for each text-only one
  int threads = 2;            // changes no byte
};

// Reasoning tasks on text (data/worlds/worlds.h), and the text that states what is known of their worlds:
//   DIR/<family>/{train,validation,test}.jsonl    {"id", "task", "context", "question", "choices", "answer"}
//   DIR/pretrain/{labels,lists,same,train,validation}.jsonl    {"text"}; the first three are lessons before
//   train DIR/tokenizer.json, DIR/manifest.json, and one in each folder
// What the worlds know does not depend on the seed. Whether a question belongs to train, validation or test
// is a hash of its key (WorldItem), so that no split of any size or seed asks what another one does.
struct TaskOptions {
  uint64_t seed = 1;
  int64_t train = 16000, validation = 1000, test = 2000;  // items of each family
  int64_t texts = 300000, validation_texts = 1000;        // lines of the pretraining text
  int64_t label_texts = 40000;  // of its first lesson and the third; half as many again of the second
  int prompt_percent = 45;      // of those lines that are prompts
  int threads = 2;              // changes no byte
};

// The six artificial languages (data/worlds/languages.h) over general scenes:
//   DIR/conversations/<language>_{train,validation,test}.json, image paths relative to
//   DIR/conversations/images DIR/mmmb/mmmb_<language>_{train,test}.tsv    multiple-choice items in MMMB's
//   layout (burrow data convert) DIR/tokenizer.json, and a manifest.json in each folder
// Sample i is the same image and question in every language, and the languages share the images.
struct LanguageOptions {
  uint64_t seed = 1;
  int64_t train = 8000, validation = 400, test = 400;  // samples of each language
  int64_t choices_train = 6000, choices_test = 300;    // items of each language
  int threads = 2;                                     // changes no byte
};
// What a base model learns of the languages, each {train,validation}: DIR/pretrain/captions_*.json in
// English, with images; text_*.json, in all languages without; picks_*.jsonl, which of four choices a word
// is.
struct LanguagePretrainOptions {
  uint64_t seed = 1;
  int64_t images = 15000, texts = 120000, picks = 60000;
  int64_t validation = 300;  // images, texts and picks
  int records_per_image = 4;
  int threads = 2;  // changes no byte
};

// All return false when DIR already holds exactly this, true after writing it. They throw when DIR holds
// data of other options (nothing of it is touched) and when a file cannot be written.
bool make_domains(const std::filesystem::path& dir, const MakeOptions& options,
                  const Progress& progress = {});
bool make_pretrain(const std::filesystem::path& dir, const PretrainOptions& options,
                   const Progress& progress = {});
bool make_tasks(const std::filesystem::path& dir, const TaskOptions& options, const Progress& progress = {});
bool make_languages(const std::filesystem::path& dir, const LanguageOptions& options,
                    const Progress& progress = {});
bool make_language_pretrain(const std::filesystem::path& dir, const LanguagePretrainOptions& options,
                            const Progress& progress = {});

}  // namespace burrow::data
