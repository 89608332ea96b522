// The tokenizers of published checkpoints against the libraries that made them (scripts/golden/text.py).
#include "data/json.h"
#include "tests/support/data_testing.h"

using namespace burrow;
using namespace burrow::data;
namespace fs = std::filesystem;

namespace {

using Ids = std::vector<int32_t>;

const fs::path golden_folder = fs::path(BURROW_TEST_FILES) / "golden/tokenizers";
const std::vector<std::string> json_files{"gpt2.json", "llama3.json", "qwen.json", "llama2.json",
                                          "metaspace.json"};

const nlohmann::json& golden() {
  static const nlohmann::json file = parse_json(golden_folder / "golden.json");
  return file;
}
std::vector<std::string> texts() { return golden()["texts"].get<std::vector<std::string>>(); }

Ids joined(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

TEST_CASE("ids and texts of a tokenizer.json are Hugging Face's") {
  for (const std::string& name : json_files) {
    const Tokenizer t = Tokenizer::load(golden_folder / name);
    CHECK(!t.whole_words());
    CHECK_THROWS_AS(t.json(), Error);
    for (size_t i = 0; i < texts().size(); ++i) {
      const std::string text = texts()[i];
      const auto& row = golden()[name][i];
      CHECK_MESSAGE(t.encode(text) == row[0].get<Ids>(), name << ": " << text);
      CHECK_MESSAGE(t.encode_plain(text) == row[1].get<Ids>(), name << ", plain: " << text);
      CHECK_MESSAGE(t.decode(row[0].get<Ids>()) == row[2].get<std::string>(), name << ": " << text);
    }
  }
}

TEST_CASE("ids and texts of a tokenizer.model are SentencePiece's") {
  for (const std::string name : {"llama2.model", "unigram.model"}) {
    const Tokenizer t = Tokenizer::load(golden_folder / name);
    for (size_t i = 0; i < texts().size(); ++i) {
      const auto& row = golden()[name][i];
      CHECK_MESSAGE(t.encode_plain(texts()[i]) == row[0].get<Ids>(), name << ": " << texts()[i]);
      CHECK_MESSAGE(t.decode(row[0].get<Ids>()) == row[1].get<std::string>(), name << ": " << texts()[i]);
    }
  }
}

TEST_CASE("decoding restores an encoded text") {
  for (const std::string name :
       {"gpt2.json", "llama3.json", "llama2.json", "metaspace.json", "llama2.model"}) {
    const Tokenizer t = Tokenizer::load(golden_folder / name);
    for (const std::string& text : texts()) {
      const bool of_bytes = name.starts_with("gpt2") || name.starts_with("llama3");
      if (!of_bytes && contains(text, "\u2581")) continue;  // the space mark decodes to a space
      if (name == "metaspace.json" && text.starts_with(' '))
        continue;  // encoding adds no mark before it, but decoding removes one
      CHECK_MESSAGE(t.decode(t.encode_plain(text)) == text, name << ": " << text);
    }
  }
  // A character cut in two decodes to U+FFFD.
  const Tokenizer bytes = Tokenizer::load(golden_folder / "gpt2.json");
  const Ids smile = bytes.encode("\U0001f6ff");
  REQUIRE(smile.size() >= 2);
  CHECK(bytes.decode(std::span(smile).first(smile.size() - 1)) == "\uFFFD");
  const Tokenizer fallback = Tokenizer::load(golden_folder / "llama2.json");
  CHECK(fallback.decode(Ids{fallback.id_of("<0xE2>"), fallback.id_of("<0x82>"), fallback.id_of("<0xAC>")}) ==
        "\u20AC");
  CHECK(fallback.decode(Ids{fallback.id_of("<0xE2>"), fallback.id_of("<0x82>")}) == "\uFFFD\uFFFD");
}

TEST_CASE("special tokens of a SentencePiece model and of the files beside it") {
  const Folder folder;
  const std::string path = folder / "tokenizer.model";
  fs::copy_file(golden_folder / "llama2.model", path);
  const Tokenizer bare = Tokenizer::load(path);
  CHECK(bare.unknown() == 0);
  CHECK(bare.begin_of_text() == 1);
  CHECK(bare.end_of_text() == 2);
  const Ids hi = bare.encode("hi");
  CHECK(bare.encode("<s>hi</s>hi") == joined(joined({1}, hi), joined({2}, hi)));
  CHECK(bare.encode_plain("<s>") != Ids{1});
  CHECK(bare.decode(joined(joined({1}, hi), {2})) == "hi");
  CHECK(bare.find("<image>") == -1);

  const auto size = static_cast<int32_t>(bare.size());
  write_bytes(folder / "added_tokens.json",
              fmt::format(R"({{"<pad>": {}, "<image>": {}, "</s>": 2}})", size + 1, size));
  write_bytes(folder / "tokenizer_config.json", R"({"bos_token": null, "eos_token": {"content": "<pad>"}})");
  const Tokenizer t = Tokenizer::load(path);
  CHECK(t.size() == size + 2);
  CHECK(t.begin_of_text() == -1);
  CHECK(t.end_of_text() == size + 1);
  CHECK(t.encode("<image>hi") == joined({size}, hi));
  CHECK(t.encode_plain("hi") == hi);
  CHECK(t.decode(joined({size}, hi)) == "hi");
  CHECK(contains(error_of([&] { t.json(); }), "only a tokenizer of whole words"));

  write_bytes(folder / "added_tokens.json", R"({"<image>": 5})");
  CHECK(contains(error_of([&] { Tokenizer::load(path); }), "added_tokens.json: id 5 is used twice"));
  write_bytes(folder / "added_tokens.json", "{}");
  write_bytes(folder / "tokenizer_config.json", R"({"eos_token": "<end>"})");
  CHECK(contains(error_of([&] { Tokenizer::load(path); }), "eos_token '<end>' is not in the vocabulary"));
  write_bytes(folder / "tokenizer_config.json", R"({"eos_token": 3})");
  CHECK(contains(error_of([&] { Tokenizer::load(path); }), "eos_token must be a string, not number"));
  write_bytes(path, "no model");
  CHECK(contains(error_of([&] { Tokenizer::load(path); }), path + ": not a SentencePiece model"));
}

TEST_CASE("no space is put before a text that continues another") {
  for (const std::string name :
       {"llama2.model", "unigram.model", "llama2.json", "metaspace.json", "qwen.json"}) {
    const Tokenizer t = Tokenizer::load(golden_folder / name);
    const std::string question = "What is it?", answer = " 42 hello";
    CHECK_MESSAGE(joined(t.encode_plain(question), t.encode_plain(answer, Place::inside)) ==
                      t.encode_plain(question + answer),
                  name);
  }
  const Tokenizer t = Tokenizer::load(golden_folder / "llama2.model");
  CHECK(t.decode(t.encode_plain("ab", Place::inside)) == "ab");
  CHECK(t.token(t.encode_plain("ab", Place::inside)[0])[0] == 'a');
}

TEST_CASE("a conversation's tokens are those of its text") {
  // LLaVA's code encodes the text before and after the image separately, each with a space before it, and
  // splits at the end token of an answer too.
  const ChatTemplate& vicuna = ChatTemplate::by_name("vicuna_v1");
  for (const std::string name : {"llama2.model", "llama2.json"}) {
    const Tokenizer t = Tokenizer::load(golden_folder / name);
    std::string system;
    for (const Span& s : vicuna.spans({{"", ""}}, true)) {
      if (s.content == Span::Content::image) break;
      system += s.text;
    }
    const Ids first = t.encode_plain(system), second = t.encode_plain("\nWhat is it? ASSISTANT: 42"),
              third = t.encode_plain("USER: hello ASSISTANT: world");
    const Tokens tokens = tokenize(vicuna.spans({{"What is it?", "42"}, {"hello", "world"}}, true), t);
    Ids all = joined(joined({1}, first), joined(second, {2}));
    all = joined(all, joined(third, {2}));
    CHECK_MESSAGE(tokens.ids == all, name);
    CHECK(tokens.visual_at == static_cast<int32_t>(first.size()) + 1);
    Ids answers;
    for (size_t i = 0; i < tokens.ids.size(); ++i) {
      if (tokens.answer[i]) answers.push_back(tokens.ids[i]);
    }
    CHECK(t.decode(answers) == "42 world");
    CHECK(std::count(answers.begin(), answers.end(), 2) == 2);
  }
}

TEST_CASE("begin, end and unknown tokens of a tokenizer.json") {
  CHECK(Tokenizer::load(golden_folder / "llama3.json").begin_of_text() ==
        Tokenizer::load(golden_folder / "llama3.json").id_of("<|begin_of_text|>"));
  const Tokenizer qwen = Tokenizer::load(golden_folder / "qwen.json");
  CHECK(qwen.begin_of_text() == -1);
  CHECK(qwen.end_of_text() == qwen.id_of("<|endoftext|>"));
  CHECK(qwen.unknown() == -1);
  CHECK(!qwen.is_special(qwen.id_of("<think>")));
  CHECK(qwen.decode(Ids{qwen.id_of("<think>"), qwen.end_of_text(), 100000}) == "<think>");
}

TEST_CASE("unsupported parts of a tokenizer.json are named in the error") {
  const std::string llama3 = read_file(golden_folder / "llama3.json"),
                    llama2 = read_file(golden_folder / "llama2.json");
  const auto fault = [](const std::string& sound, const std::string& from, const std::string& to,
                        const std::string& reason) {
    const std::string error = error_of([&] { Tokenizer::parse(replaced(sound, from, to), "t.json"); });
    CHECK_MESSAGE((contains(error, "t.json") && contains(error, reason)), error);
  };
  fault(llama3, R"("type": "BPE")", R"("type": "Unigram")", "model type 'Unigram' is not supported");
  fault(llama3, R"("behavior": "Isolated")", R"("behavior": "Removed")",
        "pre_tokenizer Split with behavior 'Removed' and invert false is not supported, only Isolated with "
        "false");
  fault(llama3, R"({"type": "ByteLevel", "add_prefix_space": false)",
        R"({"type": "Bert", "add_prefix_space": false)", "pre_tokenizer 'Bert' is not supported, only Split");
  fault(llama3, R"(\\s+(?!\\S))", R"(\\s+(?!\\S)", "pattern '");
  fault(llama3, R"(\\s+(?!\\S))", R"(\\w+)", "it uses \\w");
  fault(llama3, R"("decoder": {"type": "ByteLevel")", R"("decoder": {"type": "WordPiece")",
        "decoder 'WordPiece' is not supported");
  fault(llama3, R"("single_word": false)", R"("single_word": true)", "single_word true is not supported");
  fault(llama3, R"("single_word": false)", R"("single_word": 1)", "must be true or false, not number");
  fault(llama3, R"("dropout": null)", R"("dropout": 0.1)", "model.dropout is not supported");
  fault(llama3, R"("ignore_merges": true)", R"("ignore_merges": 1)",
        "model.ignore_merges must be true or false");
  fault(llama3, R"("end_of_word_suffix": null)", R"("end_of_word_suffix": "</w>")",
        "model.end_of_word_suffix is not supported");
  fault(llama3, R"("merges": [[)", R"("merges": [["a"], [)", "model.merges[0] is not a pair of tokens");
  fault(llama3, R"("merges": [[)", R"("merges": [["a", "zzz"], [)",
        "model.merges[0] has 'zzz', which model.vocab lacks");
  fault(llama2, R"("type": "Prepend")", R"("type": "Lowercase")",
        "normalizer 'Lowercase' is not supported, only NFC");
  fault(llama2, R"("pattern": {"String": " "})", R"("pattern": {"Regex": " "})",
        "normalizer pattern is not supported, only a String");
  fault(llama2, R"("prepend": ")", R"("append": ")", "normalizer: field 'prepend' is missing");
  fault(llama2, R"("unk_token": "<unk>")", R"("unk_token": "<no>")", "the unknown token '<no>' is not in");
  const Tokenizer t = Tokenizer::parse(llama3, "t");
  CHECK(contains(error_of([&] { t.encode("a\xff"); }), "not UTF-8"));
}
