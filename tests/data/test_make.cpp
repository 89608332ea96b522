#include "data/worlds/make.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <sstream>

#include "data/worlds/scenes.h"
#include "tensor/files.h"
#include "tests/support/data_testing.h"

using namespace burrow;
using namespace burrow::data;
namespace fs = std::filesystem;

namespace {

MakeOptions small(uint64_t seed = 1) { return {.seed = seed, .train = 8, .validation = 2, .test = 2}; }
const PretrainOptions small_pretrain{.images = 6, .records_per_image = 3, .validation = 4};

std::vector<std::string> split(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}

template <size_t n>
int index_of(const std::array<const char*, n>& words, const std::string& word) {
  const auto it = std::find(words.begin(), words.end(), word);
  REQUIRE_MESSAGE(it != words.end(), word);
  return static_cast<int>(it - words.begin());
}

// The true answer, computed from the scene; empty for a type that is not tested.
std::string truth(const GeneralScene& scene, const std::string& type, const std::vector<std::string>& q) {
  const auto colored = [&](const std::string& word) {
    int n = 0;
    for (const auto& o : scene.objects) n += o.color == index_of(color_words, word);
    return n;
  };
  if (type == "count") return number_words[static_cast<size_t>(colored(q[2]))];
  if (type == "more") return colored(q[3]) > colored(q[5]) ? "yes" : "no";
  for (const auto& o : scene.objects) {
    const std::string color = color_words[static_cast<size_t>(o.color)];
    const std::string shape = shape_words[static_cast<size_t>(o.shape)];
    if (type == "color" && shape == q[4]) return color;
    if (type == "shape" && color == q[4]) return shape;
    if (type == "quadrant" && color == q[3] && shape == q[4])
      return std::string(o.row < 2 ? "top " : "bottom ") + (o.column < 2 ? "left" : "right");
  }
  return "";
}

std::string truth(const DocumentPage& page, const std::string& type, const std::vector<std::string>& q) {
  std::map<std::string, int> value;
  for (const auto& f : page.fields) value[key_words[static_cast<size_t>(f.key)]] = f.value;
  if (type == "read") return two_digits(value.at(q[2]));
  if (type == "larger") return value.at(q[3]) > value.at(q[5]) ? q[3] : q[5];
  if (type == "present") return value.contains(q[2]) ? "yes" : "no";
  for (const auto& [key, v] : value)
    if (type == "find" && two_digits(v) == q[3] + " " + q[4]) return key;
  return "";
}

std::string truth(const BiomedicineSlide& slide, const std::string& type, const std::vector<std::string>& q) {
  std::map<std::string, int> count;
  for (const auto& c : slide.cells) ++count[cell_words[static_cast<size_t>(c.type)]];
  if (type == "malignant") return count["mitotic"] > 0 && count["epithelial"] > 0 ? "yes" : "no";
  if (type == "present") return count[q[2]] > 0 ? "yes" : "no";
  if (type == "grade") return grade_words[static_cast<size_t>(std::min(count[q[2]], 3))];
  if (type == "tissue") return tissue_words[static_cast<size_t>(slide.tissue)];
  if (type != "dominant") return "";
  using Entry = std::pair<const std::string, int>;
  return std::max_element(count.begin(), count.end(),
                          [](const Entry& a, const Entry& b) { return a.second < b.second; })
      ->first;
}

}  // namespace

TEST_CASE("a seed gives the same bytes for any number of threads") {
  const Folder a, b, c;
  MakeOptions options = small();
  options.threads = 1;
  CHECK(make_domains(a.path, options));
  options.threads = 3;
  CHECK(make_domains(b.path, options));
  CHECK(make_domains(c.path, small(2)));
  const auto files = tree(a.path), other = tree(c.path);
  CHECK(files.size() == 3 * (12 + 3 + 1) + 2);
  CHECK(files == tree(b.path));
  check_other_seed(files, other);
  CHECK(make_pretrain(a.path, small_pretrain));
  CHECK(make_pretrain(b.path, small_pretrain));
  CHECK(tree(a.path) == tree(b.path));
}

TEST_CASE("more samples are a superset") {
  const Folder few, many;
  MakeOptions more = small();
  more.train = 11;
  make_domains(few.path, small());
  make_domains(many.path, more);
  const auto a = tree(few.path), b = tree(many.path);
  CHECK(b.size() == a.size() + 9);
  for (const auto& [name, bytes] : a) {
    if (name.ends_with("manifest.json")) continue;
    const std::string end = "\n]\n";
    const bool list = name.ends_with("train.json");
    CHECK_MESSAGE(
        (list ? b.at(name).starts_with(bytes.substr(0, bytes.size() - end.size())) : b.at(name) == bytes),
        name);
  }
}

