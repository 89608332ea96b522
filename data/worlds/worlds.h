#pragma once
// Small worlds in text: who owns what, which animal is bigger, what an action causes, the steps of a chore.
// Eight families of multiple-choice questions on them, and sentences that state their facts. Words and
// punctuation are separated by single spaces, so that each is a token of task_tokenizer().
//
// Every third entity of a kind (index % 3 == 2) is excluded from the tasks; prompts of the pretraining text
// use only these entities. (Numbers, places and materials are not divided.)
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "data/text/tokenizer.h"
#include "tensor/enum_names.h"
#include "tensor/rng.h"

namespace burrow::data {

// The name of a family is its folder's.
BURROW_ENUM(Family, negation, sizes, agents, continuation, reference, arithmetic, two_hop, rules)
inline constexpr std::array<Family, 8> families{Family::negation,     Family::sizes,     Family::agents,
                                                Family::continuation, Family::reference, Family::arithmetic,
                                                Family::two_hop,      Family::rules};
const char* shape_of(Family family);  // the "task" of its items: the published set that it imitates

// The facts of the worlds, the same in every text; entities are indices into the tables below.
struct Event {
  const char *deed, *thing, *effect;  // a person who did `deed` to `thing` caused its `effect`
};
struct Script {  // a chore
  std::array<const char*, 4> steps;
};
struct Verbs {  // "x forward y" as x `first` or y `second`; "x backward y" as y `first` or x `second`
  const char *forward, *backward, *first, *second;
};
extern const std::array<const char*, 48> person_words;
extern const std::array<const char*, 32> animal_words;  // from the smallest to the biggest
extern const std::array<int, 32> animal_places;         // index of place_words
extern const std::array<const char*, 8> place_words, tree_words, flower_words;  // what grows at place i
extern const std::array<const char*, 6> material_words;
extern const std::array<const char*, 36> object_words;  // object i is of material i / 6
extern const std::array<const char*, 12> ability_words;
extern const std::array<const char*, 6> fruit_words;
extern const std::array<const char*, 13> count_words;  // zero to twelve
extern const std::array<Event, 24> world_events;
extern const std::array<Script, 15> world_scripts;
extern const std::array<Verbs, 9> world_verbs;

// Which entities may be drawn.
enum class Cast { tasks, prompts, all };

// A question, identified by `key`; no two splits share a key.
struct WorldItem {
  std::string context, question;  // the context may be empty
  std::vector<std::string> choices;
  int answer = 0;
  std::string key;
};

// Draws a question on entities of `cast` whose right choice is choices[answer].
WorldItem draw_item(Random& random, Family family, Cast cast, int answer);
int choices_of(Family family);

// The tenth of all questions that an item belongs to, by its key: 0 to last_train_tenth are of the train
// split, the next one of validation, the last one of test.
inline uint64_t tenth_of(const WorldItem& item) { return random_key(0, 0, item.key) % 10; }
inline constexpr uint64_t last_train_tenth = 7;

// One line of the pretraining text: statements on the worlds.
std::string draw_world_text(Random& random);
// One line that lists words under labels, then each word with its label. In the first lesson all words are
// objects and each precedes its label.
std::string draw_label_text(Random& random, bool first_lesson);

// One line that is a prompt on entities of `Cast::prompts` in the shape of a random family, with its label;
// never a question of the validation or test split. `same`: asks only which choice the question names.
std::string draw_world_prompt(Random& random, bool same = false);

// Vocabulary: <unk> <bos> <sep> <eos>, then the words of all texts, of labels and of common prompts.
Tokenizer task_tokenizer();

// Helpers to write texts.
template <class Table>
auto word(const Table& table, int i) {
  return table[static_cast<size_t>(i)];
}
template <class Table>
std::vector<std::string> words_at(const Table& table, const std::vector<int>& indices) {
  std::vector<std::string> words;
  for (const int i : indices) words.emplace_back(word(table, i));
  return words;
}
// `count` distinct indices of [0, n) that belong to the cast, in random order.
std::vector<int> draw_cast(Random& random, size_t n, Cast cast, int count);
template <class Table>
const auto& pick(Random& random, const Table& table) {
  return table[random.below(static_cast<uint32_t>(table.size()))];
}
inline bool coin(Random& random) { return random.below(2) != 0; }
// A sentence about two things of different size, and one about a deed, without its end; each in two forms.
std::string compare(Random& random, const char* big, const char* small);
std::string deed_of(Random& random, const char* subject, const char* verb, const char* object);

}  // namespace burrow::data
