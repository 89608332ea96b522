#pragma once
// A word-level tokenizer, read from and written to a Hugging Face tokenizer.json: model WordLevel,
// pre-tokenizer WhitespaceSplit, an unknown token, added special tokens.
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace burrow::data {

class Tokenizer {
 public:
  // Errors name the file and the field: malformed JSON, a missing field, ids that repeat or leave a gap,
  // a model, normalizer or pre-tokenizer other than those above.
  static Tokenizer load(const std::filesystem::path& path);
  // The same of text in memory; `name` is for errors.
  static Tokenizer parse(std::string_view text, const std::string& name);
  // Ids are places in `specials` followed by `words`. `unknown` must be among the specials.
  static Tokenizer of(const std::vector<std::string>& specials, const std::vector<std::string>& words,
                      const std::string& unknown = "<unk>");
  void save(const std::filesystem::path& path) const;
  std::string json() const;  // what save writes

  // Ids of the words between white space; added tokens are found anywhere, as Hugging Face does.
  std::vector<int32_t> encode(std::string_view text) const;
  // The same for text of a record: there a special token's name is an unknown word, so that data cannot
  // forge the end of an answer.
  std::vector<int32_t> encode_plain(std::string_view text) const;
  // Words joined by one space; special tokens are left out. A model may have more rows than there are words:
  // such an id is shown as the unknown token.
  std::string decode(std::span<const int32_t> ids) const;

  int64_t size() const { return static_cast<int64_t>(words_.size()); }  // V
  int32_t unknown() const { return unknown_; }
  int32_t find(std::string_view token) const;   // -1 when absent
  int32_t id_of(std::string_view token) const;  // throws when absent
  const std::string& token(int32_t id) const;   // throws when out of range
  bool is_special(int32_t id) const;
  // The special token among the usual names of its role: <bos> or <s>, <eos> or </s>; -1 when absent.
  int32_t begin_of_text() const;
  int32_t end_of_text() const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };
  void index(const std::string& where, const std::string& unknown);
  void encode_words(std::string_view text, bool plain, std::vector<int32_t>& ids) const;

  std::vector<std::string> words_;
  std::vector<bool> special_;
  std::vector<int32_t> added_;  // special tokens, longest name first
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  int32_t unknown_ = -1;
};

}  // namespace burrow::data
