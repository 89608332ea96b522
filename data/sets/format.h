#pragma once
// How the records of a data set are written, and which of their tokens are learnt.
#include <utility>
#include <vector>

namespace burrow::data {

// The formats of files.
enum class Format {
  llava,    // a JSON list of conversations (data/sets/dataset.h)
  choices,  // JSON lines, a multiple-choice item each (data/sets/choices.h)
  text,     // JSON lines, {"text": "..."} each: every token is supervised
};
inline std::vector<std::pair<const char*, Format>> enum_names(Format) {
  return {{"llava", Format::llava}, {"choices", Format::choices}, {"text", Format::text}};
}

// Which tokens of llava and choices are learnt: the answers', or the prompts' as well.
enum class Supervision { answer, all };
inline std::vector<std::pair<const char*, Supervision>> enum_names(Supervision) {
  return {{"answer", Supervision::answer}, {"all", Supervision::all}};
}

}  // namespace burrow::data
