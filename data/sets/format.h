#pragma once
// The file formats of data sets, and which of their tokens are supervised.
#include "tensor/enum_names.h"

namespace burrow::data {

// llava: a JSON list of conversations (data/sets/dataset.h). choices: JSON lines, one multiple-choice item
// each (data/sets/choices.h). text: JSON lines, {"text": "..."} each, every token supervised.
BURROW_ENUM(Format, llava, choices, text)

// Supervised tokens of llava and choices: those of answers, or those of prompts too.
BURROW_ENUM(Supervision, answer, all)

}  // namespace burrow::data
