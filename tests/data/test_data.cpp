#include "tensor/files.h"
#include "tensor/rng.h"
#include "tests/support/data_testing.h"

using namespace burrow;
using namespace burrow::data;
namespace fs = std::filesystem;

namespace {

using Ids = std::vector<int32_t>;
using Mask = std::vector<uint8_t>;

}  // namespace

TEST_CASE("a tokenizer is saved and loaded unchanged") {
  const Folder folder;
  const std::string path = folder / "tokenizer.json", again = folder / "again.json";
  const Tokenizer made = small_tokenizer();
  made.save(path);
  const Tokenizer t = Tokenizer::load(path);
  t.save(again);
  CHECK(read_file(again) == read_file(path));
  CHECK(t.size() == 13);
  CHECK(t.unknown() == 0);
  CHECK(t.begin_of_text() == 1);
  CHECK(t.end_of_text() == 3);
  CHECK(t.encode("  what\tp\n is\u00A0yes ") == Ids{7, 4, 8, 9});
  CHECK(t.encode("").empty());
  CHECK(t.encode("P other pq") == Ids{0, 0, 0});
  CHECK(t.encode("yes<eos>p <sep>") == Ids{9, 3, 4, 2});
  CHECK(t.decode(Ids{1, 7, 0, 4, 3}) == "what p");
  CHECK(t.decode(Ids{7, 13, 4}) == "what <unk> p");
  CHECK(t.find("other") == -1);
  CHECK(error_of([&] { t.id_of("other"); }) == "[tokenizer] no token 'other' in the vocabulary");
  CHECK(error_of([&] { t.token(13); }) == "[tokenizer] id 13 is outside of the vocabulary of 13");
  CHECK_THROWS_AS(t.token(-1), Error);
  CHECK(contains(error_of([] { Tokenizer::of({"<unk>"}, {"p", "p"}); }), "'p' occurs twice"));
  CHECK(contains(error_of([] { Tokenizer::of({"<pad>"}, {"p"}); }), "unknown token '<unk>' is not in"));
  const Tokenizer llama = Tokenizer::of({"<unk>", "<s>", "</s>"}, words);
  CHECK(llama.begin_of_text() == 1);
  CHECK(llama.end_of_text() == 2);
}

TEST_CASE("text of a record forges no special token") {
  const Tokenizer t = small_tokenizer();
  CHECK(t.encode_plain("p <eos> yes") == Ids{4, 0, 9});
  CHECK(t.encode_plain("yes<eos><sep> <bos>") == Ids{0, 0});
  CHECK(t.encode_plain("what is no") == t.encode("what is no"));
}

TEST_CASE("faults of a tokenizer's file") {
  const Folder folder;
  const std::string path = folder / "tokenizer.json", sound = small_tokenizer().json();
  const auto fault = [&](const std::string& from, const std::string& to, const std::string& reason) {
    write_bytes(path, replaced(sound, from, to));
    const std::string error = error_of([&] { Tokenizer::load(path); });
    CHECK_MESSAGE((contains(error, path) && contains(error, reason)), error);
  };
  fault("WordLevel", "WordPiece", "model type 'WordPiece' is not supported, only WordLevel and BPE");
  fault("WhitespaceSplit", "ByteLevel", "pre_tokenizer 'ByteLevel' is not supported, only WhitespaceSplit");
  fault("\"normalizer\": null", R"("normalizer": {"type": "NFC"})", "normalizer 'NFC' is not supported");
  fault("\"normalizer\": null", R"("normalizer": {"type": 3})", "");
  fault("\"q\": 5", "\"q\": 4", "id 4 is used twice");
  fault("\"ASSISTANT:\": 12", "\"ASSISTANT:\": 13", "not contiguous: 'ASSISTANT:' has id 13 among 13 tokens");
  fault("\"q\": 5", "\"p\": 5", "not contiguous");
  fault("\"q\": 5", "\"q\": -5", "model.vocab 'q': an id must be a small non-negative integer, not -5");
  fault("\"q\": 5", "\"q\": 18446744073709551615", "an id must be");
  fault("\"q\": 5", "\"q\": \"5\"", "an id must be");
  fault("\"unk_token\": \"<unk>\"", "\"unk_token\": \"<no>\"", "the unknown token '<no>' is not");
  fault("\"vocab\"", "\"words\"", "field 'vocab' is missing");
  fault("\"model\"", "\"modes\"", "field 'model' is missing");
  fault("\"added_tokens\"", "\"others\"", "field 'added_tokens' is missing");
  fault("\"content\": \"<eos>\"", "\"content\": \"yes\"", "added token 'yes' has id 3, and 9 in model.vocab");
  fault("\"content\": \"<eos>\"", "\"content\": 3", "field 'content' must be a string, not number");
  fault("\"version\": ", "\"version\" ", "line 2");
  for (size_t size = 0; size + 1 < sound.size(); size += 29) {
    write_bytes(path, sound.substr(0, size));
    CHECK_MESSAGE(contains(error_of([&] { Tokenizer::load(path); }), path), size);
  }
  CHECK(contains(error_of([&] { Tokenizer::load(folder / "no.json"); }), "cannot open " + folder.path));
}

