// `burrow data check` on a thousand mutated records of generated data: it reports every fault with file,
// record and reason, and nothing else.
#include <sys/wait.h>

#include "data/worlds/make.h"
#include "tensor/files.h"
#include "tensor/json.h"
#include "tensor/rng.h"
#include "tests/support/data_testing.h"

using namespace burrow;
using namespace burrow::data;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// A record under mutation, with the randomness and the image folder that mutations use.
struct Mutant {
  json record;
  Random& random;
  fs::path images;
  std::string text;  // the record as written, when it is not the dump of `record`

  json& message(size_t i) { return record["conversations"][i]; }
  json& any_message() { return message(random.below(2)); }
  void add_message(const char* role, const char* value) {
    record["conversations"].push_back({{"from", role}, {"value", value}});
  }
  void add_turn(const char* value) { add_message("human", value), add_message("gpt", value); }
  std::string& question() { return message(0)["value"].get_ref<std::string&>(); }
  // Replaces the record's image by a copy that `change` has damaged.
  template <class Change>
  void damage_image(Change change) {
    std::string bytes = read_file(images / record["image"].get<std::string>());
    change(bytes);
    const std::string name = fmt::format("damaged{}.png", random.below(1u << 31));
    write_bytes(images / name, bytes);
    record["image"] = name;
  }
};

struct Mutation {
  const char* name;
  const char* field;   // of the fault; nullptr when there is none
  const char* reason;  // a part of it
  void (*apply)(Mutant&);
};

std::string nested(const std::string& inside) {
  return std::string(20000, '[') + inside + std::string(20000, ']');
}

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

const json others[] = {nullptr, true, 7, -1.5, json::object(), "text"};

void without_mark(Mutant& m) { m.question() = replaced(m.question(), "<image>", ""); }

const std::vector<Mutation> structure_faults = {
    {"a record that is a list", "", "must be an object, not array",
     [](Mutant& m) { m.record = json::array(); }},
    {"a record that is a number", "", "must be an object, not number", [](Mutant& m) { m.record = 7; }},
    {"a record that is null", "", "must be an object, not null", [](Mutant& m) { m.record = nullptr; }},
    {"a record that is a text", "", "must be an object, not string", [](Mutant& m) { m.record = "r"; }},
    {"lists in lists for a record", "", "must be an object, not array",
     [](Mutant& m) { m.text = nested("1"); }},
    {"no conversations", "conversations", "is missing", [](Mutant& m) { m.record.erase("conversations"); }},
    {"conversations are no list", "conversations", "must be an array, not",
     [](Mutant& m) { m.record["conversations"] = others[m.random.below(6)]; }},
    {"no turns", "conversations", "has no human turn",
     [](Mutant& m) { m.record["conversations"] = json::array(); }},
    {"no question", "conversations", "has no human turn",
     [](Mutant& m) { m.record["conversations"].erase(0); }},
    {"no answer", "conversations", "ends with a human turn",
     [](Mutant& m) { m.record["conversations"].erase(1); }},
    {"a question at the end", "conversations", "ends with a human turn",
     [](Mutant& m) { m.add_message("human", "p"); }},
    {"a message that is none", "conversations[", "must be an object, not",
     [](Mutant& m) { m.any_message() = m.random.below(2) ? json(7) : json::array(); }},
    {"no role", "conversations[", "is missing", [](Mutant& m) { m.any_message().erase("from"); }},
    {"no value", "conversations[", "is missing", [](Mutant& m) { m.any_message().erase("value"); }},
    {"a number for a role", "conversations[", "must be a string, not number",
     [](Mutant& m) { m.any_message()["from"] = 3; }},
    {"a number for a value", "conversations[", "must be a string, not number",
     [](Mutant& m) { m.any_message()["value"] = 1e300; }},
    {"a list for a value", "conversations[1].value", "must be a string, not array",
     [](Mutant& m) { m.text = replaced(m.record.dump(), m.message(1)["value"].dump(), nested("\"p\"")); }},
    {"an unknown role", "conversations[", "must be human or gpt, not '",
     [](Mutant& m) {
       const char* roles[] = {"system", "Human", "", "gpt ", "assistant", "a\nb", "\u00E9"};
       m.any_message()["from"] = roles[m.random.below(7)];
     }},
    {"a huge role", "conversations[", "must be human or gpt, not 'xxx",
     [](Mutant& m) { m.any_message()["from"] = std::string(200000, 'x'); }},
    {"two questions in a row", "conversations[1].from", "gpt is expected, not human",
     [](Mutant& m) { m.message(1)["from"] = "human"; }},
    {"two answers in a row", "conversations[2].from", "human is expected, not gpt",
     [](Mutant& m) { m.record["conversations"].push_back(m.message(1)); }},
    {"a number for the type", "type", "must be a string, not number",
     [](Mutant& m) { m.record["type"] = 4; }},
    {"a huge question", "conversations", "no supervised token is left within 2048 tokens",
     [](Mutant& m) { m.question() += repeated(" what", 3000); }},
};

