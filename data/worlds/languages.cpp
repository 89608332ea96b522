#include "data/worlds/languages.h"

#include <algorithm>
#include <sstream>
#include <unordered_map>

#include "tensor/check.h"

namespace burrow::data {
namespace {

constexpr std::array shared_others{"what",  "color", "is",    "the",    "shape", "object", "how",  "many",
                                   "there", "more",  "than",  "where",  "top",   "bottom", "left", "right",
                                   "yes",   "no",    "scene", "repeat", "of",    "and"};

// Four beginnings and two vowels make eight syllables; a word has two syllables.
struct Sounds {
  std::array<const char*, 4> beginnings;
  std::array<const char*, 2> vowels;
};
constexpr std::array<Sounds, 5> sounds{{{{"b", "z", "d", "g"}, {"a", "u"}},
                                        {{"k", "t", "p", "s"}, {"i", "o"}},
                                        {{"l", "m", "n", "r"}, {"e", "a"}},
                                        {{"f", "h", "j", "v"}, {"o", "u"}},
                                        {{"ch", "w", "sh", "th"}, {"e", "i"}}}};
constexpr size_t most_words = 64;

std::string syllable(const Sounds& s, size_t i) { return std::string(s.beginnings[i / 2]) + s.vowels[i % 2]; }

const std::unordered_map<std::string, size_t>& places() {
  static const std::unordered_map<std::string, size_t> map = [] {
    std::unordered_map<std::string, size_t> found;
    for (size_t i = 0; i < shared_words().size(); ++i) found[shared_words()[i]] = i;
    return found;
  }();
  return map;
}

std::string some_words(Random& random, int count, int language) {
  std::string text;
  for (int i = 0; i < count; ++i)
    text += (i == 0 ? "" : " ") +
            word_in(language, static_cast<size_t>(draw_below(random, shared_words().size())));
  return text;
}

// "scene top left red circle bottom right ..."
std::string in_words(const GeneralScene& scene) {
  std::string text = "scene";
  for (const GeneralScene::Object& o : scene.objects)
    text += fmt::format(" {} {} {} {}", o.row < 2 ? "top" : "bottom", o.column < 2 ? "left" : "right",
                        color_words[static_cast<size_t>(o.color)], shape_words[static_cast<size_t>(o.shape)]);
  return text;
}

Question copy_lesson(Random& random, int language) {
  const std::string text = some_words(random, 2 + draw_below(random, 5), language);
  return {"copy", translate("repeat", language) + " " + text, text};
}

Question translation_lesson(Random& random, int from) {
  const int to = (from + 1 + draw_below(random, language_count - 1)) % language_count;
  std::string question = language_names[static_cast<size_t>(to)], answer;
  for (int count = 1 + draw_below(random, 4); count > 0; --count) {
    const auto word = static_cast<size_t>(draw_below(random, shared_words().size()));
    question += " " + word_in(from, word);
    answer += (answer.empty() ? "" : " ") + word_in(to, word);
  }
  return {"translate", question, answer};
}

Question reading_lesson(Random& random, int language) {
  Image image;  // not used
  std::optional<Question> asked;
  GeneralScene scene;
  while (!asked) {
    scene = draw_general(random, image);
    asked = ask_plain(random, scene);
  }
  return {"read", translate(in_words(scene) + " " + asked->question, language),
          translate(asked->answer, language)};
}

ChoiceItem item_of(Random& random, const std::string& question, std::vector<std::string> choices) {
  ChoiceItem item;
  item.shape = &task_shape("mmmb");
  item.question = question;
  item.answer = draw_below(random, choices.size());  // choices[0] is the right one
  std::swap(choices[0], choices[static_cast<size_t>(item.answer)]);
  item.choices = std::move(choices);
  return item;
}

std::vector<std::string> kind_of_answer(const std::string& type) {
  if (type == "color") return {color_words.begin(), color_words.end()};
  if (type == "shape") return {shape_words.begin(), shape_words.end()};
  if (type == "count") return {number_words.begin(), number_words.end()};
  if (type == "quadrant") return {"top left", "top right", "bottom left", "bottom right"};
  return {};
}

}  // namespace

const std::vector<std::string>& shared_words() {
  static const std::vector<std::string> words = [] {
    std::vector<std::string> all;
    const auto add = [&](const auto&... tables) {
      (all.insert(all.end(), tables.begin(), tables.end()), ...);
    };
    add(color_words, shape_words, number_words, shared_others);
    BURROW_CHECK(all.size() <= most_words, "[languages] {} shared words, more than {}", all.size(),
                 most_words);
    return all;
  }();
  return words;
}

std::string word_in(int language, size_t index) {
  if (language == 0) return shared_words().at(index);
  // An odd factor permutes the 64 codes, so that words of one kind do not begin alike.
  const auto l = static_cast<size_t>(language);
  const size_t code = (index * 37 + l * 11) % most_words;
  const Sounds& s = sounds.at(l - 1);
  return syllable(s, code / 8) + syllable(s, code % 8);
}

std::string translate(const std::string& english, int language) {
  std::istringstream stream(english);
  std::string text;
  for (std::string word; stream >> word;) {
    const auto place = places().find(word);
    BURROW_CHECK(place != places().end(), "[languages] '{}' has no translation", word);
    text += (text.empty() ? "" : " ") + word_in(language, place->second);
  }
  return text;
}

Tokenizer language_tokenizer() {
  std::vector<std::string> words = scene_words();
  const auto add = [&](const std::string& word) {
    if (std::find(words.begin(), words.end(), word) == words.end()) words.push_back(word);
  };
  const TaskShape& shape = task_shape("mmmb");
  add(shape.cue);
  add(shape.context);
  for (const std::string& label : shape.labels) {
    add(label);
    add("(" + label + ")");
  }
  for (const char* name : language_names) add(name);
  for (int l = 1; l < language_count; ++l)
    for (size_t i = 0; i < shared_words().size(); ++i) add(word_in(l, i));
  return Tokenizer::of({"<unk>", "<bos>", "<sep>", "<eos>"}, words);
}

std::optional<Question> ask_plain(Random& random, const GeneralScene& scene) {
  for (int tries = 0; tries < 100; ++tries) {
    if (auto question = ask(random, scene, Codes{}, 0)) return question;
  }
  return std::nullopt;
}

Question text_lesson(Random& random) {
  const int language = draw_below(random, language_count), kind = draw_below(random, 100);
  if (kind < 15) return copy_lesson(random, language);
  if (kind < 50) return translation_lesson(random, language);
  return reading_lesson(random, language);
}

ChoiceItem pick_lesson(Random& random) {
  const int language = draw_below(random, language_count);
  std::vector<std::string> choices;
  for (const int word : draw_distinct(random, static_cast<int>(shared_words().size()), 4))
    choices.push_back(word_in(language, static_cast<size_t>(word)));
  const std::string asked = choices[0];
  return item_of(random, asked, std::move(choices));
}

std::optional<ChoiceItem> as_choices(Random& random, const Question& question, int language) {
  std::vector<std::string> others = kind_of_answer(question.type);
  if (others.size() < 4) return std::nullopt;
  std::erase(others, question.answer);
  std::vector<std::string> choices{translate(question.answer, language)};
  for (const int i : draw_distinct(random, static_cast<int>(others.size()), 3))
    choices.push_back(translate(others[static_cast<size_t>(i)], language));
  return item_of(random, translate(question.question, language), std::move(choices));
}

}  // namespace burrow::data
