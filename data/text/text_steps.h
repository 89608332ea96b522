#pragma once
// The steps of a tokenizer.json around its model: normalizer and pre_tokenizer before it, decoder after it.
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/text_model.h"

namespace burrow::data {

// A regular expression over Unicode (PCRE2), searched from left to right. Copies share the compiled code.
class Pattern {
 public:
  // Throws for a pattern that PCRE2 rejects, or that uses \b \h \w \B \H \W or &&, which mean something else
  // in Oniguruma, the engine these files are written for. One difference remains: here \s matches U+180E.
  Pattern(const std::string& pattern, bool literal, const std::string& where);
  // Calls f for each match in UTF-8 text and for the text between matches, in order; no piece is empty.
  void each(std::string_view text, const std::function<void(std::string_view piece, bool match)>& f) const;

 private:
  std::shared_ptr<void> code_;
};

using Pieces = std::vector<std::string>;

// The steps of one file, in its order.
class TextSteps {
 public:
  // Reads `normalizer`, `pre_tokenizer` and `decoder` of a file. Throws for an unsupported kind or option and
  // names it.
  TextSteps(const nlohmann::json& file, const std::string& where);
  // The pieces that the model encodes. Throws when the text is not UTF-8.
  Pieces pieces(std::string_view text, Place place) const;
  std::string join(Pieces tokens) const;

 private:
  friend struct StepReader;
  std::vector<std::function<void(std::string&, Place)>> normalizers_;
  std::vector<std::function<Pieces(Pieces, Place)>> cuts_;
  std::vector<std::function<Pieces(Pieces)>> decoders_;
};

}  // namespace burrow::data
