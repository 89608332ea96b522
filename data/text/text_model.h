#pragma once
// What turns text without special tokens into ids and back: one implementation for each kind of tokenizer's
// file.
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace burrow::data {

// Where a piece of text stands: some tokenizers put a space before a text, or before every piece behind a
// token.
enum class Place : uint8_t { start, after_token, inside };

class TextModel {
 public:
  virtual ~TextModel() = default;
  // Appends the ids of text in which no special token is looked for; none becomes a special one but the
  // unknown.
  virtual void encode(std::string_view text, Place place, std::vector<int32_t>& ids) const = 0;
  // The text of tokens, none of them special. Ids must be in the vocabulary.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
};

// So that a map of strings is searched by a view.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};
// Ids by token.
using TokenIds = std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>>;

// The tokens of a file: their text by id, and which of them never come of text.
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

// Length in bytes of the white space that begins text[at..], 0 for none: Unicode's White_Space.
size_t white_space(std::string_view text, size_t at);

// Words between white space, joined by one space.
std::unique_ptr<TextModel> word_level(SharedVocabulary vocabulary, int32_t unknown);
// The BPE of a tokenizer.json, with its normalizer, pre_tokenizer and decoder. `where` begins errors, which
// name the key and the value of what is not supported.
std::unique_ptr<TextModel> bpe(const nlohmann::json& file, SharedVocabulary vocabulary,
                               const std::string& where);
// A SentencePiece model from the bytes of its file; fills `vocabulary` with its pieces.
struct SentencePieceModel {
  std::unique_ptr<TextModel> model;
  Vocabulary vocabulary;
  int32_t unknown = -1, begin = -1, end = -1;  // -1: the model has none
};
SentencePieceModel sentencepiece(std::string_view bytes, const std::string& where);

}  // namespace burrow::data
