#include "data/tokenizer.h"

#include <algorithm>
#include <set>

#include "data/json.h"

namespace burrow::data {
namespace {

// Length in bytes of the white space that begins text[at..], 0 for none: Unicode's White_Space.
size_t white_space(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const unsigned a = byte(0), b = byte(1), c = byte(2);
  if (a == ' ' || (a >= '\t' && a <= '\r')) return 1;
  if (a == 0xC2 && (b == 0x85 || b == 0xA0)) return 2;
  if (a == 0xE1 && b == 0x9A && c == 0x80) return 3;
  if (a == 0xE2 && b == 0x80 && ((c >= 0x80 && c <= 0x8A) || c == 0xA8 || c == 0xA9 || c == 0xAF)) return 3;
  if (a == 0xE2 && b == 0x81 && c == 0x9F) return 3;
  if (a == 0xE3 && b == 0x80 && c == 0x80) return 3;
  return 0;
}

void check_part(const nlohmann::json& file, const char* part, const char* supported,
                const std::string& where) {
  const auto it = file.find(part);
  const std::string type = it == file.end() || it->is_null() ? "none"
                           : it->is_object()                 ? it->value("type", std::string("?"))
                                                             : it->type_name();
  BURROW_CHECK(type == supported, "{}: {} '{}' is not supported, only {}", where, part, type, supported);
}

// A value for an error. dump() of a list within a list within a list, as deep as a file likes, is recursive.
std::string shown(const nlohmann::json& value) {
  return value.is_structured() ? value.type_name() : value.dump();
}

int32_t read_id(const nlohmann::json& value, const std::string& where) {
  BURROW_CHECK(value.is_number_integer() && value.get<int64_t>() >= 0 && value.get<int64_t>() < (1 << 24),
               "{}: an id must be a small non-negative integer, not {}", where, shown(value));
  return value.get<int32_t>();
}

// The table of words by id from pairs (word, id); ids must be 0, 1, 2, ... without repeats.
std::vector<std::string> words_by_id(const std::vector<std::pair<std::string, int32_t>>& pairs,
                                     const std::string& where) {
  std::vector<std::string> words(pairs.size());
  std::vector<bool> seen(pairs.size());
  for (const auto& [word, id] : pairs) {
    const auto at = static_cast<size_t>(id);
    BURROW_CHECK(at < words.size(), "{}: ids are not contiguous: '{}' has id {} among {} tokens", where, word,
                 id, words.size());
    BURROW_CHECK(!seen[at], "{}: id {} is used twice, by '{}' and '{}'", where, id, words[at], word);
    seen[at] = true;
    words[at] = word;
  }
  return words;
}

}  // namespace

Tokenizer Tokenizer::load(const std::filesystem::path& path) { return parse(read_text(path), path.string()); }

Tokenizer Tokenizer::parse(std::string_view text, const std::string& name) {
  const std::string where = fmt::format("[tokenizer] {}", name);
  try {
    const nlohmann::json file = parse_json(text, name);
    const nlohmann::json& model = member(file, "model", where);
    const std::string& type = string_member(model, "type", where + " model");
    BURROW_CHECK(type == "WordLevel", "{}: model type '{}' is not supported, only WordLevel", where, type);
    check_part(file, "pre_tokenizer", "WhitespaceSplit", where);
    check_part(file, "normalizer", "none", where);

    std::vector<std::pair<std::string, int32_t>> pairs;
    const nlohmann::json& vocab = member(model, "vocab", where + " model");
    BURROW_CHECK(vocab.is_object(), "{}: model.vocab must be an object, not {}", where, vocab.type_name());
    for (const auto& [word, id] : vocab.items())
      pairs.emplace_back(word, read_id(id, fmt::format("{}: model.vocab '{}'", where, word)));
    std::set<int32_t> specials;
    const nlohmann::json& added = member(file, "added_tokens", where);
    BURROW_CHECK(added.is_array(), "{}: added_tokens must be an array, not {}", where, added.type_name());
    for (const nlohmann::json& token : added) {
      const std::string& content = string_member(token, "content", where + " added_tokens");
      const int32_t id = read_id(member(token, "id", where + " added_tokens"), where + " added_tokens");
      BURROW_CHECK(!content.empty(), "{}: an added token has no content", where);
      specials.insert(id);
      const auto known = vocab.find(content);
      if (known == vocab.end())
        pairs.emplace_back(content, id);
      else
        BURROW_CHECK(*known == id, "{}: added token '{}' has id {}, and {} in model.vocab", where, content,
                     id, shown(*known));
    }
    Tokenizer t;
    t.words_ = words_by_id(pairs, where);
    t.special_.resize(t.words_.size());
    for (const int32_t id : specials) t.special_[static_cast<size_t>(id)] = true;
    t.index(where, string_member(model, "unk_token", where + " model"));
    return t;
  } catch (const nlohmann::json::exception& e) {
    fail("{}: {}", where, e.what());
  }
}

Tokenizer Tokenizer::of(const std::vector<std::string>& specials, const std::vector<std::string>& words,
                        const std::string& unknown) {
  Tokenizer t;
  t.words_ = specials;
  t.words_.insert(t.words_.end(), words.begin(), words.end());
  t.special_.resize(t.words_.size());
  std::fill_n(t.special_.begin(), specials.size(), true);
  t.index("[tokenizer]", unknown);
  return t;
}

void Tokenizer::index(const std::string& where, const std::string& unknown) {
  for (size_t i = 0; i < words_.size(); ++i) {
    BURROW_CHECK(ids_.emplace(words_[i], static_cast<int32_t>(i)).second, "{}: token '{}' occurs twice",
                 where, words_[i]);
    if (special_[i]) added_.push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(added_.begin(), added_.end(), [&](int32_t a, int32_t b) {
    return words_[static_cast<size_t>(a)].size() > words_[static_cast<size_t>(b)].size();
  });
  unknown_ = find(unknown);
  BURROW_CHECK(unknown_ >= 0, "{}: the unknown token '{}' is not in the vocabulary", where, unknown);
}

std::string Tokenizer::json() const {
  nlohmann::ordered_json file;
  file["version"] = "1.0";
  file["truncation"] = nullptr;
  file["padding"] = nullptr;
  file["added_tokens"] = nlohmann::ordered_json::array();
  nlohmann::ordered_json vocab = nlohmann::ordered_json::object();
  for (size_t i = 0; i < words_.size(); ++i) {
    vocab[words_[i]] = i;
    if (!special_[i]) continue;
    file["added_tokens"].push_back({{"id", i},
                                    {"content", words_[i]},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false},
                                    {"special", true}});
  }
  file["normalizer"] = nullptr;
  file["pre_tokenizer"] = {{"type", "WhitespaceSplit"}};
  file["post_processor"] = nullptr;
  file["decoder"] = nullptr;
  file["model"] = {
      {"type", "WordLevel"}, {"vocab", vocab}, {"unk_token", words_[static_cast<size_t>(unknown_)]}};
  return file.dump(1) + "\n";
}

void Tokenizer::save(const std::filesystem::path& path) const { write_text(path, json()); }

void Tokenizer::encode_words(std::string_view text, bool plain, std::vector<int32_t>& ids) const {
  for (size_t i = 0; i < text.size();) {
    if (const size_t space = white_space(text, i); space > 0) {
      i += space;
      continue;
    }
    const size_t begin = i;
    while (i < text.size() && white_space(text, i) == 0) ++i;
    const int32_t id = find(text.substr(begin, i - begin));
    ids.push_back(id < 0 || (plain && is_special(id)) ? unknown_ : id);
  }
}

std::vector<int32_t> Tokenizer::encode_plain(std::string_view text) const {
  std::vector<int32_t> ids;
  encode_words(text, true, ids);
  return ids;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const auto hit = std::find_if(added_.begin(), added_.end(), [&](int32_t id) {
      return text.substr(i).starts_with(words_[static_cast<size_t>(id)]);
    });
    if (hit == added_.end()) {
      ++i;
      continue;
    }
    encode_words(text.substr(begin, i - begin), false, ids);
    ids.push_back(*hit);
    begin = i += words_[static_cast<size_t>(*hit)].size();
  }
  encode_words(text.substr(begin), false, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) {
    const std::string& word = token(id < size() ? id : unknown_);
    if (is_special(id)) continue;
    if (!text.empty()) text += ' ';
    text += word;
  }
  return text;
}

int32_t Tokenizer::find(std::string_view token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? -1 : it->second;
}

int32_t Tokenizer::id_of(std::string_view token) const {
  const int32_t id = find(token);
  BURROW_CHECK(id >= 0, "[tokenizer] no token '{}' in the vocabulary", token);
  return id;
}

const std::string& Tokenizer::token(int32_t id) const {
  BURROW_CHECK(id >= 0 && id < size(), "[tokenizer] id {} is outside of the vocabulary of {}", id, size());
  return words_[static_cast<size_t>(id)];
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < size() && special_[static_cast<size_t>(id)];
}

int32_t Tokenizer::begin_of_text() const { return find("<bos>") >= 0 ? find("<bos>") : find("<s>"); }
int32_t Tokenizer::end_of_text() const { return find("<eos>") >= 0 ? find("<eos>") : find("</s>"); }

}  // namespace burrow::data
