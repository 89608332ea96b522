#pragma once
// Tokenizers read from files: a Hugging Face tokenizer.json, of whole words (WordLevel) or BPE, or a
// SentencePiece tokenizer.model. Tokenizer handles added and special tokens; a TextModel
// (data/text/text_model.h) encodes the text between them.
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/text_model.h"

namespace burrow::data {

class Tokenizer {
 public:
  // Reads *.model as SentencePiece and any other file as tokenizer.json. From the same folder, if present, it
  // reads tokenizer_config.json for the tokens that begin and end a text and, for SentencePiece,
  // added_tokens.json. Errors name file and field: malformed JSON, a missing field, ids that repeat or leave
  // a gap, an unsupported model, normalizer, pre-tokenizer, decoder or option.
  static Tokenizer load(const std::filesystem::path& path);
  // Reads a tokenizer.json in memory; `name` appears in errors.
  static Tokenizer parse(std::string_view text, const std::string& name);
  // A whole-word tokenizer: ids are indices into `specials`, which must contain `unknown`, then `words`.
  static Tokenizer of(const std::vector<std::string>& specials, const std::vector<std::string>& words,
                      const std::string& unknown = "<unk>");
  // Throws for any but a whole-word tokenizer.
  void save(const std::filesystem::path& path) const;
  std::string json() const;  // what save writes

  // Ids of text as Hugging Face gives them without its post-processor: added tokens are found anywhere.
  std::vector<int32_t> encode(std::string_view text) const;
  // The same for text of a record: the name of a special token is ordinary text there (an unknown word for a
  // whole-word tokenizer), so that data cannot forge the end of an answer. `place`: what precedes the text.
  std::vector<int32_t> encode_plain(std::string_view text, Place place = Place::start) const;
  // The text of tokens without the special ones. An id beyond the vocabulary, which a model with more rows
  // may produce, decodes to the unknown token, if there is one.
  std::string decode(std::span<const int32_t> ids) const;

  int64_t size() const { return static_cast<int64_t>(vocabulary_->words.size()); }  // V
  bool whole_words() const { return whole_words_; }
  int32_t unknown() const { return unknown_; }                                     // -1: no such token
  int32_t find(std::string_view token) const { return vocabulary_->find(token); }  // -1 when absent
  int32_t id_of(std::string_view token) const;                                     // throws when absent
  const std::string& token(int32_t id) const;                                      // throws when out of range
  bool is_special(int32_t id) const { return vocabulary_->is_special(id); }
  // Set by tokenizer_config.json or the SentencePiece model; otherwise the token with a usual name: <bos> or
  // <s>, <eos> or </s>, or Llama 3's or Qwen's. -1 when absent.
  int32_t begin_of_text() const { return begin_; }
  int32_t end_of_text() const { return end_; }

 private:
  // A token that is matched in text before the model encodes the rest. left, right: it absorbs the white
  // space on that side.
  struct Added {
    int32_t id = -1;
    bool left = false, right = false;
  };
  void finish(Vocabulary vocabulary, std::vector<Added> added, const std::string& where);
  void take_roles(const std::filesystem::path& config);
  std::vector<int32_t> encode(std::string_view text, Place place, bool specials) const;

  SharedVocabulary vocabulary_;
  std::shared_ptr<const TextModel> model_;
  std::vector<Added> added_;  // longest name first
  std::string leads_;         // first bytes of their names
  int32_t unknown_ = -1, begin_ = -1, end_ = -1;
  bool whole_words_ = false;
};

}  // namespace burrow::data
