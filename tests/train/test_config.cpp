#include "train/config/config.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <filesystem>
#include <limits>

#include "tests/support/errors.h"
#include "tests/support/folder.h"
#include "train/config/toml_letters.h"

// Like those of nn/ and moe/, these structs are in another namespace and do not include the visitors.
namespace sample {

enum class Gate { none, straight_through, scaled };
inline std::vector<std::pair<const char*, Gate>> enum_names(Gate) {
  return {{"none", Gate::none}, {"straight_through", Gate::straight_through}, {"scaled", Gate::scaled}};
}

struct Set {
  std::string name = "general";
  double weight = 1;
  std::vector<std::string> files;
  bool operator==(const Set&) const = default;
};
template <class V>
void visit_fields(V& v, Set& c) {
  v.field("name", c.name, "", "what reports call it");
  v.field("weight", c.weight, "", "share of the tokens");
  v.field("source.files", c.files, "", "JSON files");
}

struct Config {
  bool verbose = false;
  int64_t tokens_per_step = 4096;
  double learning_rate = 1e-3;
  Gate gate = Gate::none;
  std::string name = "run";
  std::vector<double> betas{0.9, 0.999};
  std::vector<int64_t> layers{0, 1};
  std::vector<std::string> targets{"q_proj", "v_proj"};
  std::vector<Set> sets{Set{}};
  bool operator==(const Config&) const = default;
};
template <class V>
void visit_fields(V& v, Config& c) {
  v.field("name", c.name, "", "a | name");
  v.section("train", [&] {
    v.field("tokens_per_step", c.tokens_per_step, "tokens", "over all ranks");
    v.field("learning_rate", c.learning_rate, "1/step", "peak of the schedule");
    v.section("adam", [&] { v.field("betas", c.betas, "", "decay of the moments"); });
    v.field("verbose", c.verbose, "", "print each step");
  });
  v.field("moe.gate", c.gate, "", "what multiplies an expert's output");
  v.field("moe.layers", c.layers, "", "which layers");
  v.field("moe.targets", c.targets, "", "which Linears");
  v.section("data", [&] { v.list("sets", c.sets, "what is trained on"); });
}

}  // namespace sample

using namespace burrow;
using namespace burrow::train;
using sample::Config;

namespace {

Config read(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  Config c;
  Document document = Document::parse(toml, "x.toml");
  for (const std::string& o : overrides) document.apply_override(o, fields_of(c));
  read_config(document, c);
  return c;
}

std::string read_error(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  return error_of([&] { read(toml, overrides); });
}

// Each text and its error, without the name of the file.
void check_errors(const std::vector<std::pair<std::string, std::string>>& errors) {
  for (const auto& [toml, error] : errors) CHECK(read_error(toml) == "x.toml:" + error);
}

}  // namespace

TEST_CASE("values replace their defaults only") {
  CHECK(read("") == Config{});
  const Config c = read(R"(
name = "é"
[train]
tokens_per_step = 1_000
learning_rate = 1
verbose = true
adam.betas = [0, 0.95]
[moe]
gate = "scaled"
layers = []
targets = ["up_proj"]
[[data.sets]]
name = "documents"
[[data.sets]]
weight = 2.5
source.files = ["a.json", "b.json"]
)");
  Config expected;
  expected.name = "é";
  expected.tokens_per_step = 1000;
  expected.learning_rate = 1;
  expected.verbose = true;
  expected.betas = {0, 0.95};
  expected.gate = sample::Gate::scaled;
  expected.layers = {};
  expected.targets = {"up_proj"};
  expected.sets = {{"documents", 1, {}}, {"general", 2.5, {"a.json", "b.json"}}};
  CHECK(c == expected);
  CHECK(read("data.sets = []").sets.empty());
}

