#pragma once
// What a tokenizer.json does around its model: normalizer and pre_tokenizer before it, decoder after it.
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/text_model.h"

namespace burrow::data {

// A regular expression over Unicode (PCRE2), searched from left to right. Copies share it.
class Pattern {
 public:
  // Throws for a pattern that PCRE2 refuses, or in which Oniguruma, which these files are made for, means
  // another thing by \b \h \w \B \H \W and &&. One more difference stays: here \s finds U+180E.
  Pattern(const std::string& pattern, bool literal, const std::string& where);
  // The matches in UTF-8 text and what is between them, in order, none of them empty.
  void each(std::string_view text, const std::function<void(std::string_view piece, bool match)>& f) const;

 private:
  std::shared_ptr<void> code_;
};

using Pieces = std::vector<std::string>;

// The steps of one file, in its order.
class TextSteps {
 public:
  // Reads `normalizer`, `pre_tokenizer` and `decoder` of a file. Throws for a kind or an option that is not
  // supported, and names it.
  TextSteps(const nlohmann::json& file, const std::string& where);
  // The text as the model reads it. Throws when it is not UTF-8.
  Pieces pieces(std::string_view text, Place place) const;
  std::string join(Pieces tokens) const;

 private:
  friend struct StepReader;
  std::vector<std::function<void(std::string&, Place)>> normalizers_;
  std::vector<std::function<Pieces(Pieces, Place)>> cuts_;
  std::vector<std::function<Pieces(Pieces)>> decoders_;
};

}  // namespace burrow::data
