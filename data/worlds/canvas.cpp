#include "data/worlds/canvas.h"

#include <algorithm>

#include "tensor/check.h"

namespace burrow::data {
namespace {

struct Letter {
  char name;
  std::array<const char*, 7> rows;
};

// A 5 x 7 font.
constexpr Letter font[] = {
    {'A', {".###.", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"}},
    {'B', {"####.", "#...#", "#...#", "####.", "#...#", "#...#", "####."}},
    {'C', {".####", "#....", "#....", "#....", "#....", "#....", ".####"}},
    {'D', {"####.", "#...#", "#...#", "#...#", "#...#", "#...#", "####."}},
    {'E', {"#####", "#....", "#....", "####.", "#....", "#....", "#####"}},
    {'F', {"#####", "#....", "#....", "####.", "#....", "#....", "#...."}},
    {'G', {".####", "#....", "#....", "#..##", "#...#", "#...#", ".###."}},
    {'H', {"#...#", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"}},
    {'0', {".###.", "#...#", "#..##", "#.#.#", "##..#", "#...#", ".###."}},
    {'1', {"..#..", ".##..", "..#..", "..#..", "..#..", "..#..", ".###."}},
    {'2', {".###.", "#...#", "....#", "..##.", ".#...", "#....", "#####"}},
    {'3', {"####.", "....#", "....#", ".###.", "....#", "....#", "####."}},
    {'4', {"...#.", "..##.", ".#.#.", "#..#.", "#####", "...#.", "...#."}},
    {'5', {"#####", "#....", "####.", "....#", "....#", "#...#", ".###."}},
    {'6', {"..##.", ".#...", "#....", "####.", "#...#", "#...#", ".###."}},
    {'7', {"#####", "....#", "...#.", "..#..", ".#...", ".#...", ".#..."}},
    {'8', {".###.", "#...#", "#...#", ".###.", "#...#", "#...#", ".###."}},
    {'9', {".###.", "#...#", "#...#", ".####", "....#", "...#.", ".##.."}},
    {':', {".....", "..#..", ".....", ".....", ".....", "..#..", "....."}},
};

}  // namespace

Canvas::Canvas(const Color& fill) {
  for (size_t i = 0; i < values_.size(); ++i) values_[i] = fill[i % 3];
}

void Canvas::set(int y, int x, const Color& color) {
  std::copy(color.begin(), color.end(), values_.begin() + (y * scene_size + x) * 3);
}

void Canvas::add(int y, int x, const Color& color) {
  for (int c = 0; c < 3; ++c)
    values_[static_cast<size_t>((y * scene_size + x) * 3 + c)] += color[static_cast<size_t>(c)];
}

void Canvas::letter(int y, int x, char c, const Color& color) {
  const auto* found =
      std::find_if(std::begin(font), std::end(font), [&](const Letter& l) { return l.name == c; });
  BURROW_CHECK(found != std::end(font), "[canvas] no letter '{}' in the font", c);
  for (int dy = 0; dy < 7; ++dy)
    for (int dx = 0; dx < 5; ++dx)
      if (found->rows[static_cast<size_t>(dy)][dx] == '#') set(y + dy, x + dx, color);
}

void Canvas::noise(Random& random, int sigma, bool grey) {
  for (size_t i = 0; i < values_.size(); i += 3) {
    int offset = 0;
    for (size_t c = 0; c < 3; ++c) {
      if (c == 0 || !grey) {
        const uint32_t b = random.bits();
        const int sum = static_cast<int>((b & 255) + (b >> 8 & 255) + (b >> 16 & 255) + (b >> 24));
        const int scaled = (sum - 510) * sigma * 10;  // the sum has mean 510 and standard deviation 147.8
        offset = (scaled + (scaled > 0 ? 739 : -739)) / 1478;
      }
      values_[i + c] += offset;
    }
  }
}

Image Canvas::image() const {
  Image image{scene_size, scene_size, std::vector<uint8_t>(values_.size())};
  for (size_t i = 0; i < values_.size(); ++i)
    image.rgb[i] = static_cast<uint8_t>(std::clamp(values_[i], 0, 255));
  return image;
}

}  // namespace burrow::data
