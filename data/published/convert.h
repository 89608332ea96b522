#pragma once
// Converts the published files of common-sense tasks to multiple-choice items (data/sets/choices.h).
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace burrow::data {

// Options of a conversion.
struct ConvertOptions {
  std::string shape;             // name of a task_shape
  std::filesystem::path in;      // JSON lines as published
  std::filesystem::path labels;  // piqa, siqa: one label per line (.lst)
  std::filesystem::path out;
  bool passage = false;    // boolq: the passage becomes the context; MixLoRA's protocol leaves it out
  bool leave_out = false;  // drop items that training would refuse (equal choices, ...) instead of throwing
  std::filesystem::path images = {};  // mmmb: the folder that images are written to
  std::string language = {};          // mmmb: the items' field `language`; empty: no such field
};

// Counts of what was written.
struct Converted {
  int64_t items = 0, left_out = 0;
  std::map<std::string, int64_t> answers;  // by label
};

// Reads
//   boolq       {"question", "passage", "answer": true}
//   piqa        {"goal", "sol1", "sol2"}, labels 0 and 1
//   siqa        {"context", "question", "answerA", "answerB", "answerC"}, labels 1 to 3
//   hellaswag   {"ctx", "endings": [4], "label": 3}
//   winogrande  {"sentence", "option1", "option2", "answer": "2"}
//   arc, obqa   {"question": {"stem", "choices": [{"label", "text"}]}, "answerKey": "C"}
//   mmmb        a table of tab-separated values (data/published/convert_mmmb.h)
// piqa and siqa may have the label in the record instead, as "label". Ids are copied, or made from shape and
// line number. Throws an Error with file, line and field; `out` is written completely or not at all.
Converted convert_choices(const ConvertOptions& options);

}  // namespace burrow::data
