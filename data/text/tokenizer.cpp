#include "data/text/tokenizer.h"

#include <algorithm>

#include "data/json.h"
#include "tensor/files.h"

namespace burrow::data {
namespace {

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

int32_t first_of(const Vocabulary& vocabulary, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const int32_t id = vocabulary.find(name); id >= 0) return id;
  }
  return -1;
}

std::string_view without_space_behind(std::string_view text) {
  size_t end = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t space = white_space(text, i);
    i += std::max<size_t>(space, 1);
    if (space == 0) end = i;
  }
  return text.substr(0, end);
}

bool flag(const nlohmann::json& token, const char* key, bool otherwise, const std::string& where) {
  const auto it = token.find(key);
  if (it == token.end()) return otherwise;
  BURROW_CHECK(it->is_boolean(), "{}: added_tokens' {} must be true or false, not {}", where, key,
               it->type_name());
  return it->get<bool>();
}

}  // namespace

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  const auto beside = [&](const char* name) { return path.parent_path() / name; };
  Tokenizer t;
  if (path.extension() != ".model") {
    t = parse(read_file(path.string()), path.string());
  } else {
    const std::string where = fmt::format("[tokenizer] {}", path.string());
    SentencePieceModel read = sentencepiece(read_file(path.string()), where);
    std::vector<Added> added;
    for (size_t i = 0; i < read.vocabulary.words.size(); ++i) {
      if (read.vocabulary.special[i]) added.push_back({static_cast<int32_t>(i)});
    }
    if (const auto file = beside("added_tokens.json"); std::filesystem::exists(file)) {
      const nlohmann::json names = parse_json(file);
      BURROW_CHECK(names.is_object(), "{}: must be an object, not {}", file.string(), names.type_name());
      std::vector<std::pair<std::string, int32_t>> pairs;
      for (size_t i = 0; i < read.vocabulary.words.size(); ++i)
        pairs.emplace_back(read.vocabulary.words[i], static_cast<int32_t>(i));
      for (const auto& [name, value] : names.items()) {
        const int32_t id = read_id(value, fmt::format("{}: '{}'", file.string(), name));
        BURROW_CHECK(!name.empty(), "{}: a token has no name", file.string());
        if (static_cast<size_t>(id) < read.vocabulary.words.size() &&
            read.vocabulary.words[static_cast<size_t>(id)] == name)
          continue;  // listed again
        pairs.emplace_back(name, id);
        added.push_back({id});
      }
      read.vocabulary.words = words_by_id(pairs, file.string());
      read.vocabulary.special.resize(pairs.size(), true);
    }
    t.model_ = std::move(read.model);
    t.unknown_ = read.unknown;
    t.finish(std::move(read.vocabulary), std::move(added), where);
    t.begin_ = read.begin;
    t.end_ = read.end;
  }
  if (const auto config = beside("tokenizer_config.json"); std::filesystem::exists(config))
    t.take_roles(config);
  return t;
}

// "bos_token": "<s>", {"content": "<s>", ...} or null.
void Tokenizer::take_roles(const std::filesystem::path& config) {
  const nlohmann::json file = parse_json(config);
  BURROW_CHECK(file.is_object(), "{}: must be an object, not {}", config.string(), file.type_name());
  for (const auto& [key, role] : {std::pair{"bos_token", &begin_}, {"eos_token", &end_}}) {
    const auto it = file.find(key);
    if (it == file.end()) continue;
    if (it->is_null()) {
      *role = -1;
      continue;
    }
    const std::string where = fmt::format("{}: {}", config.string(), key);
    if (!it->is_object()) {
      BURROW_CHECK(it->is_string(), "{} must be a string, not {}", where, it->type_name());
    }
    const std::string& name =
        it->is_object() ? string_member(*it, "content", where) : it->get_ref<const std::string&>();
    *role = find(name);
    BURROW_CHECK(*role >= 0, "{} '{}' is not in the vocabulary", where, name);
  }
}

