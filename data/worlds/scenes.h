#pragma once
// The three generated domains: scenes, their images, and questions on them. Every draw is integer arithmetic
// on a counter-based stream, so a seed gives the same bytes on every machine.
#include <array>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "data/images/image.h"
#include "data/text/tokenizer.h"
#include "tensor/enum_names.h"
#include "tensor/rng.h"

namespace burrow::data {

// The name of a domain is its folder's.
BURROW_ENUM(Domain, general, document, biomedicine)
inline constexpr std::array<Domain, 3> domains{Domain::general, Domain::document, Domain::biomedicine};

inline constexpr int scene_size = 32;  // pixels a side, of every generated image

// Words, indexed by the numbers in a scene.
inline constexpr std::array<const char*, 6> color_words{"red", "green", "blue", "yellow", "white", "purple"};
inline constexpr std::array<const char*, 4> shape_words{"circle", "square", "triangle", "cross"};
inline constexpr std::array<const char*, 8> key_words{"A", "B", "C", "D", "E", "F", "G", "H"};
inline constexpr std::array<const char*, 10> digit_words{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
inline constexpr std::array<const char*, 4> cell_words{"lymphocyte", "epithelial", "mitotic", "eosinophil"};
inline constexpr std::array<const char*, 3> tissue_words{"stroma", "mucosa", "fat"};
inline constexpr std::array<const char*, 7> number_words{"zero", "one",  "two", "three",
                                                         "four", "five", "six"};
inline constexpr std::array<const char*, 4> grade_words{"absent", "rare", "moderate", "abundant"};
inline constexpr std::array<const char*, 4> row_words{"row1", "row2", "row3", "row4"};
inline constexpr std::array<const char*, 4> column_words{"col1", "col2", "col3", "col4"};

// The words of all questions and answers, in order of id, after the special tokens <unk> <bos> <sep> <eos>.
const std::vector<std::string>& scene_words();
Tokenizer scene_tokenizer();

// 3 to 5 coloured shapes on a 4 x 4 grid, no two alike, in reading order.
struct GeneralScene {
  // row and column are 0 to 3; color and shape are indices into color_words and shape_words.
  struct Object {
    int row, column, color, shape;
  };
  std::vector<Object> objects;
};

// 3 or 4 lines "key:dd" of distinct keys and distinct values 10 to 99.
struct DocumentPage {
  // `key` indexes key_words.
  struct Field {
    int key, value;
  };
  std::vector<Field> fields;
};

// 2 to 6 cells on a 4 x 4 grid over one of three tissues, in reading order.
struct BiomedicineSlide {
  // Places 0 to 3; `type` indexes cell_words.
  struct Cell {
    int row, column, type;
  };
  int tissue = 0;
  std::vector<Cell> cells;
  std::array<int, 4> counts() const;  // of each cell type
};

using Scene = std::variant<GeneralScene, DocumentPage, BiomedicineSlide>;

// Draws a scene and its image (32 x 32).
Scene draw_scene(Random& random, Domain domain, Image& image);
GeneralScene draw_general(Random& random, Image& image);
DocumentPage draw_document(Random& random, Image& image);
BiomedicineSlide draw_biomedicine(Random& random, Image& image);

// One question and its answer; evaluation reports scores by `type`.
struct Question {
  std::string type, question, answer;
};

// A domain's knowledge: a code of a letter and a digit for each of 24 facts, arbitrary but fixed by the seed.
//   general: color * 4 + shape.  document: key * 3 + (tens - 1) / 3.
//   biomedicine: tissue * 8 + dominant cell * 2 + (it occurs three times or more).
using Codes = std::array<std::string, 24>;
Codes knowledge_codes(uint64_t seed, Domain domain);

// Draws one instruction question; nothing when the drawn kind has no unique answer on the scene. Asks for a
// code with a chance of `knowledge_percent`.
std::optional<Question> ask(Random& random, const GeneralScene& scene, const Codes& codes,
                            int knowledge_percent);
std::optional<Question> ask(Random& random, const DocumentPage& page, const Codes& codes,
                            int knowledge_percent);
std::optional<Question> ask(Random& random, const BiomedicineSlide& slide, const Codes& codes,
                            int knowledge_percent);
std::optional<Question> ask(Random& random, const Scene& scene, const Codes& codes, int knowledge_percent);

// A stage-1 question: captions, describe, locate, count, present.
Question describe(Random& random, const GeneralScene& scene);
Question describe(Random& random, const DocumentPage& page);
Question describe(Random& random, const BiomedicineSlide& slide);
Question describe(Random& random, const Scene& scene);
// A text-only question: words to repeat.
Question copy_words(Random& random);

// Helpers to write questions.
inline bool chance(Random& random, int percent) { return static_cast<int>(random.below(100)) < percent; }
inline int draw_below(Random& random, size_t n) {
  return static_cast<int>(random.below(static_cast<uint32_t>(n)));
}
// `count` distinct numbers below n, in random order.
std::vector<int> draw_distinct(Random& random, int n, int count);
std::string two_digits(int value);                    // 42 -> "4 2"
inline std::string grid_place(int row, int column) {  // "row1 col2"
  return fmt::format("{} {}", row_words[static_cast<size_t>(row)], column_words[static_cast<size_t>(column)]);
}
// Asks for the thing at the place of `thing`, or in one of five questions at any place.
template <class Thing, class Name>
Question describe_at(Random& random, const char* domain, const std::vector<Thing>& things, const Thing& thing,
                     const Name& name) {
  int row = thing.row, column = thing.column;
  if (!chance(random, 80)) {
    row = draw_below(random, 4);
    column = draw_below(random, 4);
  }
  std::string found = "empty";
  for (const Thing& t : things)
    if (t.row == row && t.column == column) found = name(t);
  return {fmt::format("{}.describe_at", domain), "describe at " + grid_place(row, column), found};
}
inline const char* yes_no(bool yes) { return yes ? "yes" : "no"; }

}  // namespace burrow::data
