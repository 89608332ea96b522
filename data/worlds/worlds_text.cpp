// The pretraining text: facts of the worlds, stories in them, and words under labels.
#include <cstdlib>

#include "data/worlds/scenes.h"
#include "data/worlds/worlds.h"
#include "tensor/check.h"

namespace burrow::data {
namespace {

const char* draw_person(Random& random) { return pick(random, person_words); }

std::string size_fact(Random& random) {
  const int n = static_cast<int>(animal_words.size());
  const int small = draw_below(random, animal_words.size() - 1);
  const int big = small + 1 + draw_below(random, static_cast<size_t>(std::min(8, n - 1 - small)));
  return compare(random, word(animal_words, big), word(animal_words, small));
}

std::string size_story(Random& random) {
  const std::vector<int> o = draw_cast(random, object_words.size(), Cast::all, 3);
  const auto thing = [&](size_t i) { return word(object_words, o[i]); };
  return coin(random) ? fmt::format(
                            "the {0} is bigger than the {1} . the {1} is bigger than the {2} . so the {0} is "
                            "bigger than the {2} .",
                            thing(0), thing(1), thing(2))
                      : fmt::format(
                            "the {0} is smaller than the {1} . the {1} is smaller than the {2} . so the {0} "
                            "is smaller than the {2} .",
                            thing(0), thing(1), thing(2));
}

std::string event_fact(Random& random) {
  const Event& e = pick(random, world_events);
  const char* person = draw_person(random);
  return coin(random)
             ? fmt::format("{0} {1} the {2} . so the {2} {3} .", person, e.deed, e.thing, e.effect)
             : fmt::format("the {2} {3} because {0} {1} the {2} .", person, e.deed, e.thing, e.effect);
}

// Two or three people act; then the effect of one deed and who caused it.
std::string event_story(Random& random) {
  const std::vector<int> people = draw_cast(random, person_words.size(), Cast::all, 3);
  const std::vector<int> events = draw_cast(random, world_events.size(), Cast::all, 3);
  const size_t count = 2 + random.below(2), asked = random.below(static_cast<uint32_t>(count));
  std::string text;
  const auto event = [&](size_t i) { return world_events[static_cast<size_t>(events[i])]; };
  for (size_t i = 0; i < count; ++i)
    text += fmt::format("{} {} the {} . ", word(person_words, people[i]), event(i).deed, event(i).thing);
  return coin(random) ? fmt::format("{}because of {} the {} {} .", text, word(person_words, people[asked]),
                                    event(asked).thing, event(asked).effect)
                      : fmt::format("{}the {} {} because of {} .", text, event(asked).thing,
                                    event(asked).effect, word(person_words, people[asked]));
}

// A chore from a random step to its end by one person, or two chores by two people in turn.
std::string script_story(Random& random) {
  const std::vector<int> people = draw_cast(random, person_words.size(), Cast::all, 2);
  const std::vector<int> scripts = draw_cast(random, world_scripts.size(), Cast::all, 2);
  const size_t turns = 1 + random.below(2);
  std::string text;
  for (size_t at = random.below(3); at < 4; ++at)
    for (size_t p = 0; p < turns; ++p)
      text += fmt::format("{}{} {} .", text.empty() ? "" : " ", word(person_words, people[p]),
                          world_scripts[static_cast<size_t>(scripts[p])].steps[at]);
  return text;
}

std::string verb_fact(Random& random) {
  const Verbs& verbs = pick(random, world_verbs);
  const std::vector<int> people = draw_cast(random, person_words.size(), Cast::all, 2);
  const bool backward = coin(random), first = coin(random);
  const char* subject = word(person_words, people[0]);
  const char* object = word(person_words, people[1]);
  const char* verb = backward ? verbs.backward : verbs.forward;
  const std::string deed = deed_of(random, subject, verb, object);
  return fmt::format("{} because {} {} .", deed, first != backward ? subject : object,
                     first ? verbs.first : verbs.second);
}

std::string sum_fact(Random& random) {
  const int total = draw_below(random, count_words.size()),
            part = draw_below(random, static_cast<size_t>(total + 1));
  const char* a = word(count_words, part);
  const char* b = word(count_words, total - part);
  const char* c = word(count_words, total);
  if (coin(random))
    return coin(random) ? fmt::format("{} plus {} is {} .", a, b, c)
                        : fmt::format("{} minus {} is {} .", c, a, b);
  const char* person = draw_person(random);
  const char* fruit = pick(random, fruit_words);
  return coin(random)
             ? fmt::format("{0} has {1} {4} and gets {2} more . now {0} has {3} {4} .", person, a, b, c,
                           fruit)
             : fmt::format("{0} has {3} {4} and loses {1} . now {0} has {2} {4} .", person, a, b, c, fruit);
}

std::string place_fact(Random& random) {
  const int place = draw_below(random, 8);
  const uint32_t kind = random.below(4);
  if (kind == 0)
    return fmt::format("the {} grows in the {} .", word(tree_words, place), word(place_words, place));
  if (kind == 1)
    return fmt::format("the {} blooms in the {} .", word(flower_words, place), word(place_words, place));
  const int animal = draw_below(random, animal_words.size());
  return fmt::format("the {} lives in the {} .", word(animal_words, animal),
                     word(place_words, word(animal_places, animal)));
}

std::string material_fact(Random& random) {
  const int object = draw_below(random, object_words.size());
  const int other = object / 6 * 6 + draw_below(random, 6);
  const char* material = word(material_words, object / 6);
  return coin(random) || other == object
             ? fmt::format("the {} is made of {} .", word(object_words, object), material)
             : fmt::format("the {} and the {} are both {} things .", word(object_words, object),
                           word(object_words, other), material);
}

std::string rule_story(Random& random) {
  const int object = draw_below(random, object_words.size());
  return fmt::format("{0} things can {1} . so the {2} can {1} .", word(material_words, object / 6),
                     pick(random, ability_words), word(object_words, object));
}

// Who has and lacks what, then questions on it with their answers.
std::string holding_story(Random& random) {
  const int count = 2 + draw_below(random, 2);
  const std::vector<int> people = draw_cast(random, person_words.size(), Cast::all, count);
  const std::vector<int> objects = draw_cast(random, object_words.size(), Cast::all, count);
  std::vector<std::string> again;
  std::string text;
  for (size_t i = 0; i < people.size(); ++i) {
    const char* person = word(person_words, people[i]);
    const char* held = word(object_words, objects[i]);
    const char* lacked = word(object_words, objects[(i + 1) % objects.size()]);
    const uint32_t form = random.below(3);
    text += form == 0   ? fmt::format("{} has the {} . ", person, held)
            : form == 1 ? fmt::format("{} has the {} but not the {} . ", person, held, lacked)
                        : fmt::format("{} does not have the {} but has the {} . ", person, lacked, held);
    again.push_back(coin(random) ? fmt::format("who has the {} ? {} .", held, person)
                                 : fmt::format("what does {} have ? the {} .", person, held));
  }
  random.shuffle(again);
  return text + fmt::format("{}", fmt::join(again, " "));
}

// Words under labels, then each with its label.
std::string list_of(Random& random, const std::vector<std::string>& words, bool digits, const char* between,
                    bool label_first) {
  std::string text;
  std::vector<std::string> pairs;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string label(1, static_cast<char>((digits ? '1' : 'A') + static_cast<char>(i)));
    text += fmt::format("({}) {} ", label, words[i]);
    pairs.push_back(label_first && coin(random) ? label + between + words[i] : words[i] + between + label);
  }
  random.shuffle(pairs);
  return fmt::format("{}: {} .", text, fmt::join(pairs, " "));
}

template <class Table>
std::vector<std::string> draw_words(Random& random, const Table& table, int count) {
  return words_at(table, draw_distinct(random, static_cast<int>(table.size()), count));
}

std::vector<std::string> draw_steps(Random& random, int count) {
  std::vector<std::string> steps;
  for (const int i : draw_cast(random, world_scripts.size(), Cast::all, count))
    steps.emplace_back(pick(random, world_scripts[static_cast<size_t>(i)].steps));
  return steps;
}

// Words of one kind.
std::vector<std::string> draw_kind(Random& random, int count) {
  const uint32_t kind = random.below(6);
  if (kind == 0) return draw_words(random, person_words, count);
  if (kind == 1) return draw_words(random, animal_words, count);
  if (kind == 2) return draw_words(random, count_words, count);
  if (kind == 4) return draw_steps(random, count);
  if (kind == 5) return draw_words(random, object_words, count);
  if (coin(random)) return draw_words(random, place_words, count);
  return draw_words(random, coin(random) ? tree_words : flower_words, count);
}

std::string label_list(Random& random) {
  const bool digits = random.below(5) == 0;
  const int count = digits ? 2 : 2 + draw_below(random, 3);
  return list_of(random, draw_kind(random, count), digits, coin(random) ? " is " : " ", random.below(4) == 0);
}

std::string statement(Random& random) {
  constexpr std::array writers{size_fact,     size_story, event_fact,    event_story,   script_story,
                               script_story,  verb_fact,  verb_fact,     sum_fact,      sum_fact,
                               sum_fact,      place_fact, place_fact,    place_fact,    material_fact,
                               material_fact, rule_story, holding_story, holding_story, holding_story};
  return pick(random, writers)(random);
}

}  // namespace

std::string draw_label_text(Random& random, bool first_lesson) {
  if (!first_lesson) return label_list(random);
  const bool digits = random.below(5) == 0;
  const int count = digits ? 2 : 2 + draw_below(random, 3);
  return list_of(random, draw_words(random, object_words, count), digits, " ", false);
}

std::string draw_world_text(Random& random) {
  std::string text = statement(random);
  while (text.size() < 90) text += " " + statement(random);
  return text;
}

}  // namespace burrow::data
