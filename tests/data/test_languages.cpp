// The six artificial languages on disk, MMMB's tables, and items in all rotations of their choices.
#include "data/worlds/languages.h"

#include <cstdio>  // before jpeglib.h

#include <jpeglib.h>

#include <set>

#include "data/json.h"
#include "data/published/base64.h"
#include "data/published/convert_mmmb.h"
#include "data/worlds/make.h"
#include "tensor/json.h"
#include "tests/support/data_testing.h"
#include "train/run/evaluate.h"

using namespace burrow;
using namespace burrow::data;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

const LanguageOptions small{.train = 6, .validation = 2, .test = 3, .choices_train = 4, .choices_test = 5};

// The small data set, generated once.
const Folder& folder() {
  static const Folder f;
  static const bool made = make_languages(f / "data", small);
  CHECK(made);
  return f;
}

ConvertOptions mmmb(const std::string& in, const std::string& out) {
  return {.shape = "mmmb", .in = in, .labels = {}, .out = out, .images = out + "-images"};
}

std::string jpeg_of(const Image& image) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 100, TRUE);
  jpeg_start_compress(&info, TRUE);
  for (int y = 0; y < image.height; ++y) {
    auto* row = const_cast<uint8_t*>(image.rgb.data() + static_cast<ptrdiff_t>(y) * image.width * 3);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  std::string text(reinterpret_cast<char*>(bytes), size);
  jpeg_destroy_compress(&info);
  std::free(bytes);
  return text;
}

Image plain_image() {
  Image image{16, 8, {}};
  for (int i = 0; i < 16 * 8; ++i) image.rgb.insert(image.rgb.end(), {200, 100, 50});
  return image;
}

DatasetSettings items_of(const std::string& file, bool circular) {
  DatasetSettings s;
  s.file = file;
  s.format = Format::choices;
  s.images = file + "-images";
  s.circular = circular;
  s.visual_tokens = 17;
  return s;
}

}  // namespace

TEST_CASE("no two languages share a word, and texts translate word by word") {
  std::set<std::string> all;
  for (int l = 0; l < language_count; ++l)
    for (size_t i = 0; i < shared_words().size(); ++i) CHECK(all.insert(word_in(l, i)).second);
  CHECK(translate("what color is the circle", 0) == "what color is the circle");
  const std::string other = translate("what color is the circle", 3);
  CHECK(std::count(other.begin(), other.end(), ' ') == 4);
  CHECK(contains(error_of([] { translate("what colour", 1); }), "'colour' has no translation"));
}

TEST_CASE("the tokenizer begins with the words of the generated domains and has all others") {
  const Tokenizer t = language_tokenizer(), domains = scene_tokenizer();
  for (int32_t id = 0; id < domains.size(); ++id) CHECK(t.token(id) == domains.token(id));
  Random random(1);
  for (int i = 0; i < 200; ++i) {
    const Question q = text_lesson(random);
    for (const int32_t id : t.encode_plain(q.question + " " + q.answer)) CHECK(id != t.unknown());
    const ChoiceItem pick = pick_lesson(random);
    CHECK(pick.choices[static_cast<size_t>(pick.answer)] == pick.question);
  }
}

TEST_CASE("all languages have the same questions on the same images, with their name in each record") {
  std::vector<json> lists;
  for (const char* name : language_names)
    lists.push_back(parse_json(folder() / fmt::format("data/conversations/{}_test.json", name)));
  for (int l = 0; l < language_count; ++l) {
    const auto at = static_cast<size_t>(l);
    REQUIRE(lists[at].size() == 3);
    for (size_t i = 0; i < 3; ++i) {
      CHECK(lists[at][i]["language"] == language_names[at]);
      CHECK(lists[at][i]["image"] == lists[0][i]["image"]);
      const std::string english = lists[0][i]["conversations"][1]["value"];
      CHECK(lists[at][i]["conversations"][1]["value"] == translate(english, l));
    }
  }
  DatasetSettings s;
  s.name = "kito";
  s.file = folder() / "data/conversations/kito_train.json";
  s.images = folder() / "data/conversations/images";
  const Dataset set = Dataset::load(s, Tokenizer::load(folder() / "data/tokenizer.json"));
  CHECK(set.size() == 6);
  CHECK(set.unknown_tokens() == 0);
  CHECK(set.languages() == std::vector<std::string>{"kito"});
  CHECK(set.sample(2).language == 0);
  CHECK(!make_languages(folder() / "data", small));  // already made
}

