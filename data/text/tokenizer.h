#pragma once
// Tokenizers read from their files: a Hugging Face tokenizer.json, of whole words (WordLevel) or BPE, or a
// SentencePiece tokenizer.model. What they do with text is data/text/text_model.h's; here are the special
// tokens.
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
  // A file named *.model is SentencePiece's, any other a tokenizer.json. Beside it are read, where they
  // exist, tokenizer_config.json for the tokens that begin and end a text, and, of SentencePiece,
  // added_tokens.json. Errors name the file and the field: malformed JSON, a missing field, ids that repeat
  // or leave a gap, a model, normalizer, pre-tokenizer, decoder or option of one that is not supported.
  static Tokenizer load(const std::filesystem::path& path);
  // A tokenizer.json in memory; `name` is for errors.
  static Tokenizer parse(std::string_view text, const std::string& name);
  // Whole words: ids are places in `specials` followed by `words`. `unknown` must be among the specials.
  static Tokenizer of(const std::vector<std::string>& specials, const std::vector<std::string>& words,
                      const std::string& unknown = "<unk>");
  // A tokenizer of whole words only; throws for another.
  void save(const std::filesystem::path& path) const;
  std::string json() const;  // what save writes

  // Ids of text as Hugging Face gives them without its post-processor: added tokens are found anywhere.
  std::vector<int32_t> encode(std::string_view text) const;
  // The same for text of a record: there a special token's name is ordinary text (an unknown word, where
  // tokens are whole words), so that data cannot forge the end of an answer. `place` says what it stands
  // behind.
  std::vector<int32_t> encode_plain(std::string_view text, Place place = Place::start) const;
  // The text of tokens; special tokens are left out. A model may have more rows than there are tokens: such
  // an id is shown as the unknown token, where there is one.
  std::string decode(std::span<const int32_t> ids) const;

  int64_t size() const { return static_cast<int64_t>(vocabulary_->words.size()); }  // V
  bool whole_words() const { return whole_words_; }
  int32_t unknown() const { return unknown_; }                                     // -1: no text is unknown
  int32_t find(std::string_view token) const { return vocabulary_->find(token); }  // -1 when absent
  int32_t id_of(std::string_view token) const;                                     // throws when absent
  const std::string& token(int32_t id) const;                                      // throws when out of range
  bool is_special(int32_t id) const { return vocabulary_->is_special(id); }
  // What tokenizer_config.json or the SentencePiece model says; else the special token among the usual names
  // of its role (<bos> or <s>, <eos> or </s>, and Llama 3's and Qwen's); -1 when absent.
  int32_t begin_of_text() const { return begin_; }
  int32_t end_of_text() const { return end_; }

 private:
  // A token that is looked for in text before the model reads it, and whether it takes the white space beside
  // it.
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