TEST_CASE("a finished folder is recognised, and one with other options is not changed") {
  const Folder folder;
  make_domains(folder.path, small());
  make_pretrain(folder.path, small_pretrain);
  const auto before = tree(folder.path);
  CHECK(!make_domains(folder.path, small()));
  CHECK(!make_pretrain(folder.path, small_pretrain));
  MakeOptions more = small();
  more.train = 9;
  PretrainOptions other = small_pretrain;
  other.seed = 2;
  for (const MakeOptions& options : {more, small(2)})
    CHECK(contains(error_of([&] { make_domains(folder.path, options); }), "was requested"));
  CHECK(contains(error_of([&] { make_pretrain(folder.path, other); }), "was requested"));
  CHECK(tree(folder.path) == before);
  // A folder left incomplete by a killed run is written again.
  fs::remove(folder / "manifest.json");
  fs::remove_all(folder / "document");
  fs::create_directories(folder / ".document.incomplete/images");
  write_bytes(folder / ".document.incomplete/train.json", "half");
  CHECK(make_domains(folder.path, small()));
  CHECK(tree(folder.path) == before);
  fs::remove(folder / "manifest.json");
  fs::remove(folder / "document/manifest.json");
  CHECK(contains(error_of([&] { make_domains(folder.path, small()); }), "has no manifest.json"));
  MakeOptions wrong = small();
  wrong.knowledge_percent = 101;
  CHECK(contains(error_of([&] { make_domains(folder.path, wrong); }), "out of range"));
  write_bytes(folder / "file", "");
  CHECK(contains(error_of([&] { make_domains(folder / "file/x", small()); }), "cannot create"));
}

TEST_CASE("generated data is a sound dataset") {
  const Folder folder;
  make_domains(folder.path, small());
  make_pretrain(folder.path, small_pretrain);
  const Tokenizer tokenizer = Tokenizer::load(folder / "tokenizer.json");
  const auto read = [&](const std::string& domain, const std::string& split) {
    DatasetSettings settings;
    settings.name = domain;
    settings.file = folder / (domain + "/" + split + ".json");
    settings.images = folder / (domain + "/images");
    settings.check_images = ImageCheck::decode;
    CHECK(check_dataset(settings, tokenizer).empty());
    const Dataset data = Dataset::load(settings, tokenizer);
    CHECK(data.unknown_tokens() == 0);
    CHECK(data.read_image(0).width == scene_size);
    return data.size();
  };
  for (const std::string domain : {"general", "document", "biomedicine"}) {
    CHECK(read(domain, "train") == 8);
    CHECK(read(domain, "validation") == 2);
    CHECK(read(domain, "test") == 2);
  }
  CHECK(read("pretrain", "train") >= 6 * 3);
  CHECK(read("pretrain", "validation") == 4);
}

TEST_CASE("answers are true for their scenes") {
  for (const Domain domain : domains) {
    const Codes codes = knowledge_codes(1, domain);
    CHECK(std::set<std::string>(codes.begin(), codes.end()).size() == codes.size());
    std::map<std::string, std::set<std::string>> answers;
    Random random(random_key(9, 0, name_of(domain)));
    for (int i = 0; i < 200; ++i) {
      Image image;
      const Scene scene = draw_scene(random, domain, image);
      CHECK(image.rgb.size() == scene_size * scene_size * 3);
      const auto question = ask(random, scene, codes, 0);
      if (!question) continue;
      const auto words_asked = split(question->question);
      const std::string expected =
          std::visit([&](const auto& s) { return truth(s, question->type, words_asked); }, scene);
      if (expected.empty()) continue;
      CHECK_MESSAGE(question->answer == expected, question->type, ": ", question->question);
      answers[question->type].insert(question->answer);
    }
    CHECK(answers.size() >= 4);
    for (const auto& [type, different] : answers) CHECK_MESSAGE(different.size() > 1, type);
  }
}

TEST_CASE("answers to knowledge questions are the scene's code") {
  const Codes general = knowledge_codes(1, Domain::general), slides = knowledge_codes(1, Domain::biomedicine);
  CHECK(general == knowledge_codes(1, Domain::general));
  CHECK(general != knowledge_codes(2, Domain::general));
  Random random(4);
  Image image;
  for (int i = 0; i < 200; ++i) {
    const GeneralScene scene = draw_general(random, image);
    if (const auto q = ask(random, scene, general, 100)) {
      const std::string shape = split(q->question).at(3);
      const std::string color = truth(scene, "color", {"what", "color", "is", "the", shape});
      CHECK(q->type == "code");
      CHECK(q->answer ==
            general[static_cast<size_t>(index_of(color_words, color) * 4 + index_of(shape_words, shape))]);
    }
    const BiomedicineSlide slide = draw_biomedicine(random, image);
    if (const auto q = ask(random, slide, slides, 100)) {
      const int most = index_of(cell_words, truth(slide, "dominant", {}));
      const bool often = slide.counts()[static_cast<size_t>(most)] >= 3;
      CHECK(q->answer == slides[static_cast<size_t>(slide.tissue * 8 + most * 2 + often)]);
    }
  }
}