TEST_CASE("the plain template") {
  const Tokenizer t = small_tokenizer();
  const ChatTemplate& plain = ChatTemplate::by_name("plain");
  const std::vector<Turn> one{{"what p", "yes"}}, two{{"what p", "yes"}, {"q <eos>", "no"}};
  for (const bool image : {false, true}) {
    const Tokens a = tokenize(plain.spans(one, image), t), b = tokenize(plain.spans(two, image), t);
    CHECK(a.ids == Ids{7, 4, 2, 9, 3});
    CHECK(a.answer == Mask{0, 0, 0, 1, 1});
    CHECK(b.ids == Ids{7, 4, 2, 9, 3, 5, 0, 2, 10, 3});
    CHECK(b.answer == Mask{0, 0, 0, 1, 1, 0, 0, 0, 1, 1});
    CHECK(a.visual_at == (image ? 0 : -1));
    CHECK(b.visual_at == a.visual_at);
  }
  const Tokens open = tokenize(plain.spans(two, true, true), t);
  CHECK(open.ids == Ids{7, 4, 2, 9, 3, 5, 0, 2});
  CHECK(open.answer == Mask{0, 0, 0, 1, 1, 0, 0, 0});
  const Tokenizer no_separator = Tokenizer::of({"<unk>", "<eos>"}, words);
  CHECK(error_of([&] { plain.check(no_separator); }) ==
        "[chat] template plain needs a token for separator (<sep>): the tokenizer has none");
  CHECK(error_of([] { ChatTemplate::by_name("llama"); }) ==
        "[chat] no template 'llama': there are plain and vicuna_v1");
}

TEST_CASE("the template of LLaVA-1.5 supervises only answers and their end tokens") {
  const ChatTemplate& vicuna = ChatTemplate::by_name("vicuna_v1");
  const std::vector<Turn> turns{{"what p", "yes q"}, {"q", "no"}};
  for (const auto& specials : {std::vector<std::string>{"<unk>", "<bos>", "<sep>", "<eos>"},
                               std::vector<std::string>{"<unk>", "<s>", "<sep>", "</s>"}}) {
    const Tokenizer t = Tokenizer::of(specials, words);
    vicuna.check(t);
    Ids ids{1};
    ids.resize(24);  // the 23 words of the system sentence are unknown
    ids.insert(ids.end(), {11, 7, 4, 12, 9, 5, 3, 11, 5, 12, 10, 3});
    Mask answer(28);
    answer.insert(answer.end(), {1, 1, 1, 0, 0, 0, 1, 1});
    for (const bool image : {false, true}) {
      const Tokens tokens = tokenize(vicuna.spans(turns, image), t);
      CHECK(tokens.ids == ids);
      CHECK(tokens.answer == answer);
      CHECK(tokens.visual_at == (image ? 25 : -1));
    }
  }
  CHECK(contains(error_of([&] { vicuna.check(Tokenizer::of({"<unk>", "<bos>"}, words)); }), "<eos> or </s>"));
  std::string text;
  for (const Span& s : vicuna.spans({{"Q", "A"}}, true)) text += s.text;
  CHECK(contains(text, "user's questions. USER: \nQ ASSISTANT: A"));
}

TEST_CASE("a dataset is loaded") {
  Files files;
  files.put("[" + with_image + ",\n" + two_turns + "]");
  const Dataset data = files.load();
  CHECK(files.check().empty());
  REQUIRE(data.size() == 2);
  const Sample a = data.sample(0), b = data.sample(1);
  CHECK(Ids(a.ids.begin(), a.ids.end()) == Ids{7, 4, 2, 9, 3});
  CHECK(Ids(b.ids.begin(), b.ids.end()) == Ids{4, 2, 5, 3, 6, 2, 10, 0, 3});
  CHECK(a.length(4) == 9);
  CHECK(b.length(4) == 9);
  CHECK(a.supervised() == 2);
  CHECK(a.first_answer() == 3);
  CHECK(b.supervised() == 5);
  CHECK(data.supervised_tokens() == 7);
  CHECK(data.text_tokens() == 14);
  CHECK(data.unknown_tokens() == 1);
  CHECK(data.types() == std::vector<std::string>{"t", "u"});
  CHECK(data.images() == std::vector<std::string>{"i.png"});
  CHECK(data.read_image(0).rgb == std::vector<uint8_t>(12, 9));
  CHECK_THROWS_AS(data.read_image(1), Error);
  CHECK_THROWS_AS(data.sample(2), Error);
  CHECK(data.print_sample(0, files.tokenizer) ==
        files.settings.file.string() +
            ", sample 0 (record 0): 9 tokens, 2 supervised, type t, image i.png\n"
            " <image x 4> what p <sep> [[yes <eos>]]\n");
}

