#pragma once
// Multiple-choice items, one JSON object a line:
//   {"id": "negation-17", "task": "boolq", "context": "...", "question": "...", "choices": ["...", ...],
//    "answer": 0}
// `task` names a shape, which sets the words around the item and the labels that stand for its choices; id,
// context, image (a path below the image folder) and language are optional. The answer of a sample is one
// token: the label of the right choice. The manner is that of MoE-PEFT's tasks (MixLoRA, arXiv 2404.15159;
// DynMoLE, arXiv 2504.00661): an instruction, no chat template and no end token.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/chat.h"

namespace burrow::data {

// One kind of task, as its published set has it.
struct TaskShape {
  std::string name;
  std::vector<std::string> labels;  // an item of n choices uses the first n
  bool choices_are_labels = false;  // boolq: true and false are choices and labels at once, and not listed
  bool one_line = false;            // question and choices on one line, as arc and obqa have them
  std::string instruction, context, question, cue;  // what stands before each, and before the answer
};

// boolq, piqa, siqa, hellaswag, winogrande, arc (easy and challenge alike), obqa, mmmb (MMBench's and MMMB's:
// question, choices, nothing before them).
const std::vector<TaskShape>& task_shapes();
// Throws on another name, and lists these.
const TaskShape& task_shape(std::string_view name);

// One item, as read.
struct ChoiceItem {
  const TaskShape* shape = nullptr;
  std::string context, question;  // trimmed, as the choices are
  std::vector<std::string> choices;
  int64_t answer = 0;           // index in choices, and in the shape's labels
  std::string image, language;  // empty when absent

  const std::string& label() const { return shape->labels[static_cast<size_t>(answer)]; }
};

// One element of a file. Throws a RecordError (data/sets/records.h). The choices of a boolq item come out in
// the order of its labels.
ChoiceItem read_choice(const nlohmann::json& element);

// The item with its choices moved down by `by` places, in a circle.
ChoiceItem rotated(ChoiceItem item, int64_t by);

// Prompt and answer: [begin] [image] instruction \n [context \n] question \n (A) choice ... \n cue | label.
// Nothing of the template touches a word of the item, so that a tokenizer of whole words reads both.
std::vector<Span> choice_spans(const ChoiceItem& item, bool begin);

// Every word of all templates and labels, each once: what a tokenizer of whole words must know besides the
// items' own.
std::vector<std::string> template_words();

}  // namespace burrow::data
