// General scenes: coloured shapes on a grid. Questions on colour, shape, count, place and comparison; the
// knowledge is a catalogue code for each coloured shape.
#include <algorithm>
#include <cstdlib>

#include "data/worlds/canvas.h"
#include "data/worlds/scenes.h"
#include "tensor/check.h"

namespace burrow::data {
namespace {

constexpr std::array<Color, 6> color_values{
    {{220, 40, 40}, {40, 190, 60}, {50, 70, 230}, {235, 220, 50}, {240, 240, 240}, {160, 50, 190}}};

bool inside_shape(int shape, int y, int x) {
  if (shape == 0) return 2 * (y * y + x * x) <= 19;  // circle
  if (shape == 1) return true;                       // square
  if (shape == 2) return 2 * std::abs(x) <= y + 3;   // triangle
  return std::abs(x) <= 1 || std::abs(y) <= 1;       // cross
}

const char* color(int i) { return color_words[static_cast<size_t>(i)]; }
const char* shape(int i) { return shape_words[static_cast<size_t>(i)]; }

using Object = GeneralScene::Object;

int count(const GeneralScene& scene, int Object::*attribute, int value) {
  return static_cast<int>(std::count_if(scene.objects.begin(), scene.objects.end(),
                                        [&](const Object& o) { return o.*attribute == value; }));
}

// Draws one of the objects that share the attribute's value with no other object; null when there is none.
const Object* draw_unique(Random& random, const GeneralScene& scene, int Object::*attribute) {
  std::vector<const Object*> unique;
  for (const Object& o : scene.objects)
    if (count(scene, attribute, o.*attribute) == 1) unique.push_back(&o);
  return unique.empty() ? nullptr : unique[static_cast<size_t>(draw_below(random, unique.size()))];
}

std::optional<Question> ask_more(Random& random, const GeneralScene& scene, const Object& a,
                                 const Object& b) {
  int first = a.color, second = chance(random, 50) ? draw_below(random, color_words.size()) : b.color;
  if (chance(random, 50)) std::swap(first, second);
  const int more = count(scene, &Object::color, first), less = count(scene, &Object::color, second);
  if (more == less) return std::nullopt;
  return Question{"more", fmt::format("is there more {} than {}", color(first), color(second)),
                  yes_no(more > less)};
}

}  // namespace

GeneralScene draw_general(Random& random, Image& image) {
  const int ground = draw_below(random, 60);
  Canvas canvas({ground, ground, ground});
  std::vector<int> places = draw_distinct(random, 16, 3 + draw_below(random, 3));
  std::sort(places.begin(), places.end());
  const int favourite = draw_below(random, color_words.size());  // repeated colours make counting non-trivial
  GeneralScene scene;
  for (const int place : places) {
    Object o{place / 4, place % 4, 0, 0};
    const auto taken = [&] {
      return std::any_of(scene.objects.begin(), scene.objects.end(),
                         [&](const Object& p) { return p.color == o.color && p.shape == o.shape; });
    };
    do {
      o.color = chance(random, 35) ? favourite : draw_below(random, color_words.size());
      o.shape = draw_below(random, shape_words.size());
    } while (taken());
    scene.objects.push_back(o);
    const int y = o.row * 8 + draw_below(random, 2), x = o.column * 8 + draw_below(random, 2);
    canvas.stamp(y, x, color_values[static_cast<size_t>(o.color)],
                 [&](int dy, int dx) { return inside_shape(o.shape, dy, dx); });
  }
  canvas.noise(random, 8, false);
  image = canvas.image();
  return scene;
}

std::optional<Question> ask(Random& random, const GeneralScene& scene, const Codes& codes,
                            int knowledge_percent) {
  const bool knowledge = chance(random, knowledge_percent);
  const int kind = draw_below(random, 5);
  if (knowledge || kind == 0) {
    const Object* o = draw_unique(random, scene, &Object::shape);
    if (o == nullptr) return std::nullopt;
    if (knowledge)
      return Question{"code", fmt::format("what is the {} value", shape(o->shape)),
                      codes[static_cast<size_t>(o->color * 4 + o->shape)]};
    return Question{"color", fmt::format("what color is the {}", shape(o->shape)), color(o->color)};
  }
  if (kind == 1) {
    const Object* o = draw_unique(random, scene, &Object::color);
    if (o == nullptr) return std::nullopt;
    return Question{"shape", fmt::format("what shape is the {} object", color(o->color)), shape(o->shape)};
  }
  if (kind == 2) {
    const Object& o = scene.objects[static_cast<size_t>(draw_below(random, scene.objects.size()))];
    const int asked = chance(random, 70) ? o.color : draw_below(random, color_words.size());
    return Question{"count", fmt::format("how many {} object", color(asked)),
                    number_words[static_cast<size_t>(count(scene, &Object::color, asked))]};
  }
  const std::vector<int> pair = draw_distinct(random, static_cast<int>(scene.objects.size()), 2);
  const Object& a = scene.objects[static_cast<size_t>(pair[0])];
  const Object& b = scene.objects[static_cast<size_t>(pair[1])];
  if (kind == 4) return ask_more(random, scene, a, b);
  return Question{"quadrant", fmt::format("where is the {} {}", color(a.color), shape(a.shape)),
                  fmt::format("{} {}", a.row < 2 ? "top" : "bottom", a.column < 2 ? "left" : "right")};
}

Question describe(Random& random, const GeneralScene& scene) {
  const int kind = draw_below(random, 100);
  const auto name = [](const Object& o) { return fmt::format("{} {}", color(o.color), shape(o.shape)); };
  if (kind < 15) {
    std::string all = "scene";
    for (const Object& o : scene.objects) all += fmt::format(" {}", name(o));
    return {"general.caption", "describe", all};
  }
  const Object& o = scene.objects[static_cast<size_t>(draw_below(random, scene.objects.size()))];
  if (kind < 25) return describe_at(random, "general", scene.objects, o, name);
  if (kind < 50) return {"general.locate", fmt::format("locate {}", name(o)), grid_place(o.row, o.column)};
  const bool by_color = chance(random, 50);
  int Object::*attribute = by_color ? &Object::color : &Object::shape;
  const auto word = [&](int value) { return by_color ? color(value) : shape(value); };
  if (kind < 80) {  // the first in reading order
    const auto first = std::find_if(scene.objects.begin(), scene.objects.end(),
                                    [&](const Object& p) { return p.*attribute == o.*attribute; });
    return {"general.describe_by", fmt::format("describe {}", word(o.*attribute)), name(*first)};
  }
  const int asked = chance(random, 50)
                        ? o.*attribute
                        : draw_below(random, by_color ? color_words.size() : shape_words.size());
  const int found = count(scene, attribute, asked);
  if (kind < 92) return {"general.count", fmt::format("count {}", word(asked)), std::to_string(found)};
  return {"general.present", fmt::format("present {}", word(asked)), yes_no(found > 0)};
}

}  // namespace burrow::data
