#pragma once
// Writes the generated datasets in the formats of users' data: tokenizer.json, LLaVA conversation lists, PNG.
//
//   DIR/tokenizer.json
//   DIR/{general,document,biomedicine}/{train,validation,test}.json    image paths are relative to
//   DIR/{general,document,biomedicine}/images/<split>/NNNNNN.png       .../images
//   DIR/pretrain/{train,validation}.json, DIR/pretrain/images/<split>/NNNNNN.png
//   DIR/manifest.json, and one in each of the four folders
//
// Sample i of a split is a function of (seed, domain, split, i) alone, so more samples of one seed are a
// superset. A folder is written under a temporary name and renamed, with its manifest, when it is complete;
// after a killed run, the next run writes the incomplete folder again.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace burrow::data {

// Called at intervals with the name of the file that is written, and its images or records so far and in all.
using Progress = std::function<void(const std::string& what, int64_t done, int64_t total)>;

inline constexpr int64_t kMostRecords = 10'000'000;  // of a split; more is taken for a typing error

struct MakeOptions {
  uint64_t seed = 1;
  int64_t train = 16000, validation = 1500, test = 1500;  // samples of each domain; one image each
  int knowledge_percent = 40;                             // of the drawn questions that ask for a code
  int threads = 2;                                        // changes no byte
};

// The stage-1 set: image and text records from which the base model learns to read images and to copy words.
struct PretrainOptions {
  uint64_t seed = 1;
  int64_t images = 50000;     // train images, over the three domains in turn
  int records_per_image = 8;  // distinct questions, as far as the scene allows
  int64_t validation = 1500;  // records, each with an image of its own or text only
  int records_per_copy = 12;  // image records for each text-only one
  int threads = 2;            // changes no byte
};

// Reasoning tasks on text (data/worlds/worlds.h), and pretraining text that states the facts of their worlds:
//   DIR/<family>/{train,validation,test}.jsonl    {"id", "task", "context", "question", "choices", "answer"}
//   DIR/pretrain/{labels,lists,same,train,validation}.jsonl    {"text"}; the first three precede train
//   DIR/tokenizer.json, DIR/manifest.json, and one in each folder
// The facts of the worlds do not depend on the seed. A hash of a question's key (WorldItem) assigns it to
// train, validation or test, so that splits of any size and seed share no question.
struct TaskOptions {
  uint64_t seed = 1;
  int64_t train = 16000, validation = 1000, test = 2000;  // items of each family
  int64_t texts = 300000, validation_texts = 1000;        // lines of the pretraining text
  int64_t label_texts = 40000;  // lines of labels and of same; lists has half as many again
  int prompt_percent = 45;      // of the lines of train and validation that are prompts
  int threads = 2;              // changes no byte
};

// The six artificial languages (data/worlds/languages.h) over general scenes:
//   DIR/conversations/<language>_{train,validation,test}.json    image paths are relative to .../images
//   DIR/mmmb/mmmb_<language>_{train,test}.tsv    multiple-choice items in MMMB's layout (burrow data convert)
//   DIR/tokenizer.json, and a manifest.json in each folder
// Sample i is the same image and question in every language, and the languages share the images.
struct LanguageOptions {
  uint64_t seed = 1;
  int64_t train = 8000, validation = 400, test = 400;  // samples of each language
  int64_t choices_train = 6000, choices_test = 300;    // items of each language
  int threads = 2;                                     // changes no byte
};
// Language lessons for a base model, each with train and validation: DIR/pretrain/captions_*.json in English
// with images; text_*.json in all languages without images; picks_*.jsonl, multiple choice without images.
struct LanguagePretrainOptions {
  uint64_t seed = 1;
  int64_t images = 15000, texts = 120000, picks = 60000;
  int64_t validation = 300;  // images, texts and picks
  int records_per_image = 4;
  int threads = 2;  // changes no byte
};

// All return true after writing, false when DIR already holds data of these options. They throw when DIR
// holds data of other options, which stays unchanged, and when a file cannot be written.
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