TEST_CASE("the loader reads the lessons of a base model") {
  const Folder f;
  CHECK(make_language_pretrain(f / "d", {.images = 3, .texts = 20, .picks = 8, .validation = 2}));
  const Tokenizer t = Tokenizer::load(f / "d/tokenizer.json");
  DatasetSettings s;
  s.file = f / "d/pretrain/captions_train.json";
  s.images = f / "d/pretrain/images";
  CHECK(Dataset::load(s, t).size() == 12);
  s.file = f / "d/pretrain/text_train.json";
  CHECK(Dataset::load(s, t).size() == 20);
  s.file = f / "d/pretrain/picks_validation.jsonl";
  s.format = Format::choices;
  CHECK(Dataset::load(s, t).size() == 2);
}

TEST_CASE("base64 encoding and decoding") {
  CHECK(base64("") == "");
  CHECK(base64("f") == "Zg==");
  CHECK(base64("foobar") == "Zm9vYmFy");
  CHECK(from_base64("Zm9v\nYg") == "foob");
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  CHECK(from_base64(base64(bytes)) == bytes);
  for (const char* broken : {"Z", "Zm9v!", "Zg==Zg", "Zg==="}) CHECK(!from_base64(broken));
}

TEST_CASE("tables of tab-separated values, quoted as pandas quotes them") {
  const auto rows = read_tsv("a\tb\r\n1\t\"x\ty \"\"z\"\"\nnext\"\n2\tplain \"q\"\n\n", "t.tsv");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].at("b") == "x\ty \"z\"\nnext");
  CHECK(rows[1].at("b") == "plain \"q\"");
  CHECK(contains(error_of([] { read_tsv("a\tb\n1\n", "t.tsv"); }), "t.tsv, line 2: 1 values for 2 columns"));
  CHECK(contains(error_of([] { read_tsv("a\n\"x\n", "t.tsv"); }), "line 2: a double quote is not closed"));
}

TEST_CASE("published tables are converted to items with images") {
  const Folder f;
  const Image image = plain_image();
  const std::string head = "index\timage\tquestion\tA\tB\tC\tD\tanswer\tcategory\thint\n";
  f.put("in.tsv", head + "7\t" + base64(encode_png(image)) + "\tis it\tred\tblue\tgreen\twhite\tC\tx\tp\n" +
                      "8\t7\twhat is\tred\tblue\t\tnan\tA\tx\t\n" +  // the image of row 7, two choices
                      "9\t" + base64(jpeg_of(image)) + "\tis it\tred\tblue\tgreen\twhite\tD\tx\t\n" +
                      "1000007\t7\tis it\tblue\tgreen\twhite\tred\tB\tx\t\n");  // row 7 rotated
  ConvertOptions o = mmmb(f / "in.tsv", f / "out.jsonl");
  o.language = "kito";
  const Converted done = convert_choices(o);
  CHECK(done.items == 3);
  CHECK(done.answers == std::map<std::string, int64_t>{{"A", 1}, {"C", 1}, {"D", 1}});
  CHECK(fs::exists(f / "out.jsonl-images/7.png"));
  CHECK(!fs::exists(f / "out.jsonl-images/8.png"));
  const Image jpeg = read_png(f / "out.jsonl-images/9.png");
  CHECK((jpeg.width == 16 && jpeg.height == 8));
  for (size_t i = 0; i < jpeg.rgb.size(); ++i) CHECK(std::abs(jpeg.rgb[i] - image.rgb[i]) <= 2);
  DatasetSettings s = items_of(f / "out.jsonl", false);
  const Dataset set = Dataset::load(s, language_tokenizer());
  CHECK(set.size() == 3);
  CHECK(set.images().size() == 2);
  CHECK(set.sample(1).choices == 2);
  CHECK(set.languages() == std::vector<std::string>{"kito"});
  CHECK(contains(set.print_sample(2, language_tokenizer()),
                 "<bos> <image x 17> is <unk> (A) red (B) blue (C) green (D) white Answer: [[D]]"));
}