const std::vector<Mutation> image_faults = {
    {"a number for the image", "image", "must be a string, not number",
     [](Mutant& m) { m.record["image"] = 4; }},
    {"no image", "image", "is missing, but the first human value has <image>",
     [](Mutant& m) { m.record.erase("image"); }},
    {"an empty image path", "image", "is missing, but", [](Mutant& m) { m.record["image"] = ""; }},
    {"no mark", "conversations", "its first human value has no <image>", without_mark},
    {"two marks", "conversations", "<image> may stand once", [](Mutant& m) { m.question() += "<image>"; }},
    {"a mark in the answer", "conversations", "<image> may stand once",
     [](Mutant& m) { m.message(1)["value"] = "p <image>"; }},
    {"a mark in a later question", "conversations", "<image> may stand once",
     [](Mutant& m) { m.add_turn("<image>"); }},
    {"a missing image", "image", "no such image file: ", [](Mutant& m) { m.record["image"] = "none.png"; }},
    {"an image in a missing folder", "image",
     "no such file: ", [](Mutant& m) { m.record["image"] = "no/i.png"; }},
    {"a path that leads out", "image", "leads out of its folder",
     [](Mutant& m) {
       const char* paths[] = {"../train.json", "../../tokenizer.json", "train/../../train.json", ".."};
       m.record["image"] = paths[m.random.below(4)];
     }},
    {"an absolute path", "image", "is absolute",
     [](Mutant& m) { m.record["image"] = (m.images / m.record["image"].get<std::string>()).string(); }},
    {"a link that leads out", "image", "through a symbolic link",
     [](Mutant& m) { m.record["image"] = m.random.below(2) ? "out/train.json" : "out.png"; }},
    {"a NUL in the path", "image", "has a NUL",
     [](Mutant& m) { m.record["image"].get_ref<std::string&>() += std::string("\0x", 2); }},
    {"a path of 5000 letters", "image",
     "no such image file: ", [](Mutant& m) { m.record["image"] = std::string(5000, 'i'); }},
    {"a folder for an image", "image",
     "no such image file: ", [](Mutant& m) { m.record["image"] = "train"; }},
    {"a truncated image", "image", "[image] ",
     [](Mutant& m) {
       m.damage_image(
           [&](std::string& png) { png.resize(m.random.below(static_cast<uint32_t>(png.size()))); });
     }},
    {"an image with a damaged byte", "image", "[image] ",
     [](Mutant& m) { m.damage_image([&](std::string& png) { png[8 + m.random.below(40)] ^= 64; }); }},
    {"a JPEG named .png", "image", "is not a PNG file: wrong signature",
     [](Mutant& m) { m.damage_image([](std::string& png) { png.replace(0, 4, "\xFF\xD8\xFF\xE0"); }); }},
    {"a header of two billion pixels a side", "image", "are over the limit",
     [](Mutant& m) {
       m.damage_image([](std::string& png) { png = with_size(png, 0x7fffffff, 0x7fffffff); });
     }},
};

const std::vector<Mutation> sound = {
    {"nothing", nullptr, "", [](Mutant&) {}},
    {"no id and no type", nullptr, "", [](Mutant& m) { m.record.erase("id"), m.record.erase("type"); }},
    {"a number for the id", nullptr, "", [](Mutant& m) { m.record["id"] = 12; }},
    {"null for the type", nullptr, "", [](Mutant& m) { m.record["type"] = nullptr; }},
    {"an unknown field", nullptr, "",
     [](Mutant& m) { m.record["more"] = json::parse(R"([1, {"p": null}])"); }},
    {"lists in lists in an unknown field", nullptr, "",
     [](Mutant& m) { m.text = replaced(m.record.dump(), "{", "{\"more\":" + nested("{}") + ","); }},
    {"an empty question", nullptr, "", [](Mutant& m) { m.question() = "<image>"; }},
    {"an empty answer, whose end is supervised", nullptr, "", [](Mutant& m) { m.message(1)["value"] = " "; }},
    {"text alone", nullptr, "", [](Mutant& m) { without_mark(m), m.record.erase("image"); }},
    {"null for the image", nullptr, "", [](Mutant& m) { without_mark(m), m.record["image"] = nullptr; }},
    {"an answer before the first question", nullptr, "",
     [](Mutant& m) { m.record["conversations"].insert(m.record["conversations"].begin(), m.message(1)); }},
    {"a second turn", nullptr, "", [](Mutant& m) { m.add_turn(""); }},
    {"a field twice: the last one holds", nullptr, "",
     [](Mutant& m) { m.text = replaced(m.record.dump(), "{", "{\"image\":7,\"conversations\":[],"); }},
    {"a huge answer, which is cut", nullptr, "",
     [](Mutant& m) { m.message(1)["value"] = repeated("yes ", 30000); }},
    {"escaped letters of many languages", nullptr, "",
     [](Mutant& m) {
       m.question() += "\u00E9\u4E2D\U0001F600\x01";
       m.text = m.record.dump(-1, ' ', true);
     }},
    {"a roundabout path", nullptr, "",
     [](Mutant& m) { m.record["image"] = ".//./" + m.record["image"].get<std::string>(); }},
    {"a link within the folder", nullptr, "", [](Mutant& m) { m.record["image"] = "in.png"; }},
};