Tokenizer Tokenizer::parse(std::string_view text, const std::string& name) {
  const std::string where = fmt::format("[tokenizer] {}", name);
  try {
    const nlohmann::json file = parse_json(text, name);
    const nlohmann::json& model = member(file, "model", where);
    const std::string& type = string_member(model, "type", where + " model");
    BURROW_CHECK(type == "WordLevel" || type == "BPE",
                 "{}: model type '{}' is not supported, only WordLevel and BPE", where, type);
    Tokenizer t;
    t.whole_words_ = type == "WordLevel";
    if (t.whole_words_) {
      check_part(file, "pre_tokenizer", "WhitespaceSplit", where);
      check_part(file, "normalizer", "none", where);
    }

    std::vector<std::pair<std::string, int32_t>> pairs;
    const nlohmann::json& vocab = member(model, "vocab", where + " model");
    BURROW_CHECK(vocab.is_object(), "{}: model.vocab must be an object, not {}", where, vocab.type_name());
    for (const auto& [word, id] : vocab.items())
      pairs.emplace_back(word, read_id(id, fmt::format("{}: model.vocab '{}'", where, word)));
    std::vector<Added> added;
    std::vector<int32_t> specials;
    const nlohmann::json& tokens = member(file, "added_tokens", where);
    BURROW_CHECK(tokens.is_array(), "{}: added_tokens must be an array, not {}", where, tokens.type_name());
    for (const nlohmann::json& token : tokens) {
      const std::string& content = string_member(token, "content", where + " added_tokens");
      const int32_t id = read_id(member(token, "id", where + " added_tokens"), where + " added_tokens");
      BURROW_CHECK(!content.empty(), "{}: an added token has no content", where);
      BURROW_CHECK(!flag(token, "single_word", false, where),
                   "{}: added token '{}': single_word true is not supported", where, content);
      added.push_back({id, flag(token, "lstrip", false, where), flag(token, "rstrip", false, where)});
      // Where tokens are whole words, one that is found within a word is always taken for special.
      if (t.whole_words_ || flag(token, "special", true, where)) specials.push_back(id);
      const auto known = vocab.find(content);
      if (known == vocab.end())
        pairs.emplace_back(content, id);
      else
        BURROW_CHECK(*known == id, "{}: added token '{}' has id {}, and {} in model.vocab", where, content,
                     id, shown(*known));
    }
    Vocabulary vocabulary;
    vocabulary.words = words_by_id(pairs, where);
    vocabulary.special.resize(vocabulary.words.size());
    for (const int32_t id : specials) vocabulary.special[static_cast<size_t>(id)] = true;
    t.finish(std::move(vocabulary), std::move(added), where);
    if (const auto unk = model.find("unk_token"); t.whole_words_ || (unk != model.end() && !unk->is_null())) {
      const std::string& unknown = string_member(model, "unk_token", where + " model");
      t.unknown_ = t.find(unknown);
      BURROW_CHECK(t.unknown_ >= 0, "{}: the unknown token '{}' is not in the vocabulary", where, unknown);
    }
    t.model_ = t.whole_words_ ? word_level(t.vocabulary_, t.unknown_) : bpe(file, t.vocabulary_, where);
    return t;
  } catch (const nlohmann::json::exception& e) {
    fail("{}: {}", where, e.what());
  }
}

Tokenizer Tokenizer::of(const std::vector<std::string>& specials, const std::vector<std::string>& words,
                        const std::string& unknown) {
  Tokenizer t;
  t.whole_words_ = true;
  Vocabulary vocabulary{specials, std::vector<bool>(specials.size() + words.size()), {}};
  vocabulary.words.insert(vocabulary.words.end(), words.begin(), words.end());
  std::vector<Added> added;
  for (size_t i = 0; i < specials.size(); ++i) {
    vocabulary.special[i] = true;
    added.push_back({static_cast<int32_t>(i)});
  }
  t.finish(std::move(vocabulary), std::move(added), "[tokenizer]");
  t.unknown_ = t.find(unknown);
  BURROW_CHECK(t.unknown_ >= 0, "[tokenizer]: the unknown token '{}' is not in the vocabulary", unknown);
  t.model_ = word_level(t.vocabulary_, t.unknown_);
  return t;
}

