// Draws the questions of the eight families.
#include <algorithm>

#include "data/worlds/scenes.h"
#include "data/worlds/worlds.h"
#include "tensor/check.h"

namespace burrow::data {
namespace {

// An item whose choices are `wrong` in random order, with `right` inserted at index `answer`.
WorldItem choose(Random& random, int answer, std::string context, std::string question, std::string right,
                 std::vector<std::string> wrong) {
  random.shuffle(wrong);
  WorldItem item{std::move(context), std::move(question), std::move(wrong), answer, {}};
  item.key = fmt::format("{} {} {}", item.context, item.question, right);
  item.choices.insert(item.choices.begin() + answer, std::move(right));
  return item;
}

// `count` random indices below n, without `index`.
std::vector<int> others(Random& random, int n, int index, int count) {
  std::vector<int> drawn = draw_distinct(random, n, n);
  std::erase(drawn, index);
  drawn.resize(static_cast<size_t>(count));
  return drawn;
}

std::string holdings(Random& random, const char* person, const char* held, const char* lacked) {
  return coin(random) ? fmt::format("{} has the {} but not the {} .", person, held, lacked)
                      : fmt::format("{} does not have the {} but has the {} .", person, lacked, held);
}

// True for three items in five: the easier kind of a family has one fact in the context, or one step.
bool easier(Random& random) { return random.below(5) < 3; }

// Whether a person has a thing, asked with up to two negations; the context says who has or lacks what.
WorldItem draw_negation(Random& random, Cast cast, int answer) {
  const bool plain = easier(random);
  const std::vector<int> people = draw_cast(random, person_words.size(), cast, plain ? 1 : 2);
  const std::vector<int> objects = draw_cast(random, object_words.size(), cast, 2);
  const auto object = [&](int i) { return word(object_words, objects[static_cast<size_t>(i)]); };
  int held[2];
  std::string context;
  for (size_t p = 0; p < people.size(); ++p) {
    const char* person = word(person_words, people[p]);
    held[p] = draw_below(random, 2);
    if (p > 0) context += " ";
    context += plain ? fmt::format("{} has the {} .", person, object(held[p]))
                     : holdings(random, person, object(held[p]), object(1 - held[p]));
  }
  const auto asked = static_cast<size_t>(draw_below(random, people.size()));
  const bool is_false = coin(random), lacks = coin(random);
  const bool has = (answer == 1) != (is_false != lacks);
  WorldItem item;
  item.context = context;
  item.question = fmt::format("is it {} that {} {} the {} ?", is_false ? "false" : "true",
                              word(person_words, people[asked]), lacks ? "does not have" : "has",
                              object(has ? held[asked] : 1 - held[asked]));
  item.choices = {"false", "true"};
  item.answer = answer;
  item.key = context + " " + item.question;
  return item;
}

// Compares the sizes of animals, which are known, or of three things, which the context orders.
WorldItem draw_sizes(Random& random, Cast cast, int answer) {
  const bool bigger = coin(random);
  const char* relation = bigger ? "bigger" : "smaller";
  if (coin(random)) {
    std::vector<int> a = draw_cast(random, animal_words.size(), cast, 3);
    std::sort(a.begin(), a.end());
    const int right = bigger ? a[2] : a[0], wrong = bigger ? a[0] : a[2];
    return choose(random, answer, "",
                  fmt::format("which animal is {} than the {} ?", relation, word(animal_words, a[1])),
                  word(animal_words, right), {word(animal_words, wrong)});
  }
  const std::vector<int> drawn = draw_cast(random, object_words.size(), cast, 3);  // from big to small
  const auto thing = [&](int i) { return word(object_words, drawn[static_cast<size_t>(i)]); };
  std::vector<std::string> facts{compare(random, thing(0), thing(1)), compare(random, thing(1), thing(2))};
  random.shuffle(facts);
  const std::vector<int> pair = draw_distinct(random, 3, 2);
  const int big = std::min(pair[0], pair[1]), small = std::max(pair[0], pair[1]);
  return choose(random, answer, facts[0] + " " + facts[1], fmt::format("which thing is {} ?", relation),
                thing(bigger ? big : small), {thing(bigger ? small : big)});
}

// A person's deed and its effect: asks for the effect or for the thing.
WorldItem draw_deed(Random& random, Cast cast, int answer) {
  const char* person = word(person_words, draw_cast(random, person_words.size(), cast, 1)[0]);
  const std::vector<int> events = draw_cast(random, world_events.size(), cast, 3);
  const auto event = [&](size_t i) { return world_events[static_cast<size_t>(events[i])]; };
  if (coin(random))
    return choose(random, answer, fmt::format("{} {} the {} .", person, event(0).deed, event(0).thing),
                  fmt::format("what happened because of {} ?", person), event(0).effect,
                  {event(1).effect, event(2).effect});
  return choose(random, answer, fmt::format("something {} because of {} .", event(0).effect, person),
                fmt::format("what was it that {} {} ?", person, event(0).deed), event(0).thing,
                {event(1).thing, event(2).thing});
}

// The effect of one deed; or three deeds: who caused an effect, or which effect a person caused.
WorldItem draw_agents(Random& random, Cast cast, int answer) {
  if (easier(random)) return draw_deed(random, cast, answer);
  const std::vector<int> people = draw_cast(random, person_words.size(), cast, 3);
  const std::vector<int> events = draw_cast(random, world_events.size(), cast, 3);
  std::string context;
  std::vector<std::string> names, effects;
  for (size_t i = 0; i < 3; ++i) {
    const Event& e = world_events[static_cast<size_t>(events[i])];
    names.emplace_back(word(person_words, people[i]));
    effects.emplace_back(e.effect);
    context += fmt::format("{}{} {} the {} .", i == 0 ? "" : " ", names[i], e.deed, e.thing);
  }
  const auto asked = static_cast<size_t>(draw_below(random, 3));
  const bool who = coin(random);
  const std::string question = who ? fmt::format("something {} . because of who ?", effects[asked])
                                   : fmt::format("what happened because of {} ?", names[asked]);
  std::vector<std::string>& choices = who ? names : effects;
  const std::string right = choices[asked];
  std::erase(choices, right);
  return choose(random, answer, context, question, right, choices);
}

// One or two people, each at a step of a chore: what one of them does next or did before.
WorldItem draw_continuation(Random& random, Cast cast, int answer) {
  const std::vector<int> people = draw_cast(random, person_words.size(), cast, easier(random) ? 1 : 2);
  const std::vector<int> scripts = draw_cast(random, world_scripts.size(), cast, 3);  // people's, and another
  const auto step = [&](size_t script, int at) {
    return std::string(word(world_scripts[static_cast<size_t>(scripts[script])].steps, at));
  };
  const auto asked = static_cast<size_t>(draw_below(random, people.size()));
  const int right = draw_below(random, 4);  // each step is the answer equally often
  const bool next = right == 3 || (right != 0 && coin(random));
  const int now = next ? right - 1 : right + 1;
  std::string context;
  for (size_t p = 0; p < people.size(); ++p)
    context += fmt::format("{}{} {} .", p == 0 ? "" : " ", word(person_words, people[p]),
                           step(p, p == asked ? now : draw_below(random, 4)));
  std::vector<int> elsewhere{0, 1, 2, 3};  // of the same chore
  std::erase(elsewhere, right);
  std::erase(elsewhere, now);
  return choose(random, answer, context,
                fmt::format("what {} {} do {} ?", next ? "will" : "did", word(person_words, people[asked]),
                            next ? "next" : "before"),
                step(asked, right),
                {step(asked, pick(random, elsewhere)), step(1 - asked, draw_below(random, 4)),
                 step(2, draw_below(random, 4))});
}

// Which of two animals fills a gap, by their sizes, or which of two people, by the facts of the verb.
WorldItem draw_reference(Random& random, Cast cast, int answer) {
  const bool first = coin(random), backward = coin(random);
  const auto ask = [&](const std::string& question, bool is_one, const char* one, const char* two) {
    return choose(random, answer, "", question, is_one ? one : two, {is_one ? two : one});
  };
  if (easier(random)) {
    const std::vector<int> animals = draw_cast(random, animal_words.size(), cast, 2);
    const char* big = word(animal_words, std::max(animals[0], animals[1]));
    const char* small = word(animal_words, std::min(animals[0], animals[1]));
    return ask(
        fmt::format("the {} can not {} the {} because _ is too {} .", backward ? small : big,
                    backward ? "hide" : "hide behind", backward ? big : small, first ? "big" : "small"),
        first, big, small);
  }
  const std::vector<int> people = draw_cast(random, person_words.size(), cast, 2);
  const Verbs& verbs = world_verbs[static_cast<size_t>(draw_cast(random, world_verbs.size(), cast, 1)[0])];
  const char* subject = word(person_words, people[0]);
  const char* object = word(person_words, people[1]);
  const char* verb = backward ? verbs.backward : verbs.forward;
  const std::string deed = deed_of(random, subject, verb, object);
  return ask(fmt::format("{} because _ {} .", deed, first ? verbs.first : verbs.second), first != backward,
             subject, object);
}

// One or two additions or subtractions with results up to twelve.
WorldItem draw_arithmetic(Random& random, Cast cast, int answer) {
  const char* person = word(person_words, draw_cast(random, person_words.size(), cast, 1)[0]);
  const char* fruit = pick(random, fruit_words);
  const int lowest = draw_below(random, count_words.size() - 3),
            total = lowest + draw_below(random, 4);  // the choices are lowest to lowest + 3
  const auto count = [](int n) { return word(count_words, n); };
  std::vector<int> steps;  // backwards from the total
  int held = total;
  for (int left = easier(random) ? 1 : 2; left > 0; --left) {
    const int before = others(random, static_cast<int>(count_words.size()), held, 1)[0];
    steps.insert(steps.begin(), held - before);
    held = before;
  }
  std::string context = fmt::format("{} has {} {}", person, count(held), fruit);
  for (size_t i = 0; i < steps.size(); ++i) {
    const bool gets = steps[i] > 0;
    context += fmt::format(" {} {} {}{}", i == 0 ? "and" : "and then", gets ? "gets" : "loses",
                           count(std::abs(steps[i])), gets ? " more" : "");
  }
  std::vector<std::string> wrong;
  for (int n = lowest; n < lowest + 4; ++n)
    if (n != total) wrong.emplace_back(count(n));
  return choose(random, answer, context + " .", fmt::format("how many {} does {} have now ?", fruit, person),
                count(total), wrong);
}

// What grows where an animal lives, or what lives where a plant grows: combines a fact of each.
WorldItem draw_shared_place(Random& random, int answer, int place, const char* animal,
                            const std::vector<int>& strangers) {
  const std::vector<int> elsewhere = others(random, 8, place, 3);
  const bool tree = coin(random);
  const char* verb = tree ? "grows" : "blooms";
  const auto& plants = tree ? tree_words : flower_words;
  if (coin(random))
    return choose(random, answer, "", fmt::format("what {} where the {} lives ?", verb, animal),
                  word(plants, place), words_at(plants, elsewhere));
  return choose(random, answer, "", fmt::format("what lives where the {} {} ?", word(plants, place), verb),
                animal, words_at(animal_words, strangers));
}

// Where a person's animal lives, or a question of draw_shared_place.
WorldItem draw_two_hop(Random& random, Cast cast, int answer) {
  std::vector<int> animals;  // one that lives at `place`, then three of other places
  int place = 0;
  while (animals.empty()) {  // not every place has an animal of every cast
    place = draw_below(random, 8);
    std::vector<int> strangers;
    for (const int a : draw_cast(random, animal_words.size(), cast, 32))
      (animal_places[static_cast<size_t>(a)] == place ? animals : strangers).push_back(a);
    animals.resize(std::min<size_t>(animals.size(), 1));
    if (!animals.empty()) animals.insert(animals.end(), strangers.begin(), strangers.begin() + 3);
  }
  const char* animal = word(animal_words, animals[0]);
  if (!easier(random))
    return draw_shared_place(random, answer, place, animal, {animals.begin() + 1, animals.end()});
  const std::vector<int> people = draw_cast(random, person_words.size(), cast, 2);
  const int other_place = animal_places[static_cast<size_t>(animals[1])];
  std::vector<int> wrong = others(random, 8, place, 7);
  std::erase(wrong, other_place);
  wrong.resize(2);
  wrong.push_back(other_place);  // the place of the other person's animal
  std::vector<std::string> facts{fmt::format("{} keeps the {} .", word(person_words, people[0]), animal)};
  if (coin(random))
    facts.push_back(
        fmt::format("{} keeps the {} .", word(person_words, people[1]), word(animal_words, animals[1])));
  random.shuffle(facts);
  return choose(random, answer, fmt::format("{}", fmt::join(facts, " ")),
                fmt::format("where does the animal of {} live ?", word(person_words, people[0])),
                word(place_words, place), words_at(place_words, wrong));
}

// Which of four things a rule on a material applies to. The rule names the material, or a thing made of it.
WorldItem draw_rules(Random& random, Cast cast, int answer) {
  const std::vector<int> materials = draw_distinct(random, 6, 4);
  const std::vector<int> objects = draw_cast(random, object_words.size(), cast, 36);
  const auto things = [&](int material, size_t skip) {  // thing number `skip` of that material
    for (const int o : objects)
      if (o / 6 == material && skip-- == 0) return word(object_words, o);
    fail("[make] too few things of {}", word(material_words, material));
  };
  const std::vector<int> abilities = draw_distinct(random, static_cast<int>(ability_words.size()), 2);
  const bool by_example = !easier(random), alone = coin(random);
  std::vector<std::string> rules;
  for (size_t i = 0; i < (alone ? 1 : 2); ++i)
    rules.push_back(by_example ? fmt::format("things like the {} can {} .", things(materials[i], 1),
                                             word(ability_words, abilities[i]))
                               : fmt::format("{} things can {} .", word(material_words, materials[i]),
                                             word(ability_words, abilities[i])));
  random.shuffle(rules);
  return choose(random, answer, fmt::format("{}", fmt::join(rules, " ")),
                fmt::format("which thing can {} ?", word(ability_words, abilities[0])),
                things(materials[0], 0),
                {things(materials[1], 0), things(materials[2], 0), things(materials[3], 0)});
}

}  // namespace

WorldItem draw_item(Random& random, Family family, Cast cast, int answer) {
  BURROW_CHECK(answer >= 0 && answer < choices_of(family), "[make] {} has no choice {}", name_of(family),
               answer);
  constexpr std::array draw{draw_negation,  draw_sizes,      draw_agents,  draw_continuation,
                            draw_reference, draw_arithmetic, draw_two_hop, draw_rules};  // by family
  return draw[static_cast<size_t>(family)](random, cast, answer);
}

}  // namespace burrow::data
