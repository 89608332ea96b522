#pragma once
// A small integer canvas for generated images: stamps of 7 x 7 masks, 5 x 7 letters, noise.
#include <array>

#include "data/images/image.h"
#include "data/worlds/scenes.h"
#include "tensor/rng.h"

namespace burrow::data {

using Color = std::array<int, 3>;

class Canvas {
 public:
  explicit Canvas(const Color& fill);
  // Adds to one pixel, without clamping.
  void add(int y, int x, const Color& color);
  // Overwrites one pixel.
  void set(int y, int x, const Color& color);
  // Colours the pixels of the 7 x 7 square at (y, x) where inside(dy, dx) holds, dy and dx from -3 to 3.
  template <class Inside>
  void stamp(int y, int x, const Color& color, Inside inside) {
    for (int dy = -3; dy <= 3; ++dy)
      for (int dx = -3; dx <= 3; ++dx)
        if (inside(dy, dx)) set(y + 3 + dy, x + 3 + dx, color);
  }
  // A letter A to H, a digit or a colon, 5 wide and 7 tall, with its top left at (y, x).
  void letter(int y, int x, char c, const Color& color);
  // Adds noise of standard deviation `sigma`: the sum of four uniform bytes, close to a normal and integer.
  // `grey`: the same noise in all three channels.
  void noise(Random& random, int sigma, bool grey);
  Image image() const;  // clamped to 0..255

 private:
  std::array<int, scene_size * scene_size * 3> values_;
};

}  // namespace burrow::data
