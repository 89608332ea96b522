#include "data/text/text_model.h"

namespace burrow::data {

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

namespace {

class WordLevel : public TextModel {
 public:
  WordLevel(SharedVocabulary vocabulary, int32_t unknown)
      : vocabulary_(std::move(vocabulary)), unknown_(unknown) {}

  void encode(std::string_view text, Place, std::vector<int32_t>& ids) const override {
    for (size_t i = 0; i < text.size();) {
      if (const size_t space = white_space(text, i); space > 0) {
        i += space;
        continue;
      }
      const size_t begin = i;
      while (i < text.size() && white_space(text, i) == 0) ++i;
      const int32_t id = vocabulary_->find(text.substr(begin, i - begin));
      ids.push_back(id < 0 || vocabulary_->is_special(id) ? unknown_ : id);
    }
  }
  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (!text.empty()) text += ' ';
      text += vocabulary_->words[static_cast<size_t>(id)];
    }
    return text;
  }

 private:
  SharedVocabulary vocabulary_;
  int32_t unknown_;
};

}  // namespace

int32_t Vocabulary::find(std::string_view token) const {
  const auto it = ids.find(token);
  return it == ids.end() ? -1 : it->second;
}

std::unique_ptr<TextModel> word_level(SharedVocabulary vocabulary, int32_t unknown) {
  return std::make_unique<WordLevel>(std::move(vocabulary), unknown);
}

}  // namespace burrow::data
