#pragma once
// Converts text without special tokens to ids and back: one TextModel for each kind of tokenizer file.
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace burrow::data {

// Position of a piece of text: some tokenizers put a space before a text or before text after a special
// token.
enum class Place : uint8_t { start, after_token, inside };

class TextModel {
 public:
  virtual ~TextModel() = default;
  // Appends the ids of `text` without matching special tokens; only the unknown token may result.
  virtual void encode(std::string_view text, Place place, std::vector<int32_t>& ids) const = 0;
  // The text of tokens. Ids must be in the vocabulary and not special.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
};

// Lets a map of strings be searched by a string_view.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};
// Ids by token.
using TokenIds = std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>>;

// The tokens of a file: their text by id, and which are special.
struct Vocabulary {
  std::vector<std::string> words;
  std::vector<bool> special;
  TokenIds ids;

  int32_t find(std::string_view token) const;  // -1 when absent
  bool is_special(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < special.size() && special[static_cast<size_t>(id)];
  }
};
using SharedVocabulary = std::shared_ptr<const Vocabulary>;

// Length in bytes of the white space at text[at] (Unicode's White_Space), 0 for none.
size_t white_space(std::string_view text, size_t at);

// Encodes words separated by white space; decoding joins them with one space.
std::unique_ptr<TextModel> word_level(SharedVocabulary vocabulary, int32_t unknown);
// BPE of a tokenizer.json, with its normalizer, pre_tokenizer and decoder. Errors begin with `where` and name
// the unsupported key and value.
std::unique_ptr<TextModel> bpe(const nlohmann::json& file, SharedVocabulary vocabulary,
                               const std::string& where);
// A SentencePiece model, read from the bytes of its file; `vocabulary` holds its pieces.
struct SentencePieceModel {
  std::unique_ptr<TextModel> model;
  Vocabulary vocabulary;
  int32_t unknown = -1, begin = -1, end = -1;  // -1: the model has none
};
SentencePieceModel sentencepiece(std::string_view bytes, const std::string& where);

}  // namespace burrow::data
