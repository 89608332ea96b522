#pragma once
// Small worlds in words: who owns what, which animal is bigger, what comes of an action, how a chore goes on.
// Eight families of multiple-choice questions on them, and the sentences that state their facts. Every text
// is words and punctuation between single spaces, so that each is a token of task_tokenizer().
//
// Every third entity of a kind (index % 3 == 2) is kept out of the tasks: prompts of the pretraining text are
// about those alone. (Numbers, places and materials have no such thirds.)
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "data/text/tokenizer.h"
#include "tensor/rng.h"

namespace burrow::data {

enum class Family { negation, sizes, agents, continuation, reference, arithmetic, two_hop, rules };
inline constexpr std::array<Family, 8> families{Family::negation,     Family::sizes,     Family::agents,
                                                Family::continuation, Family::reference, Family::arithmetic,
                                                Family::two_hop,      Family::rules};
const char* name_of(Family family);   // its folder
const char* shape_of(Family family);  // the "task" of its items: the set that it stands in for

// Facts that hold in every text; the tables below are indexed by the same numbers.
struct Event {
  const char *deed, *thing, *effect;  // who did the deed to the thing made the effect happen
};
struct Script {  // a chore
  std::array<const char*, 4> steps;
};
struct Verbs {  // "x forward y" because x has `first` or y has `second`; "x backward y" the other way round
  const char *forward, *backward, *first, *second;
};
extern const std::array<const char*, 48> person_words;
extern const std::array<const char*, 32> animal_words;  // from the smallest to the biggest
extern const std::array<int, 32> animal_places;         // index of place_words
extern const std::array<const char*, 8> place_words, tree_words, flower_words;  // what grows at a place
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

// A question. `key` is what makes it another question than others: splits share none.
struct WorldItem {
  std::string context, question;  // the context may be empty
  std::vector<std::string> choices;
  int answer = 0;
  std::string key;
};

// Draws a question of entities of `cast` whose right choice stands at place `answer`.
WorldItem draw_item(Random& random, Family family, Cast cast, int answer);
int choices_of(Family family);

// Which of ten equal shares of all questions an item belongs to, by its key: 0 to last_train_tenth are of the
// train split, then one each of validation and test.
inline uint64_t tenth_of(const WorldItem& item) { return random_key(0, 0, item.key) % 10; }
inline constexpr uint64_t last_train_tenth = 7;

// One line of the pretraining text: some statements.
std::string draw_world_text(Random& random);
// The same for words under labels, then each beside its label; in the first lesson few words, each before it.
std::string draw_label_text(Random& random, bool first_lesson);

// The same for a prompt of `Cast::prompts` in the shape of a random family, with its label. No question of
// the validation and test splits is among them.
std::string draw_world_prompt(Random& random, bool same = false);

// Words of all texts, of the labels and of usual prompts, after <unk> <bos> <sep> <eos>.
Tokenizer task_tokenizer();

// Helpers of the writers.
template <class Table>
auto word(const Table& table, int i) {
  return table[static_cast<size_t>(i)];
}
// `count` distinct indices of [0, n) that belong to the cast, in random order.
std::vector<int> draw_cast(Random& random, size_t n, Cast cast, int count);
template <class Table>
const auto& pick(Random& random, const Table& table) {
  return table[random.below(static_cast<uint32_t>(table.size()))];
}
inline bool coin(Random& random) { return random.below(2) != 0; }

}  // namespace burrow::data