void Tokenizer::finish(Vocabulary vocabulary, std::vector<Added> added, const std::string& where) {
  const auto& words = vocabulary.words;
  for (size_t i = 0; i < words.size(); ++i) {
    BURROW_CHECK(vocabulary.ids.emplace(words[i], static_cast<int32_t>(i)).second,
                 "{}: token '{}' occurs twice", where, words[i]);
  }
  std::stable_sort(added.begin(), added.end(), [&](const Added& a, const Added& b) {
    return words[static_cast<size_t>(a.id)].size() > words[static_cast<size_t>(b.id)].size();
  });
  for (const Added& a : added) {
    const char lead = words[static_cast<size_t>(a.id)].front();
    if (leads_.find(lead) == leads_.npos) leads_ += lead;
  }
  added_ = std::move(added);
  begin_ = first_of(vocabulary, {"<bos>", "<s>", "<|begin_of_text|>"});
  end_ = first_of(vocabulary, {"<eos>", "</s>", "<|end_of_text|>", "<|endoftext|>"});
  vocabulary_ = std::make_shared<const Vocabulary>(std::move(vocabulary));
}

std::string Tokenizer::json() const {
  BURROW_CHECK(whole_words_, "[tokenizer] only a tokenizer of whole words can be written");
  const auto& words = vocabulary_->words;
  nlohmann::ordered_json file;
  file["version"] = "1.0";
  file["truncation"] = nullptr;
  file["padding"] = nullptr;
  file["added_tokens"] = nlohmann::ordered_json::array();
  nlohmann::ordered_json vocab = nlohmann::ordered_json::object();
  for (size_t i = 0; i < words.size(); ++i) {
    vocab[words[i]] = i;
    if (!vocabulary_->special[i]) continue;
    file["added_tokens"].push_back({{"id", i},
                                    {"content", words[i]},
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
      {"type", "WordLevel"}, {"vocab", vocab}, {"unk_token", words[static_cast<size_t>(unknown_)]}};
  return file.dump(1) + "\n";
}

void Tokenizer::save(const std::filesystem::path& path) const {
  write_file_atomically(path.string(), json());
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  return encode(text, Place::start, true);
}

std::vector<int32_t> Tokenizer::encode_plain(std::string_view text, Place place) const {
  return encode(text, place, false);
}

// Added tokens are found from the left, the longest first, in the text as it is given. (Hugging Face looks
// for those with `normalized` in the normalised text.)
std::vector<int32_t> Tokenizer::encode(std::string_view text, Place place, bool specials) const {
  const auto& words = vocabulary_->words;
  const auto begins = [&](size_t i) {
    return std::find_if(added_.begin(), added_.end(), [&](const Added& a) {
      return (specials || !is_special(a.id)) && text.substr(i).starts_with(words[static_cast<size_t>(a.id)]);
    });
  };
  std::vector<int32_t> ids;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const auto hit = leads_.find(text[i]) == leads_.npos ? added_.end() : begins(i);
    if (hit == added_.end()) {
      ++i;
      continue;
    }
    std::string_view before = text.substr(begin, i - begin);
    if (hit->left) before = without_space_behind(before);
    model_->encode(before, place, ids);
    ids.push_back(hit->id);
    i += words[static_cast<size_t>(hit->id)].size();
    for (size_t space = 1; hit->right && i < text.size() && space > 0; i += space)
      space = white_space(text, i);
    begin = i;
    place = Place::after_token;
  }
  model_->encode(text.substr(begin), place, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::vector<int32_t> plain;
  for (int32_t id : ids) {
    BURROW_CHECK(id >= 0, "[tokenizer] id {} is outside of the vocabulary of {}", id, size());
    if (is_special(id)) continue;
    if (id >= size()) id = unknown_;
    if (id >= 0) plain.push_back(id);
  }
  return model_->decode(plain);
}

int32_t Tokenizer::id_of(std::string_view token) const {
  const int32_t id = find(token);
  BURROW_CHECK(id >= 0, "[tokenizer] no token '{}' in the vocabulary", token);
  return id;
}

const std::string& Tokenizer::token(int32_t id) const {
  BURROW_CHECK(id >= 0 && id < size(), "[tokenizer] id {} is outside of the vocabulary of {}", id, size());
  return vocabulary_->words[static_cast<size_t>(id)];
}

}  // namespace burrow::data