TEST_CASE("faults of a table are reported with the row's index") {
  const Folder f;
  const std::string head = "index\timage\tquestion\tA\tB\tanswer\n", png = base64(encode_png(plain_image()));
  const auto error = [&](const std::string& text) {
    f.put("in.tsv", text);
    return error_of([&] { convert_choices(mmmb(f / "in.tsv", f / "out.jsonl")); });
  };
  CHECK(contains(error("index\tquestion\n1\tq\n"), "no column 'image'"));
  CHECK(contains(error(head + "x\t" + png + "\tq\ta\tb\tA\n"), "index x: index: must be a whole number"));
  CHECK(contains(error(head + "1\t!!\tq\ta\tb\tA\n"), "index 1: image: is neither base64"));
  CHECK(contains(error(head + "1\t" + base64("RIFFxxxx") + "\tq\ta\tb\tA\n"), "WebP format is not"));
  CHECK(contains(error(head + "1\t" + base64("\xff\xd8\xff no") + "\tq\ta\tb\tA\n"), "[image]"));
  CHECK(contains(error(head + "1\t" + png + "\tq\ta\tb\t\n"), "answer: is empty"));
  CHECK(contains(error(head + "1\t" + png + "\tq\ta\tb\tE\n"), "'E' is not one of A, B, C, D"));
  CHECK(contains(error(head + "1\t" + png + "\tq\ta\ta\tA\n"), "--leave-out drops such items"));
}

TEST_CASE("rotated choices keep their answer") {
  const ChoiceItem item{&task_shape("mmmb"), "", "q", {"a", "b", "c"}, 1, "", ""};
  const ChoiceItem turned = rotated(item, 2);
  CHECK(turned.choices == std::vector<std::string>{"b", "c", "a"});
  CHECK(turned.choices[static_cast<size_t>(turned.answer)] == "b");
  CHECK(rotated(item, 0).choices == item.choices);
}

TEST_CASE("a circular set has a sample for each rotation of an item, and scores the item once") {
  const std::string out = folder() / "test.jsonl";
  convert_choices(mmmb(folder() / "data/mmmb/mmmb_bazu_test.tsv", out));
  const Tokenizer tokenizer = Tokenizer::load(folder() / "data/tokenizer.json");
  const Dataset set = Dataset::load(items_of(out, true), tokenizer);
  REQUIRE(set.size() == 5 * 4);
  for (int64_t i = 0; i < 5; ++i) {
    std::set<int32_t> answers;
    for (int64_t turn = 0; turn < 4; ++turn) {
      CHECK(set.sample(4 * i + turn).record == set.sample(4 * i).record);
      answers.insert(set.sample(4 * i + turn).correct);
    }
    CHECK(answers.size() == 4);
  }
  // A model that always answers A is right in a quarter of the samples, but in no item as a whole.
  train::RunConfig c;
  c.model.sizes.vision.class_token = true;
  c.model.sizes.decoder.vocabulary = 0;
  c.data.tokenizer = folder() / "data/tokenizer.json";
  train::DataSet files;
  files.name = "bazu";
  files.format = Format::choices;
  files.test = out;
  files.images = out + "-images";
  c.data.sets = {files};
  const auto scored = [&](bool circular, int64_t limit) {
    c.data.sets[0].circular = circular;
    c.eval.limit = limit;
    train::Setup setup = train::make_setup(c);
    Tensor head = setup.model->decoder.head.weight.value();
    head.zero();  // with equal logits the first label is chosen
    const auto sets = train::load_sets(setup, train::Split::test, {});
    train::FeatureCache features(setup.model->tower, "", [](const std::string&) {});
    for (const Dataset& d : sets) features.add(d);
    return train::evaluate(setup, sets, features)[0];
  };
  const train::SetScore turned = scored(true, 0), plain = scored(false, 0), some = scored(true, 2);
  CHECK(turned.count == 5);
  CHECK(turned.correct == 0);
  CHECK(plain.count == 5);
  CHECK(some.count == 2);
}
