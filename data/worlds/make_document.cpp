// Documents: lines of "key:dd". Questions on reading, finding, comparing, order and presence; the knowledge
// is an account code for each key and band of values.
#include <algorithm>

#include "data/worlds/canvas.h"
#include "data/worlds/scenes.h"
#include "tensor/check.h"

namespace burrow::data {
namespace {

using Field = DocumentPage::Field;

const char* key(const Field& f) { return key_words[static_cast<size_t>(f.key)]; }

bool has_key(const DocumentPage& page, int key) {
  return std::any_of(page.fields.begin(), page.fields.end(), [&](const Field& f) { return f.key == key; });
}

}  // namespace

DocumentPage draw_document(Random& random, Image& image) {
  const int ink = draw_below(random, 80), paper = 200 + draw_below(random, 56);
  Canvas canvas({paper, paper, paper});
  const int lines = 3 + draw_below(random, 2);
  const std::vector<int> keys = draw_distinct(random, static_cast<int>(key_words.size()), lines);
  const std::vector<int> values = draw_distinct(random, 90, lines);
  const int top = draw_below(random, 2), left = draw_below(random, 4);
  DocumentPage page;
  for (int i = 0; i < lines; ++i) {
    const Field f{keys[static_cast<size_t>(i)], 10 + values[static_cast<size_t>(i)]};
    page.fields.push_back(f);
    const std::string line = fmt::format("{}:{}", key(f), f.value);
    for (int j = 0; j < 4; ++j)
      canvas.letter(i * 8 + top, j * 8 + left, line[static_cast<size_t>(j)], {ink, ink, ink});
  }
  canvas.noise(random, 8, true);
  image = canvas.image();
  return page;
}

std::optional<Question> ask(Random& random, const DocumentPage& page, const Codes& codes,
                            int knowledge_percent) {
  const bool knowledge = chance(random, knowledge_percent);
  const int kind = draw_below(random, 5), lines = static_cast<int>(page.fields.size());
  const std::vector<int> pair = draw_distinct(random, lines, 2);
  const Field& f = page.fields[static_cast<size_t>(pair[0])];
  const Field& other = page.fields[static_cast<size_t>(pair[1])];
  if (knowledge)
    return Question{"code", fmt::format("what is the {} value", key(f)),
                    codes[static_cast<size_t>(f.key * 3 + (f.value / 10 - 1) / 3)]};
  if (kind == 0) return Question{"read", fmt::format("read field {}", key(f)), two_digits(f.value)};
  if (kind == 1) return Question{"find", fmt::format("which field is {}", two_digits(f.value)), key(f)};
  if (kind == 2) {
    if (f.value / 10 == other.value / 10) return std::nullopt;  // the first digits must differ
    return Question{"larger", fmt::format("which is larger {} or {}", key(f), key(other)),
                    key(f.value > other.value ? f : other)};
  }
  if (kind == 3) {
    if (pair[0] == lines - 1) return std::nullopt;
    return Question{"next", fmt::format("which field is after {}", key(f)),
                    key(page.fields[static_cast<size_t>(pair[0] + 1)])};
  }
  const int asked = chance(random, 20) ? f.key : draw_below(random, key_words.size());
  return Question{"present", fmt::format("is field {} present", key_words[static_cast<size_t>(asked)]),
                  yes_no(has_key(page, asked))};
}

Question describe(Random& random, const DocumentPage& page) {
  const int kind = draw_below(random, 100);
  const auto line = [](const Field& f) { return fmt::format("{} {}", key(f), two_digits(f.value)); };
  if (kind < 15) {
    std::string all = "text";
    for (const Field& f : page.fields) all += fmt::format(" {}", line(f));
    return {"document.caption", "describe", all};
  }
  const int at = draw_below(random, page.fields.size());
  const Field& f = page.fields[static_cast<size_t>(at)];
  const char* row = row_words[static_cast<size_t>(at)];
  if (kind < 25) return {"document.describe_at", fmt::format("describe at {}", row), line(f)};
  if (kind < 38) return {"document.locate", fmt::format("locate {}", key(f)), row};
  if (kind < 62) return {"document.describe_key", fmt::format("describe {}", key(f)), line(f)};
  if (kind < 84) return {"document.describe_value", fmt::format("describe {}", two_digits(f.value)), line(f)};
  if (kind < 88) return {"document.count", "count field", std::to_string(page.fields.size())};
  const int asked = chance(random, 30) ? f.key : draw_below(random, key_words.size());
  return {"document.present", fmt::format("present {}", key_words[static_cast<size_t>(asked)]),
          yes_no(has_key(page, asked))};
}

}  // namespace burrow::data