TEST_CASE("each fault of a record is reported with file, record and field") {
  const Files files;
  const auto fault = [&](const std::string& record, const std::string& field, const std::string& reason) {
    files.put("[" + two_turns + ",\n" + record + "," + with_image + "]");
    const std::vector<Fault> faults = files.check();
    REQUIRE_MESSAGE(faults.size() == 1, record);
    CHECK(faults[0].file == files.settings.file);
    CHECK(faults[0].record == 1);
    CHECK(faults[0].field == field);
    CHECK_MESSAGE(contains(faults[0].reason, reason), faults[0].reason);
    CHECK(!faults[0].unsupervised);
    CHECK(contains(faults[0].text(), files.settings.file.string() + ", record 1"));
    CHECK(files.load_error() == "[data] " + faults[0].text());
  };
  const auto change = [](const std::string& from, const std::string& to) {
    return replaced(with_image, from, to);
  };
  fault("7", "", "must be an object, not number");
  fault(change("\"conversations\"", "\"turns\""), "conversations", "is missing");
  fault(R"({"conversations":"p"})", "conversations", "must be an array, not string");
  fault(R"({"conversations":[]})", "conversations", "has no human turn");
  fault(R"({"conversations":[{"from":"human","value":"p"}]})", "conversations", "ends with a human turn");
  fault(R"({"conversations":[3]})", "conversations[0]", "must be an object, not number");
  fault(change("\"gpt\"", "\"human\""), "conversations[1].from", "gpt is expected, not human");
  fault(change("\"gpt\"", "\"bot\""), "conversations[1].from", "must be human or gpt, not 'bot'");
  fault(change(",\"value\":\"yes\"", ""), "conversations[1].value", "is missing");
  fault(change("\"yes\"", "7"), "conversations[1].value", "must be a string, not number");
  fault(change("yes", "<image>"), "conversations", "<image> may stand once, in the first human value");
  fault(change("<image>", "<image><image>"), "conversations", "<image> may stand once");
  fault(change("<image>", ""), "conversations", "its first human value has no <image>");
  fault(change("\"image\":\"i.png\",", ""), "image", "is missing, but the first human value has <image>");
  fault(change("\"i.png\"", "7"), "image", "must be a string, not number");
  fault(change("i.png", "no.png"), "image", "no such image file: " + (files.folder / "images/no.png"));
  fault(change("i.png", "../d.json"), "image", "image path '../d.json' leads out of its folder");
  fault(change("i.png", "/i.png"), "image", "is absolute");
  fault(change("i.png", "i.png\\u0000"), "image", "has a NUL");
}

TEST_CASE("faults of a dataset's file and settings") {
  Files files;
  const std::string name = files.settings.file.string();
  const auto fault = [&](const std::string& reason) {
    const std::vector<Fault> faults = files.check();
    REQUIRE(faults.size() == 1);
    CHECK(faults[0].record == -1);
    CHECK(faults[0].file == name);
    CHECK_MESSAGE(contains(faults[0].reason, reason), faults[0].reason);
    CHECK(files.load_error() == faults[0].reason);
  };
  fault("cannot open " + name + ": No such file");
  files.put("[" + with_image + ",\n" + two_turns + "\n,,]");
  fault(name + ": after 2 records: ");
  fault("line 3");
  files.put("[" + with_image);
  fault("after 1 records");
  for (const char* text : {"{}", "7", "null", "\"list\""}) {
    files.put(text);
    fault(name + ": a list of records is expected at the top");
  }
  files.put("");
  fault("line 1");
  files.put("[" + with_image + "]");
  files.settings.chat = "llama";
  fault("no template 'llama': there are plain and vicuna_v1");
  files.settings.chat = "plain";
  files.settings.max_tokens = 0;
  fault("max_tokens 0 must be positive");
  files.settings.max_tokens = 64;
  files.settings.images = files.folder / "none";
  fault("is not a directory");
  files.put("[]");
  files.settings.images.clear();
  int64_t checked = -1;
  CHECK(check_dataset(files.settings, files.tokenizer, &checked).empty());
  CHECK(checked == 0);
  CHECK(contains(files.load_error(), name + ": no sample to train on"));
}