TEST_CASE("the error for an unknown key names the nearest key") {
  check_errors({{"[train]\nlearing_rate = 1",
                 "2: unknown key 'train.learing_rate'; did you mean 'train.learning_rate'?"},
                {"train.leanring_rate = 1",
                 "1: unknown key 'train.leanring_rate'; did you mean 'train.learning_rate'?"},
                {"\n\n[trian]\nverbose = true", "3: unknown key 'trian'; did you mean 'train'?"},
                {"learning_rate = 1", "1: unknown key 'learning_rate'; did you mean 'train.learning_rate'?"},
                {"moe.betas = [1]", "1: unknown key 'moe.betas'; did you mean 'train.adam.betas'?"},
                {"[[data.sets]]\n[[data.sets]]\nwieght = 1",
                 "3: unknown key 'data.sets[1].wieght'; did you mean 'data.sets[1].weight'?"},
                {"[[data.sets]]\n[data.sets.source]\nfile = 1",
                 "3: unknown key 'data.sets[0].source.file'; did you mean 'data.sets[0].source.files'?"},
                {"completely_different = 1", "1: unknown key 'completely_different'"},
                {"x = 1", "1: unknown key 'x'"}});
  CHECK(nearest_key("scald", {"none", "scaled"}) == "scaled");
  CHECK(nearest_key("q", {"a", "b"}).empty());
  CHECK(nearest_key("", {}).empty());
}

TEST_CASE("the error for a wrong type names the place, the expected and the found type") {
  check_errors(
      {{"[train]\n\nlearning_rate = \"high\"", "3: train.learning_rate: expected a number, found a string"},
       {"train.tokens_per_step = 1.0",
        "1: train.tokens_per_step: expected an integer, found a number with a fraction"},
       {"train.verbose = 1", "1: train.verbose: expected a boolean, found an integer"},
       {"name = 2024-01-01", "1: name: expected a string, found a date or time"},
       {"train = 1", "1: train: expected a table, found an integer"},
       {"name.first = 1", "1: name: expected a string, found a table"},
       {"moe.layers = 1", "1: moe.layers: expected an array of integers, found an integer"},
       {"moe.layers = [1,\n 2.5]",
        "2: moe.layers: expected an array of integers, found a number with a fraction as element 2"},
       {"moe.targets = [1]", "1: moe.targets: expected an array of strings, found an integer as element 1"},
       {"moe.gate = \"scald\"",
        "1: moe.gate: expected one of none, straight_through, scaled, found 'scald'; did you mean 'scaled'?"},
       {"moe.gate = true", "1: moe.gate: expected one of none, straight_through, scaled, found a boolean"},
       {"data.sets = 1", "1: data.sets: expected an array of tables, found an integer"},
       {"data.sets = [{}, 1]", "1: data.sets: expected an array of tables, found an integer as element 2"},
       {"[[data.sets]]\nweight = \"x\"", "2: data.sets[0].weight: expected a number, found a string"},
       {"train.learning_rate = 9007199254740993",  // has no exact double
        "1: train.learning_rate: expected a number, found an integer"}});
  CHECK(read_error("name = \"a\"\nname = \"b\"").starts_with("x.toml:2: "));
  CHECK(read_error("\nname = ").starts_with("x.toml:2: "));
}

TEST_CASE("a failed read changes nothing") {
  Config c;
  const Document document = Document::parse("name = \"new\"\ntrain.verbose = 1", "x.toml");
  CHECK_THROWS_AS(read_config(document, c), Error);
  CHECK(c == Config{});
}

