#pragma once
// Six artificial languages for the scenes of the general domain. They share one grammar and differ in their
// words, so a text is translated word by word. English uses the words of the generated domains; the words of
// the others are made of syllables that no other language uses, so a word identifies its language.
#include <array>
#include <string>
#include <vector>

#include "data/sets/choices.h"
#include "data/worlds/scenes.h"

namespace burrow::data {

inline constexpr std::array<const char*, 6> language_names{"english", "bazu", "kito",
                                                           "lemna",   "fohu", "chewi"};
inline constexpr int language_count = static_cast<int>(language_names.size());

// The English words that have a counterpart in every language.
const std::vector<std::string>& shared_words();
// Word `index` of shared_words() in a language.
std::string word_in(int language, size_t index);
// Translates an English text of shared words, word by word; throws for any other word.
std::string translate(const std::string& english, int language);

// Vocabulary: the words of the generated domains, which keep their ids, then the words of multiple-choice
// prompts, the names of the languages and their words.
Tokenizer language_tokenizer();

// An English question on a general scene that needs no knowledge: colours, shapes, counts, places. Nothing
// when 100 tries find none.
std::optional<Question> ask_plain(Random& random, const GeneralScene& scene);

// A text-only lesson in a language: words to repeat, words to translate (the question begins with the name of
// the target language), or a scene in words with a question about it.
Question text_lesson(Random& random);
// An item of shape mmmb whose question is one of its four choices.
ChoiceItem pick_lesson(Random& random);
// The question as an item with four choices of the answer's kind; nothing for a kind with fewer values.
std::optional<ChoiceItem> as_choices(Random& random, const Question& question, int language);

}  // namespace burrow::data
