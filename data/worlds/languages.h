#pragma once
// Six artificial languages over the scenes of the general domain: each has words of its own, all share one
// grammar, in which a text of one language is a text of another word by word. English has the words of the
// generated domains; the others are made of syllables, and no two languages share a letter's company so that
// a word tells its language.
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
// An English text of shared words, word by word; throws for another word.
std::string translate(const std::string& english, int language);

// The words of the generated domains first, so that their ids are the same, then those of multiple-choice
// prompts, the names of the languages and their words.
Tokenizer language_tokenizer();

// One try at a question of a general scene without knowledge, in English: colours, shapes, counts, places.
std::optional<Question> ask_plain(Random& random, const GeneralScene& scene);

// What a model of text learns of a language: words to repeat, words to translate (the question begins with
// the name of the other language), a scene in words with a question about it.
Question text_lesson(Random& random);
// Which of four choices are the words of the question: an item of the shape mmmb.
ChoiceItem pick_lesson(Random& random);
// A question as a multiple-choice item of four choices of its kind; nothing where the kind has fewer.
std::optional<ChoiceItem> as_choices(Random& random, const Question& question, int language);

}  // namespace burrow::data
