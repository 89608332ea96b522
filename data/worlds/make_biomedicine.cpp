// Biomedicine: cells of four types on three tissues. Questions on presence, grade, tissue, the dominant cell
// and a rule for malignancy; the knowledge is a diagnosis code for tissue, dominant cell and abundance.
#include <algorithm>
#include <cstdlib>

#include "data/worlds/canvas.h"
#include "data/worlds/scenes.h"
#include "tensor/check.h"

namespace burrow::data {
namespace {

using Cell = BiomedicineSlide::Cell;
enum CellType { lymphocyte, epithelial, mitotic, eosinophil };

const char* cell(int type) { return cell_words[static_cast<size_t>(type)]; }

void draw_tissue(Random& random, Canvas& canvas, int tissue) {
  if (tissue == 1) return;  // mucosa is plain
  const int a = draw_below(random, tissue == 0 ? 6 : 8), b = tissue == 0 ? 0 : draw_below(random, 8);
  for (int y = 0; y < scene_size; ++y)
    for (int x = 0; x < scene_size; ++x) {
      if (tissue == 0) {  // stroma: diagonal fibres
        if ((y + x + a) % 6 < 2) canvas.add(y, x, {-15, -70, -40});
      } else {  // fat: bright drops
        const int dy = (y + a) % 8 - 4, dx = (x + b) % 8 - 4;
        if (dy * dy + dx * dx < 10) canvas.add(y, x, {12, 50, 35});
      }
    }
}

void draw_cell(Canvas& canvas, int y, int x, int type) {
  const auto disc = [](int r2) { return [r2](int dy, int dx) { return dy * dy + dx * dx <= r2; }; };
  switch (type) {
    case lymphocyte:
      canvas.stamp(y, x, {70, 30, 120}, disc(5));
      break;
    case epithelial:
      canvas.stamp(y, x, {200, 140, 200}, disc(11));
      canvas.stamp(y, x, {90, 40, 130}, disc(2));
      break;
    case mitotic:  // a plate of ragged chromosomes
      canvas.stamp(y, x, {225, 175, 215}, disc(11));
      canvas.stamp(y, x, {40, 10, 80}, [](int dy, int dx) {
        return (std::abs(dy) <= 1 && ((dy + dx) & 1) == 0) || (dy == 0 && std::abs(dx) <= 2);
      });
      break;
    default:  // eosinophil: red, with a nucleus of two lobes
      canvas.stamp(y, x, {225, 90, 70}, disc(8));
      canvas.stamp(y, x, {90, 40, 130},
                   [](int dy, int dx) { return std::abs(dx) == 2 && std::abs(dy) <= 1; });
  }
}

// Draws the next cell's type for type shares distributed as Dirichlet(0.7). The shares themselves are not
// drawn: given the types so far, a type has weight 0.7 + its count (Polya's urn).
int draw_type(Random& random, const std::array<int, 4>& counts, int drawn) {
  int at = draw_below(random, static_cast<size_t>(28 + 10 * drawn));
  for (int type = 0; type < 3; ++type) {
    at -= 7 + 10 * counts[static_cast<size_t>(type)];
    if (at < 0) return type;
  }
  return 3;
}

struct Dominant {
  int type, count;
  bool unique;
};
Dominant dominant(const std::array<int, 4>& counts) {
  const auto most = std::max_element(counts.begin(), counts.end());
  return {static_cast<int>(most - counts.begin()), *most,
          std::count(counts.begin(), counts.end(), *most) == 1};
}

}  // namespace

std::array<int, 4> BiomedicineSlide::counts() const {
  std::array<int, 4> counts{};
  for (const Cell& c : cells) ++counts[static_cast<size_t>(c.type)];
  return counts;
}

BiomedicineSlide draw_biomedicine(Random& random, Image& image) {
  BiomedicineSlide slide;
  slide.tissue = draw_below(random, tissue_words.size());
  Canvas canvas({240, 200, 215});
  draw_tissue(random, canvas, slide.tissue);
  std::vector<int> places = draw_distinct(random, 16, 2 + draw_below(random, 5));
  std::sort(places.begin(), places.end());
  for (const int place : places) {
    const Cell c{place / 4, place % 4,
                 draw_type(random, slide.counts(), static_cast<int>(slide.cells.size()))};
    slide.cells.push_back(c);
    const int y = c.row * 8 + draw_below(random, 2), x = c.column * 8 + draw_below(random, 2);
    draw_cell(canvas, y, x, c.type);
  }
  canvas.noise(random, 10, false);
  image = canvas.image();
  return slide;
}

std::optional<Question> ask(Random& random, const BiomedicineSlide& slide, const Codes& codes,
                            int knowledge_percent) {
  const bool knowledge = chance(random, knowledge_percent);
  const int kind = draw_below(random, 5);
  const std::array<int, 4> counts = slide.counts();
  const auto count_of = [&](int type) { return counts[static_cast<size_t>(type)]; };
  const int drawn = slide.cells[static_cast<size_t>(draw_below(random, slide.cells.size()))].type;
  int asked = chance(random, 50) ? drawn : draw_below(random, cell_words.size());
  const Dominant most = dominant(counts);
  if (knowledge) {
    if (!most.unique) return std::nullopt;
    return Question{"code", "what is the tissue value",
                    codes[static_cast<size_t>(slide.tissue * 8 + most.type * 2 + (most.count >= 3))]};
  }
  switch (kind) {
    case 0:
      if (chance(random, 50)) asked = draw_below(random, cell_words.size());
      return Question{"present", fmt::format("is there {}", cell(asked)), yes_no(count_of(asked) > 0)};
    case 1:
      return Question{"grade", fmt::format("how many {}", cell(asked)),
                      grade_words[static_cast<size_t>(std::min(count_of(asked), 3))]};
    case 2:
      return Question{"tissue", "what type is the tissue", tissue_words[static_cast<size_t>(slide.tissue)]};
    case 3:
      if (!most.unique) return std::nullopt;
      return Question{"dominant", "which cell is dominant", cell(most.type)};
    default: {
      const bool malignant = count_of(mitotic) > 0 && count_of(epithelial) > 0;
      if (!malignant && chance(random, 30)) return std::nullopt;  // balances yes and no
      return Question{"malignant", "is the tissue malignant", yes_no(malignant)};
    }
  }
}

Question describe(Random& random, const BiomedicineSlide& slide) {
  const int kind = draw_below(random, 100);
  if (kind < 15) {
    std::string all = tissue_words[static_cast<size_t>(slide.tissue)];
    for (const Cell& c : slide.cells) all += fmt::format(" {}", cell(c.type));
    return {"biomedicine.caption", "describe", all};
  }
  const Cell& c = slide.cells[static_cast<size_t>(draw_below(random, slide.cells.size()))];
  if (kind < 25) {
    return describe_at(random, "biomedicine", slide.cells, c, [](const Cell& p) { return cell(p.type); });
  }
  if (kind < 65) {  // the place of the first in reading order
    const auto first =
        std::find_if(slide.cells.begin(), slide.cells.end(), [&](const Cell& p) { return p.type == c.type; });
    return {"biomedicine.locate", fmt::format("locate {}", cell(c.type)),
            grid_place(first->row, first->column)};
  }
  const int asked = chance(random, 50) ? c.type : draw_below(random, cell_words.size());
  const int found = slide.counts()[static_cast<size_t>(asked)];
  if (kind < 88) return {"biomedicine.count", fmt::format("count {}", cell(asked)), std::to_string(found)};
  return {"biomedicine.present", fmt::format("present {}", cell(asked)), yes_no(found > 0)};
}

}  // namespace burrow::data
