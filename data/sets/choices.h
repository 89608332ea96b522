#pragma once
// Multiple-choice items, one JSON object per line:
//   {"id": "negation-17", "task": "boolq", "context": "...", "question": "...", "choices": ["...", ...],
//    "answer": 0}
// `task` names a task shape, which sets the text around the item and the labels of its choices; id, context,
// image (a path below the image folder) and language are optional. The answer of a sample is one token: the
// label of the right choice. The layout follows MoE-PEFT's tasks (MixLoRA, arXiv 2404.15159; DynMoLE, arXiv
// 2504.00661): an instruction, no chat template and no end token.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/chat.h"

namespace burrow::data {

// The layout of one kind of task, as in its published set.
struct TaskShape {
  std::string name;
  std::vector<std::string> labels;  // an item of n choices uses the first n
  bool choices_are_labels = false;  // boolq: the choices true and false are the labels, and are not listed
  bool one_line = false;            // question and choices on one line (arc, obqa)
  std::string instruction, context, question, cue;  // first line; text before context, question, answer
};

// boolq, piqa, siqa, hellaswag, winogrande, arc (easy and challenge), obqa, mmmb (MMBench and MMMB: question
// and choices without an instruction).
const std::vector<TaskShape>& task_shapes();
// Throws for any other name and lists these.
const TaskShape& task_shape(std::string_view name);

// One item, as read.
struct ChoiceItem {
  const TaskShape* shape = nullptr;
  std::string context, question;  // trimmed, like the choices
  std::vector<std::string> choices;
  int64_t answer = 0;           // index in choices, and in the shape's labels
  std::string image, language;  // empty when absent

  const std::string& label() const { return shape->labels[static_cast<size_t>(answer)]; }
};

// Reads one element of a file. Throws a RecordError (data/sets/records.h). Choices of a boolq item are put in
// the order of its labels.
ChoiceItem read_choice(const nlohmann::json& element);

// The item with its choices rotated down by `by` places.
ChoiceItem rotated(ChoiceItem item, int64_t by);

// Prompt and answer: [begin] [image] instruction \n [context \n] question \n (A) choice ... \n cue | label.
// White space separates the template's words from the item's, so that a whole-word tokenizer can encode both.
std::vector<Span> choice_spans(const ChoiceItem& item, bool begin);

// The distinct words of all templates and labels; a whole-word tokenizer needs them besides the items' words.
std::vector<std::string> template_words();

}  // namespace burrow::data
