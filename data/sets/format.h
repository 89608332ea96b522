#pragma once
// The file formats of data sets, and which of their tokens are supervised.
#include <utility>
#include <vector>

namespace burrow::data {

// File formats.
enum class Format {
  llava,    // a JSON list of conversations (data/sets/dataset.h)
  choices,  // JSON lines, one multiple-choice item each (data/sets/choices.h)
  text,     // JSON lines, {"text": "..."} each: every token is supervised
};
inline std::vector<std::pair<const char*, Format>> enum_names(Format) {
  return {{"llava", Format::llava}, {"choices", Format::choices}, {"text", Format::text}};
}

// Supervised tokens of llava and choices: those of answers, or those of prompts too.
enum class Supervision { answer, all };
inline std::vector<std::pair<const char*, Supervision>> enum_names(Supervision) {
  return {{"answer", Supervision::answer}, {"all", Supervision::all}};
}

}  // namespace burrow::data