TEST_CASE("the three levels of image checks") {
  Files files;
  files.put("[" + with_image + "]");
  write_bytes(files.folder / "images/i.png", "no picture");
  CHECK(files.load().size() == 1);
  files.settings.check_images = ImageCheck::decode;
  REQUIRE(files.check().size() == 1);
  CHECK(files.check()[0].reason ==
        "[image] " + (files.folder / "images/i.png") + " is not a PNG file: wrong signature");
  files.settings.check_images = ImageCheck::none;
  files.settings.images.clear();
  CHECK(files.load().size() == 1);
  files.settings.check_images = ImageCheck::exists;
  CHECK(contains(files.load_error(), "record 0, image: the dataset has no image folder"));
}

TEST_CASE("long samples are cut, and skipped when no answer is left") {
  Files files;
  files.put("[" + with_image + "," + two_turns + "]");
  files.settings.max_tokens = 9;
  CHECK(files.load().truncated() == 0);
  files.settings.max_tokens = 8;
  const Dataset cut = files.load();
  CHECK(cut.truncated() == 2);
  CHECK(cut.sample(0).length(4) == 8);
  CHECK(cut.sample(0).supervised() == 1);
  CHECK(cut.sample(1).supervised() == 4);
  for (const int64_t tokens : {7, 4, 3}) {  // with 3 tokens the image does not fit either
    files.settings.max_tokens = tokens;
    const std::vector<Fault> faults = files.check();
    REQUIRE(faults.size() == 1);
    CHECK(faults[0].unsupervised);
    CHECK(faults[0].record == 0);
    CHECK(faults[0].reason == fmt::format("no supervised token is left within {} tokens", tokens));
    const Dataset data = files.load();
    CHECK(data.size() == 1);
    CHECK(data.sample(0).record == 1);
    CHECK(data.skipped().size() == 1);
    CHECK(data.skipped()[0].text() == faults[0].text());
  }
  files.settings.max_tokens = 1;
  CHECK(contains(files.load_error(), "no sample to train on (2 without a supervised token)"));
}

TEST_CASE("damaged lists of records are reported without a crash") {
  Files files;
  files.settings.check_images = ImageCheck::decode;
  const std::string sound = "[" + with_image + ",\n" + two_turns + "]";
  Random random(5);
  int faulty = 0, differ = 0;
  for (int i = 0; i < 1000; ++i) {
    std::string text = sound;
    for (uint32_t edits = 1 + random.below(4); edits > 0; --edits) {
      const auto at = random.below(static_cast<uint32_t>(text.size()));
      const auto byte = static_cast<char>(random.below(2) ? random.below(256) : sound[at % sound.size()]);
      const uint32_t kind = random.below(4);
      if (kind == 0)
        text.erase(at, 1 + random.below(20));
      else if (kind == 1)
        text.insert(at, 1 + random.below(3), byte);
      else if (kind == 2)
        text[at] = byte;
      else
        text.insert(at, sound.substr(random.below(100), random.below(60)));
    }
    files.put(text);
    const bool sound_now = files.check().empty();
    faulty += !sound_now;
    if (i % 8 == 0) differ += sound_now != (files.load_error() == "no error");
  }
  CHECK(faulty > 500);
  CHECK(faulty < 1000);
  CHECK(differ == 0);
}

TEST_CASE("a quoted value is shortened and stays on its line") {
  Files files;
  const auto reason_for = [&](const std::string& role) {
    files.put(R"([{"conversations":[{"from":")" + role + R"(","value":""}]}])");
    const std::vector<Fault> faults = files.check();
    REQUIRE(faults.size() == 1);
    return faults[0].reason;
  };
  CHECK(reason_for("a\\nb\\u0007") == "must be human or gpt, not 'a\\x0ab\\x07'");
  CHECK(reason_for(std::string(100000, 'a')).size() == 403);
  const std::string accents = reason_for(std::string(399, 'a') + "\u00E9\u00E9");
  CHECK(contains(accents, "a..."));
}

TEST_CASE("deeply nested lists are rejected without a crash") {
  const Folder folder;
  const std::string sound = small_tokenizer().json(), deep(200000, '['), end(200000, ']');
  const auto refuses = [&](const std::string& from, const std::string& to, const std::string& reason) {
    const std::string error = error_of([&] { Tokenizer::parse(replaced(sound, from, to), "t"); });
    CHECK_MESSAGE(contains(error, reason), error);
  };
  refuses("\"q\": 5", "\"q\": " + deep + end, "an id must be a small non-negative integer, not array");
  refuses("\"normalizer\": null", "\"normalizer\": " + deep + end, "normalizer 'array' is not supported");
  Files files;
  files.put("[" + with_image + "," + deep + end + ",{\"image\":" + deep + end + "}]");
  const std::vector<Fault> faults = files.check();
  REQUIRE(faults.size() == 2);
  CHECK(faults[0].reason == "must be an object, not array");
  CHECK(faults[1].text() == files.settings.file.string() + ", record 2, image: must be a string, not array");
}