// The output lines of the program, which must exit with this code.
std::vector<std::string> lines_of(const std::string& arguments, int code) {
  FILE* out = ::popen((std::string(BURROW_PROGRAM) + " " + arguments + " 2>&1").c_str(), "r");
  REQUIRE(out);
  std::vector<std::string> lines(1);
  for (int c; (c = std::fgetc(out)) != EOF;)
    if (c == '\n')
      lines.emplace_back();
    else
      lines.back() += static_cast<char>(c);
  const int status = ::pclose(out);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == code);
  lines.pop_back();
  return lines;
}

// Generated data, with the links that mutations refer to.
struct Data {
  Folder folder;
  fs::path set = folder / "general", images = set / "images", file = set / "mutated.json";
  json records;

  Data() {
    MakeOptions options;
    options.train = 100;
    options.validation = options.test = 1;
    make_domains(folder.path, options);
    records = json::parse(read_file(set / "train.json"));
    fs::create_symlink(set, images / "out");
    fs::create_symlink(set / "train.json", images / "out.png");
    fs::create_symlink(records[0]["image"].get<std::string>(), images / "in.png");
  }
};

}  // namespace

TEST_CASE("a thousand mutated records: each fault is reported, and nothing else") {
  Data data;
  std::vector<const Mutation*> mutations;
  for (const auto* list : {&structure_faults, &image_faults, &sound})
    for (const Mutation& m : *list) mutations.push_back(&m);
  Random random(11);
  std::string text = "[";
  for (size_t i = 0; i < 1000; ++i) {
    Mutant mutant{data.records[random.below(100)], random, data.images, ""};
    mutations[i % mutations.size()]->apply(mutant);
    text += (i ? ",\n" : "") + (mutant.text.empty() ? mutant.record.dump() : mutant.text);
  }
  write_bytes(data.file, text + "]");

  const std::vector<std::string> lines = lines_of("data check " + data.file.string(), 1);
  size_t line = 0, unsupervised = 0;
  for (size_t i = 0; i < 1000; ++i) {
    const Mutation& m = *mutations[i % mutations.size()];
    if (!m.field) continue;
    INFO("record ", i, ": ", m.name);
    REQUIRE(line < lines.size());
    const std::string& found = lines[line++];
    INFO(found);
    const std::string where =
        fmt::format("{}, record {}{}{}", data.file.string(), i, *m.field ? ", " : ": ", m.field);
    CHECK(found.starts_with(where));
    CHECK(contains(found, m.reason));
    CHECK(found.size() < 700);
    unsupervised += contains(found, "no supervised token");
  }
  REQUIRE(lines.size() == line + 1);
  CHECK(lines.back() ==
        fmt::format(
            "{}: 1000 records, {} faults ({} samples without a supervised token, which training leaves out)",
            data.file.string(), line, unsupervised));
}

TEST_CASE("invalid JSON ends the list, after the records before it are checked") {
  Data data;
  const std::string record = data.records[0].dump();
  const std::string fault = replaced(record, "\"image\":", "\"image\":7,\"was\":");
  const auto at = static_cast<uint32_t>(record.find("from"));
  const std::string breaks[] = {"\xFF",    "\xC3(", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                                "\\ud800", "\\x",   "\n",           std::string(1, '\0')};
  for (size_t i = 0; i < std::size(breaks); ++i) {
    std::string broken = record;
    broken.insert(at, breaks[i]);
    write_bytes(data.file, "[" + record + "," + fault + "," + broken + "," + fault + "]");
    const std::vector<std::string> lines = lines_of("data check " + data.file.string(), 1);
    INFO(i);
    REQUIRE(lines.size() == 3);
    CHECK(lines[0].starts_with(data.file.string() + ", record 1, image: must be a string, not number"));
    CHECK(contains(lines[1], data.file.string() + ": after 2 records: "));
    CHECK(contains(lines[1], "column"));
    CHECK(lines[2] == data.file.string() + ": 2 records, 2 faults");
  }
}