TEST_CASE("values that are written and read back are equal to the bit") {
  Config c;
  c.name = "tab\t quote\" slash\\ newline\n bell\x07 del\x7f é 漢";
  c.tokens_per_step = std::numeric_limits<int64_t>::min();
  c.learning_rate = std::numeric_limits<double>::denorm_min();
  const double inf = std::numeric_limits<double>::infinity();
  c.betas = {0.1, 1.0 / 3, -0.0, 1e22, 1e300, 123456789.0, 5e-324, inf, -inf, std::nextafter(1.0, 2.0)};
  c.gate = sample::Gate::straight_through;
  c.layers = {};
  c.sets = {{"a", 0.1, {"x"}}, {"b", 2, {}}};
  const std::string text = to_toml(c);
  const Config back = read(text);
  CHECK(back == c);
  CHECK(std::signbit(back.betas[2]));
  CHECK(to_toml(back) == text);
  CHECK(read(to_toml(c, true)) == c);
  c.sets = {};
  CHECK(read(to_toml(c)) == c);
  c.learning_rate = std::nan("");
  CHECK(std::isnan(read(to_toml(c)).learning_rate));
  // Pseudo-random bit patterns that include every exponent.
  uint64_t bits = 1;
  c.betas.clear();
  for (int i = 0; i < 20000; ++i) {
    bits = bits * 6364136223846793005u + 1442695040888963407u;
    const double d = std::bit_cast<double>(bits);
    if (!std::isnan(d)) c.betas.push_back(d);
  }
  CHECK(read(to_toml(c)).betas == c.betas);
}

TEST_CASE("the written TOML") {
  CHECK(to_toml(Config{}) == R"(name = "run"

[train]
tokens_per_step = 4096
learning_rate = 0.001
verbose = false

[train.adam]
betas = [0.9, 0.999]

[moe]
gate = "none"
layers = [0, 1]
targets = ["q_proj", "v_proj"]

[[data.sets]]
name = "general"
weight = 1.0

[data.sets.source]
files = []
)");
  CHECK(to_toml(Config{}, true)
            .starts_with("# a | name\nname = \"run\"\n\n[train]\n# over all ranks [tokens]\n"));
}

TEST_CASE("overrides") {
  const std::string sets = "[[data.sets]]\n[[data.sets]]\nname = \"b\"\n";
  CHECK(read("", {"train.learning_rate=1e-2"}).learning_rate == 1e-2);
  CHECK(
      read("train.learning_rate = 5", {"train.learning_rate = 0.5", "train.learning_rate=1"}).learning_rate ==
      1);
  CHECK(read("", {"name=bare text"}).name == "bare text");
  CHECK(read("", {"name=5"}).name == "5");
  CHECK(read("", {"name=a=b \"c\" \\"}).name == "a=b \"c\" \\");
  CHECK(read("", {"name=\"quoted\\n\""}).name == "quoted\n");
  CHECK(read("", {"name="}).name.empty());
  CHECK(read("", {"moe.gate=scaled"}).gate == sample::Gate::scaled);
  CHECK(read("", {"train.adam.betas=[0.8, 0.9]"}).betas == std::vector<double>{0.8, 0.9});
  CHECK(read("", {"moe.targets=[\"k_proj\"]"}).targets == std::vector<std::string>{"k_proj"});
  CHECK(read(sets, {"data.sets[1].weight=3"}).sets[1].weight == 3);
  CHECK(read(sets, {"data.sets[0].source.files=['f']"}).sets[0].files == std::vector<std::string>{"f"});
  CHECK(read(sets, {"data.sets=[{name = 'only'}]"}).sets == std::vector<sample::Set>{{"only", 1, {}}});

  for (const auto& [override, error] : std::vector<std::pair<std::string, std::string>>{
           {"train.learning_rat=1",
            ": unknown key 'train.learning_rat'; did you mean 'train.learning_rate'?"},
           {"lr=1", ": unknown key 'lr'"},
           {"name", " name: expected key=value"},
           {"train.verbose=maybe", " train.verbose=maybe: 'maybe' is not a TOML value (boolean)"},
           {"train.learning_rate=1\nname = 'x'",
            " train.learning_rate=1\nname = 'x': '1\nname = 'x'' is not a TOML value (number)"},
           {"train.learning_rate=\"1\"",
            " train.learning_rate=\"1\": train.learning_rate: expected a number, found a string"},
           {"moe.gate=scald",
            " moe.gate=scald: moe.gate: expected one of none, straight_through, scaled, found 'scald'; did "
            "you mean 'scaled'?"}})
    CHECK(read_error("", {override}) == "--set" + error);
  CHECK(read_error("", {"train=1"}).starts_with("--set: unknown key 'train'"));
  CHECK(read_error("", {"data.sets[x].name=1"}).starts_with("--set: unknown key 'data.sets[x].name'"));
  CHECK(read_error(sets, {"data.sets[2].weight=3"}) ==
        "--set data.sets[2].weight=3: there is no [2]; the files give 2 entries");
  CHECK(read_error("train = 1", {"train.verbose=true"}) ==
        "--set train.verbose=true: x.toml:1 holds an integer, not a table");
}

