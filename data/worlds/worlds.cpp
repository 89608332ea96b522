// The fixed facts of the worlds, and their vocabulary.
#include "data/worlds/worlds.h"

#include <algorithm>
#include <set>
#include <sstream>

#include "data/sets/choices.h"
#include "data/worlds/scenes.h"

namespace burrow::data {

const std::array<const char*, 48> person_words{
    "Anna", "Ben",  "Adam", "Carl", "Dora", "Beth", "Emil", "Fay",  "Cody",  "Gus",  "Hana", "Dina",
    "Ivan", "Jane", "Eli",  "Kurt", "Lena", "Glen", "Max",  "Nora", "Hope",  "Otto", "Pia",  "Ian",
    "Quin", "Rosa", "Judy", "Sam",  "Tess", "Kim",  "Umar", "Vera", "Leo",   "Will", "Zoe",  "Mia",
    "Ned",  "Olga", "Paul", "Rita", "Seth", "Tina", "Uma",  "Vic",  "Wendy", "Yara", "Zack", "Flora"};

const std::array<const char*, 32> animal_words{
    "ant",  "bee", "snail", "frog",  "mouse", "rat",   "crow",    "duck",  "hen",      "owl",  "rabbit",
    "cat",  "fox", "goose", "dog",   "goat",  "sheep", "wolf",    "pig",   "deer",     "seal", "lion",
    "bear", "cow", "horse", "moose", "camel", "bison", "giraffe", "rhino", "elephant", "whale"};
const std::array<const char*, 8> place_words{"meadow",   "river",   "farm",  "forest",
                                             "mountain", "village", "plain", "coast"};
const std::array<int, 32> animal_places{0, 0, 7, 1, 5, 5, 5, 1, 2, 3, 0, 5, 3, 7, 5, 4,
                                        0, 3, 2, 3, 7, 6, 4, 2, 2, 1, 6, 4, 6, 6, 6, 7};
const std::array<const char*, 8> tree_words{"oak",   "willow", "elm",  "pine",
                                            "cedar", "maple",  "palm", "birch"};
const std::array<const char*, 8> flower_words{"clover", "iris",  "tulip", "violet",
                                              "lily",   "daisy", "poppy", "rose"};

const std::array<const char*, 6> material_words{"metal", "wood", "glass", "cloth", "paper", "clay"};
const std::array<const char*, 36> object_words{
    "nail",   "coin",    "bell",   "key",    "spoon",  "pan",    "table",  "door",   "fence",
    "pencil", "ladder",  "box",    "bottle", "window", "vase",   "mirror", "lens",   "jar",
    "shirt",  "curtain", "sock",   "towel",  "flag",   "scarf",  "book",   "letter", "card",
    "map",    "ticket",  "poster", "brick",  "pot",    "statue", "plate",  "tile",   "cup"};
const std::array<const char*, 12> ability_words{"float", "burn", "shine", "sink",    "melt",   "bend",
                                                "ring",  "glow", "crack", "stretch", "shrink", "bounce"};
const std::array<const char*, 6> fruit_words{"apples", "pears", "plums", "nuts", "shells", "beads"};
const std::array<const char*, 13> count_words{"zero",  "one",   "two",  "three", "four",   "five",  "six",
                                              "seven", "eight", "nine", "ten",   "eleven", "twelve"};

const std::array<Event, 24> world_events{{
    {"dropped", "glass", "shattered"}, {"watered", "plant", "grew"},    {"struck", "drum", "boomed"},
    {"heated", "ice", "melted"},       {"lit", "candle", "burned"},     {"praised", "girl", "smiled"},
    {"kicked", "ball", "rolled"},      {"spun", "wheel", "turned"},     {"baked", "dough", "rose"},
    {"woke", "baby", "cried"},         {"fed", "puppy", "slept"},       {"tickled", "boy", "laughed"},
    {"scared", "kitten", "hid"},       {"pulled", "rope", "snapped"},   {"planted", "bulb", "bloomed"},
    {"pricked", "balloon", "popped"},  {"cooled", "water", "froze"},    {"pushed", "swing", "swung"},
    {"threw", "stone", "fell"},        {"washed", "sweater", "shrank"}, {"shook", "soda", "foamed"},
    {"opened", "cage", "emptied"},     {"started", "engine", "roared"}, {"sank", "boat", "vanished"},
}};

const std::array<Script, 15> world_scripts{{
    {{"fills kettle", "boils water", "pours tea", "drinks tea"}},
    {{"mixes flour", "kneads dough", "heats oven", "eats bread"}},
    {{"peels carrots", "cuts onions", "stirs soup", "serves soup"}},
    {{"takes pen", "writes letter", "seals envelope", "mails letter"}},
    {{"digs hole", "plants seed", "waters soil", "picks flower"}},
    {{"packs suitcase", "locks door", "rides train", "finds hotel"}},
    {{"gathers clothes", "starts washer", "hangs clothes", "folds clothes"}},
    {{"pumps tire", "wears helmet", "rides bike", "parks bike"}},
    {{"tunes guitar", "reads notes", "plays song", "takes bow"}},
    {{"opens paint", "wets brush", "paints wall", "cleans brush"}},
    {{"chops wood", "stacks logs", "lights match", "warms hands"}},
    {{"buys ticket", "finds seat", "watches movie", "leaves hall"}},
    {{"baits hook", "casts line", "pulls rod", "cooks fish"}},
    {{"brushes teeth", "wears pajamas", "reads story", "closes eyes"}},
    {{"charges camera", "finds view", "shoots picture", "prints picture"}},
}};

const std::array<Verbs, 9> world_verbs{{
    {"taught", "asked", "knew more", "knew less"},
    {"carried", "needed", "was strong", "was weak"},
    {"fed", "begged", "had food", "was hungry"},
    {"chased", "feared", "was angry", "was scared"},
    {"defeated", "admired", "trained more", "trained less"},
    {"comforted", "called", "was calm", "was sad"},
    {"paid", "robbed", "was rich", "was poor"},
    {"awaited", "joined", "was early", "was late"},
    {"healed", "consulted", "was well", "was sick"},
}};

const char* shape_of(Family family) {
  constexpr std::array shapes{"boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc", "arc", "obqa"};
  return shapes[static_cast<size_t>(family)];
}

int choices_of(Family family) {
  constexpr std::array counts{2, 2, 3, 4, 2, 4, 4, 4};
  return counts[static_cast<size_t>(family)];
}

std::vector<int> draw_cast(Random& random, size_t n, Cast cast, int count) {
  std::vector<int> drawn;
  for (const int i : draw_distinct(random, static_cast<int>(n), static_cast<int>(n))) {
    if (static_cast<int>(drawn.size()) == count) break;
    if (cast == Cast::all || (i % 3 == 2) == (cast == Cast::prompts)) drawn.push_back(i);
  }
  return drawn;
}

std::string compare(Random& random, const char* big, const char* small) {
  return coin(random) ? fmt::format("the {} is bigger than the {} .", big, small)
                      : fmt::format("the {} is smaller than the {} .", small, big);
}

std::string deed_of(Random& random, const char* subject, const char* verb, const char* object) {
  return coin(random) ? fmt::format("{} was {} by {}", object, verb, subject)
                      : fmt::format("{} {} {}", subject, verb, object);
}

namespace {

// Words and punctuation of the sentences of worlds_items.cpp and worlds_text.cpp, then of prompts.
// Punctuation is listed alone and attached to words, because templates use either.
constexpr const char* sentence_words =
    ". , ? : ; ! _ ' - the a an is are was it not does do did has have but and or of in on to than that this "
    "then so because by who what where which how many more most now next before after true false yes no "
    "bigger smaller animal thing things can like made plus minus gets loses give takes lives live grows grow "
    "blooms keeps something someone happened hide behind too big small cause caused all only both with will "
    "would just kind same as lacks";
constexpr const char* prompt_words =
    "A B C D E 1 2 3 4 5 ( ) (A) (B) (C) (D) (E) (1) (2) (3) (4) (5) A: B: C: D: E: A. B. C. D. E. Question "
    "Answer Choose Options Choices Context Passage Sentence Goal Fact Instruction Response User Assistant "
    "Question: Answer: Options: Choices: Context: Passage: Sentence: Goal: Fact: Instruction: Response: "
    "USER: ASSISTANT: Please choose the correct answer to question based on options below from following "
    "best right please given for each one option choice sentence text fact goal story blank fill continue "
    "complete select pick solution ending statement reply letter only your you";

}  // namespace

Tokenizer task_tokenizer() {
  std::vector<std::string> words;
  std::set<std::string> known;
  const auto add = [&](const std::string& text) {
    std::istringstream in(text);
    for (std::string word; in >> word;)
      if (known.insert(word).second) words.push_back(word);
  };
  const auto add_all = [&](const auto&... tables) {
    (std::for_each(tables.begin(), tables.end(), add), ...);
  };
  add(sentence_words);
  add_all(person_words, animal_words, place_words, tree_words, flower_words, material_words, object_words,
          ability_words, fruit_words, count_words);
  for (const Event& e : world_events)
    for (const char* word : {e.deed, e.thing, e.effect}) add(word);
  for (const Script& s : world_scripts) add_all(s.steps);
  for (const Verbs& v : world_verbs)
    for (const char* text : {v.forward, v.backward, v.first, v.second}) add(text);
  add(prompt_words);
  for (const std::string& word : template_words()) add(word);
  return Tokenizer::of({"<unk>", "<bos>", "<sep>", "<eos>"}, words);
}

}  // namespace burrow::data
