// Prompts of the pretraining text, on entities that no task asks about: one in five is a question of a
// family, the others ask, in every shape, for one fact that is in the context or known.
#include <algorithm>

#include "data/sets/choices.h"
#include "data/worlds/scenes.h"
#include "data/worlds/worlds.h"
#include "tensor/check.h"

namespace burrow::data {
namespace {

// A question whose right choice is the first.
struct Lookup {
  std::string context, question;
  std::vector<std::string> choices;
};

// Several people with a thing each: asks for a person or for a thing.
Lookup draw_holder(Random& random, size_t count) {
  const std::vector<int> people =
      draw_cast(random, person_words.size(), Cast::prompts, static_cast<int>(count));
  const std::vector<int> objects =
      draw_cast(random, object_words.size(), Cast::prompts, static_cast<int>(count));
  const bool who = coin(random);
  Lookup lookup;
  std::vector<std::string> facts;
  for (size_t i = 0; i < count; ++i) {
    facts.push_back(
        fmt::format("{} has the {} .", word(person_words, people[i]), word(object_words, objects[i])));
    lookup.choices.emplace_back(who ? word(person_words, people[i]) : word(object_words, objects[i]));
  }
  random.shuffle(facts);
  lookup.context = fmt::format("{}", fmt::join(facts, " "));
  lookup.question = who ? fmt::format("who has the {} ?", word(object_words, objects[0]))
                        : fmt::format("what does {} have ?", word(person_words, people[0]));
  return lookup;
}

// Which of the choices the question names. Uses all entities, because it needs no fact of the worlds.
Lookup draw_same(Random& random, size_t count) {
  const auto make = [&](const auto& table) {
    Lookup lookup;
    lookup.choices = words_at(table, draw_cast(random, table.size(), Cast::all, static_cast<int>(count)));
    lookup.question = fmt::format("which one is {} ?", lookup.choices[0]);
    return lookup;
  };
  return coin(random) ? make(object_words) : coin(random) ? make(person_words) : make(animal_words);
}

// Which thing is made of a material; the wrong choices are of other materials.
Lookup draw_material(Random& random, size_t count) {
  const std::vector<int> objects = draw_cast(random, object_words.size(), Cast::prompts, 36);
  const int material = objects[0] / 6;
  Lookup lookup{"", fmt::format("which thing is made of {} ?", word(material_words, material)), {}};
  for (const int o : objects)
    if (lookup.choices.size() < count && (lookup.choices.empty() || o / 6 != material))
      lookup.choices.emplace_back(word(object_words, o));
  return lookup;
}

Lookup draw_home(Random& random, size_t count) {
  const int animal = draw_cast(random, animal_words.size(), Cast::prompts, 1)[0];
  const int place = word(animal_places, animal);
  Lookup lookup{
      "", fmt::format("where does the {} live ?", word(animal_words, animal)), {word(place_words, place)}};
  for (const int p : draw_distinct(random, 8, 8))
    if (lookup.choices.size() < count && p != place) lookup.choices.emplace_back(word(place_words, p));
  return lookup;
}

// The step of a chore after or before a given one.
Lookup draw_step(Random& random, size_t count) {
  const Script& script =
      world_scripts[static_cast<size_t>(draw_cast(random, world_scripts.size(), Cast::prompts, 1)[0])];
  const char* person = word(person_words, draw_cast(random, person_words.size(), Cast::prompts, 1)[0]);
  const int now = draw_below(random, 4);
  const bool next = now == 0 || (now != 3 && coin(random));
  const int right = next ? now + 1 : now - 1;
  Lookup lookup{fmt::format("{} {} .", person, word(script.steps, now)),
                fmt::format("what {} {} do {} ?", next ? "will" : "did", person, next ? "next" : "before"),
                {word(script.steps, right)}};
  for (const int other : draw_cast(random, world_scripts.size(), Cast::prompts, 4))
    if (const char* step = word(world_scripts[static_cast<size_t>(other)].steps, draw_below(random, 4));
        lookup.choices.size() < count && std::string(step) != lookup.choices[0])
      lookup.choices.emplace_back(step);
  return lookup;
}

Lookup draw_sum(Random& random, size_t count) {
  const int lowest = draw_below(random, count_words.size() - count + 1);
  const int total = lowest + draw_below(random, count);
  Lookup lookup;
  const bool plus = coin(random);
  const int other = draw_below(
      random, plus ? static_cast<size_t>(total) + 1 : count_words.size() - static_cast<size_t>(total));
  lookup.question =
      fmt::format("how many is {} {} {} ?", word(count_words, plus ? total - other : total + other),
                  plus ? "plus" : "minus", word(count_words, other));
  lookup.choices.emplace_back(word(count_words, total));
  for (int n = lowest; n < lowest + static_cast<int>(count); ++n)
    if (n != total) lookup.choices.emplace_back(word(count_words, n));
  return lookup;
}

// Who acted, or on whom.
Lookup draw_role(Random& random, size_t count) {
  const std::vector<int> people =
      draw_cast(random, person_words.size(), Cast::prompts, static_cast<int>(count));
  const Verbs& verbs =
      world_verbs[static_cast<size_t>(draw_cast(random, world_verbs.size(), Cast::prompts, 1)[0])];
  const char* verb = coin(random) ? verbs.forward : verbs.backward;
  const char* asked = word(person_words, people[0]);
  const char* other = word(person_words, people[1]);
  const bool passive = coin(random), subject = coin(random);
  const char* doer = subject ? asked : other;
  const char* done = subject ? other : asked;
  Lookup lookup{passive ? fmt::format("{} was {} by {} .", done, verb, doer)
                        : fmt::format("{} {} {} .", doer, verb, done),
                subject ? fmt::format("who {} someone ?", verb) : fmt::format("who was {} ?", verb),
                {}};
  lookup.choices = words_at(person_words, people);
  return lookup;
}

// Whether a statement is true, by a fact that is in the context or known.
WorldItem draw_truth(Random& random, bool is_true) {
  Lookup lookup;
  std::string claim;
  if (coin(random)) {
    lookup = draw_material(random, 2);
    claim = fmt::format("the {} is made of", lookup.choices[is_true ? 0 : 1]);
    claim += lookup.question.substr(lookup.question.find(" of ") + 3);
  } else {
    lookup = draw_holder(random, 2);
    const std::vector<int> drawn = draw_cast(random, object_words.size(), Cast::prompts, 2);
    const char* person = word(person_words, draw_cast(random, person_words.size(), Cast::prompts, 1)[0]);
    lookup.context = fmt::format("{} has the {} .", person, word(object_words, drawn[0]));
    claim = fmt::format("{} has the {} ?", person, word(object_words, drawn[is_true ? 0 : 1]));
  }
  return {lookup.context, "is it true that " + claim, {"false", "true"}, is_true, {}};
}

std::string prompt_text(const ChoiceItem& item) {
  std::string text;
  for (const Span& span : choice_spans(item, false)) text += span.text;
  return text;
}

}  // namespace

std::string draw_world_prompt(Random& random, bool same) {
  // Negation is drawn more often: questions of truth fit only its shape.
  const Family family = random.below(6) == 0 ? Family::negation : pick(random, families);
  const TaskShape& shape = task_shape(shape_of(family));
  const auto lookup = [&](auto writer) -> WorldItem {
    Lookup drawn = writer(random, static_cast<size_t>(choices_of(family)));
    const int answer = draw_below(random, drawn.choices.size());
    std::swap(drawn.choices[0], drawn.choices[static_cast<size_t>(answer)]);
    return {drawn.context, drawn.question, drawn.choices, answer, {}};
  };
  WorldItem item;
  if (same) {
    if (shape.choices_are_labels) return draw_world_prompt(random, same);
    item = lookup(draw_same);
  } else if (random.below(5) == 0) {  // the family's own question
    do
      item = draw_item(random, family, Cast::prompts,
                       draw_below(random, static_cast<size_t>(choices_of(family))));
    while (tenth_of(item) > last_train_tenth);
  } else if (shape.choices_are_labels) {
    item = draw_truth(random, coin(random));
  } else {
    constexpr std::array writers{draw_same, draw_material, draw_home, draw_step, draw_step,  draw_sum,
                                 draw_sum,  draw_role,     draw_role, draw_role, draw_holder};
    item = lookup(pick(random, writers));
  }
  ChoiceItem prompt{&shape, item.context, item.question, item.choices, item.answer, "", ""};
  if (shape.choices_are_labels) {  // in the order of the labels
    const std::string& right = item.choices[static_cast<size_t>(item.answer)];
    prompt.choices = shape.labels;
    prompt.answer = std::find(shape.labels.begin(), shape.labels.end(), right) - shape.labels.begin();
  }
  return prompt_text(prompt);
}

}  // namespace burrow::data