TEST_CASE("non-ASCII letters are accepted in strings and comments only") {
  for (const char* fine :
       {"", "\xEF\xBB\xBF# a", "a = '\u00E9' # \u00E9\n\"\u00E9\" = \"\\\"\u00E9\"", "a = \"\" # \u00E9",
        R"(a = """é"é""""")", "a = \"\"\"\\\n x\u00E9\"\"\"", "a = '''\\\u00E9'''"})
    CHECK_MESSAGE(!line_of_stray_letter(fine), fine);
  for (const char* stray : {"\n\u00E9 = 1", "\na = \u00E9", "a = ''\n'' \u00E9", "\na = \"\\\u00E9\"",
                            "a = \"\"\"\\\n \u00E9\"\"\"", "a = '''\n''''' \u00E9", "\na = 1\"\u00E9\""})
    CHECK_MESSAGE(line_of_stray_letter(stray) == 2, stray);
  CHECK(error_of([] { Document::parse("\ngr\u00F6\u00DFe = 1", "f"); }) ==
        "f:2: a letter beyond ASCII outside of quotes");
}

TEST_CASE("base files") {
  const Folder folder;
  const auto put = [&](const std::string& name, const std::string& text) { return folder.put(name, text); };
  const std::string root = put("root.toml",
                               "name = \"root\"\n[train]\nverbose = true\ntokens_per_step = 1\n"
                               "[moe]\nlayers = [1, 2, 3]\n[[data.sets]]\n[[data.sets]]\n");
  const std::string middle = put("middle.toml", "base = \"root.toml\"\n[train]\ntokens_per_step = 2\n");
  const std::string leaf = put("sub/leaf.toml",
                               "base = \"../middle.toml\"\nname = \"leaf\"\n\n[moe]\nlayers = [4]\n"
                               "[[data.sets]]\nname = \"x\"\n");
  Config c;
  Document document = Document::load(leaf);
  CHECK(document.string_at("name") == "leaf");
  CHECK(!document.string_at("moe.layers"));
  CHECK(document.where("name") == leaf + ":2");
  CHECK(document.where("train.tokens_per_step") == middle + ":3");
  CHECK(document.where("train.verbose") == folder / "root.toml:3");
  CHECK(document.where("data.sets[0].name") == leaf + ":7");
  CHECK(document.where("moe.gate") == "the defaults");
  document.apply_override("train.tokens_per_step=3", fields_of(c));
  CHECK(document.where("train.tokens_per_step") == "--set train.tokens_per_step=3");
  read_config(document, c);
  CHECK(c.name == "leaf");
  CHECK(c.verbose);
  CHECK(c.tokens_per_step == 3);
  CHECK(c.layers == std::vector<int64_t>{4});
  CHECK(c.sets.size() == 1);

  const auto load_error = [](const std::string& path) {
    return error_of([&] {
      Config config;
      read_config(Document::load(path), config);
    });
  };
  // An error in a base names the base file.
  const std::string bad = put("bad.toml", "\n[train]\nverbose = 1\n");
  CHECK(load_error(put("on_bad.toml", "base = \"bad.toml\"\ntrain.tokens_per_step = 1\n")) ==
        bad + ":3: train.verbose: expected a boolean, found an integer");
  const std::string lost = put("lost.toml", "\nbase = \"nowhere.toml\"");
  CHECK(load_error(lost) == lost + ":2: base: there is no file " + (folder / "nowhere.toml"));
  const std::string endless = put("endless.toml", "base = \"/dev/zero\"");
  CHECK(load_error(endless) == endless + ":1: base: there is no file /dev/zero");
  const std::string overlong = put("overlong.toml", "base = \"" + std::string(300, 'a') + "\"");
  CHECK(load_error(overlong).starts_with(overlong + ":1: base: there is no file "));
  const std::string brackets = put("brackets.toml", "[[[a]]]\n");
  CHECK(load_error(brackets).starts_with(brackets + ":"));
  const std::string number = put("number.toml", "base = 1");
  CHECK(load_error(number) == number + ":1: base: expected a string, found an integer");
  const std::string a = put("a.toml", "base = \"b.toml\""), b = put("b.toml", "base = \"sub/../a.toml\"");
  const auto real = [](const std::string& p) { return std::filesystem::canonical(p).string(); };
  CHECK(load_error(a) == fmt::format("{}:1: base: {} -> {} leads back to {}", b, real(a), real(b), real(a)));
  const std::string self = put("self.toml", "base = \"self.toml\"");
  CHECK(load_error(self) == fmt::format("{}:1: base: {} leads back to {}", self, real(self), real(self)));
  CHECK(load_error(folder / "none.toml") ==
        "[files] cannot open " + (folder / "none.toml") + ": No such file or directory");
}

TEST_CASE("reference texts") {
  Config c;
  CHECK(fields_to_markdown(fields_of(c)) == R"(| key | type | unit | default | meaning |
|---|---|---|---|---|
| `name` | string |  | `"run"` | a \| name |

### `train`

| key | type | unit | default | meaning |
|---|---|---|---|---|
| `train.tokens_per_step` | integer | tokens | `4096` | over all ranks |
| `train.learning_rate` | number | 1/step | `0.001` | peak of the schedule |
| `train.verbose` | boolean |  | `false` | print each step |

### `train.adam`

| key | type | unit | default | meaning |
|---|---|---|---|---|
| `train.adam.betas` | array of numbers |  | `[0.9, 0.999]` | decay of the moments |

### `moe`

| key | type | unit | default | meaning |
|---|---|---|---|---|
| `moe.gate` | none \| straight_through \| scaled |  | `"none"` | what multiplies an expert's output |
| `moe.layers` | array of integers |  | `[0, 1]` | which layers |
| `moe.targets` | array of strings |  | `["q_proj", "v_proj"]` | which Linears |

### `data`

| key | type | unit | default | meaning |
|---|---|---|---|---|
| `data.sets` | array of tables |  | `1 entries` | what is trained on |

### `data.sets[]`

| key | type | unit | default | meaning |
|---|---|---|---|---|
| `data.sets[].name` | string |  | `"general"` | what reports call it |
| `data.sets[].weight` | number |  | `1.0` | share of the tokens |

### `data.sets[].source`

| key | type | unit | default | meaning |
|---|---|---|---|---|
| `data.sets[].source.files` | array of strings |  | `[]` | JSON files |
)");
  const std::string help = fields_to_help(fields_of(c));
  CHECK(contains(help, "\n[train]\n  train.tokens_per_step     integer, tokens (default 4096)\n"));
  CHECK(contains(help, "                            peak of the schedule\n"));
}

namespace sample {
struct Twice {
  bool a = false, b = false;
  const char *first = "", *second = "";
};
template <class V>
void visit_fields(V& v, Twice& c) {
  v.field(c.first, c.a, "", "");
  v.field(c.second, c.b, "", "");
}
}  // namespace sample

TEST_CASE("invalid declarations are refused") {
  const auto declared = [](const char* a, const char* b) {
    sample::Twice t{false, false, a, b};
    return error_of([&] { fields_of(t); });
  };
  CHECK(declared("a", "b") == "no error");
  for (const char* key : {"a", "a.b"}) {
    CHECK(
        declared("a", key) ==
        fmt::format("[config] the keys 'a' and '{}' conflict: one equals or is a prefix of the other", key));
  }
  CHECK(contains(declared("a", "base"), "'base' names a base file"));
  CHECK(declared("a", "b c") == "[config] 'b c' is not a bare TOML key");
}
