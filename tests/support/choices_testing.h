#pragma once
// A word-level tokenizer and small files of items, for tests of multiple-choice tasks.
#include "data/sets/choices.h"
#include "tests/support/data_testing.h"

namespace burrow::data::testing {

// A tokenizer whose vocabulary has the words of the templates and p, q, r, s, yes, no.
inline Tokenizer word_tokenizer(const std::vector<std::string>& specials = {"<unk>", "<bos>", "<eos>"}) {
  std::vector<std::string> words = template_words();
  for (const char* word : {"p", "q", "r", "s", "yes", "no"}) words.push_back(word);
  return Tokenizer::of(specials, words);
}

inline std::string item(const std::string& task, const std::string& question, const std::string& choices,
                        const std::string& answer) {
  return fmt::format("{{\"task\": \"{}\", \"question\": \"{}\", \"choices\": {}, \"answer\": {}}}\n", task,
                     question, choices, answer);
}

inline DatasetSettings settings_of(Format format, int64_t max_tokens = 64) {
  DatasetSettings s;
  s.name = "set";
  s.file = "set.jsonl";
  s.format = format;
  s.max_tokens = max_tokens;
  s.visual_tokens = 0;
  return s;
}

}  // namespace burrow::data::testing
