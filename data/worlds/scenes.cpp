#include "data/worlds/scenes.h"

#include <numeric>

#include "tensor/check.h"

namespace burrow::data {

namespace {

// Words of questions and answers that are in no table of scenes.h.
constexpr std::array other_words{
    "describe", "locate", "repeat", "at",     "empty", "text",    "scene",    "tissue",    "what",
    "which",    "is",     "there",  "the",    "how",   "many",    "more",     "than",      "of",
    "left",     "right",  "top",    "bottom", "where", "or",      "and",      "color",     "shape",
    "type",     "cell",   "object", "field",  "value", "read",    "larger",   "sum",       "plus",
    "after",    "first",  "last",   "yes",    "no",    "present", "dominant", "malignant", "to",
    "count",    "same",   "as",     "near",   "grade", "quadrant"};

}  // namespace

const std::vector<std::string>& scene_words() {
  static const std::vector<std::string> words = [] {
    std::vector<std::string> all;
    const auto add = [&](const auto&... tables) {
      (all.insert(all.end(), tables.begin(), tables.end()), ...);
    };
    add(color_words, shape_words, key_words, digit_words, cell_words, tissue_words, number_words, grade_words,
        row_words, column_words, other_words);
    return all;
  }();
  return words;
}

Tokenizer scene_tokenizer() { return Tokenizer::of({"<unk>", "<bos>", "<sep>", "<eos>"}, scene_words()); }

std::vector<int> draw_distinct(Random& random, int n, int count) {
  std::vector<int> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  for (int i = 0; i < count; ++i)
    std::swap(all[static_cast<size_t>(i)],
              all[static_cast<size_t>(i + draw_below(random, static_cast<size_t>(n - i)))]);
  all.resize(static_cast<size_t>(count));
  return all;
}

std::string two_digits(int value) { return fmt::format("{} {}", value / 10, value % 10); }

Codes knowledge_codes(uint64_t seed, Domain domain) {
  Random random(random_key(seed, 0, fmt::format("data/knowledge/{}", name_of(domain))));
  Codes codes;
  const std::vector<int> drawn = draw_distinct(random, 80, static_cast<int>(codes.size()));
  for (size_t i = 0; i < codes.size(); ++i)
    codes[i] = fmt::format("{} {}", key_words[static_cast<size_t>(drawn[i] / 10)], drawn[i] % 10);
  return codes;
}

Scene draw_scene(Random& random, Domain domain, Image& image) {
  if (domain == Domain::general) return draw_general(random, image);
  if (domain == Domain::document) return draw_document(random, image);
  return draw_biomedicine(random, image);
}

std::optional<Question> ask(Random& random, const Scene& scene, const Codes& codes, int knowledge_percent) {
  return std::visit([&](const auto& s) { return ask(random, s, codes, knowledge_percent); }, scene);
}

Question describe(Random& random, const Scene& scene) {
  return std::visit([&](const auto& s) { return describe(random, s); }, scene);
}

Question copy_words(Random& random) {
  const auto& words = scene_words();
  const int count = 2 + draw_below(random, 5);
  std::string text;
  for (int i = 0; i < count; ++i)
    text += (i == 0 ? "" : " ") + words[static_cast<size_t>(draw_below(random, words.size()))];
  return {"copy", "repeat " + text, text};
}

}  // namespace burrow::data
