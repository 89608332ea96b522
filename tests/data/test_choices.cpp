// Reading of multiple-choice items and texts, their errors, and the conversion of published files.
#include "data/published/convert.h"
#include "data/sets/batch.h"
#include "tensor/files.h"
#include "tensor/json.h"
#include "tests/support/choices_testing.h"
#include "train/run/baselines.h"
#include "train/run/evaluate.h"

using namespace burrow;
using namespace burrow::data;
using namespace burrow::data::testing;

namespace {

// The only sample of a text, as print_sample shows it, without its first line.
std::string tokens_of(const std::string& text, const DatasetSettings& settings) {
  const Tokenizer tokenizer = word_tokenizer();
  const Dataset set = Dataset::parse(text, settings, tokenizer);
  REQUIRE(set.size() == 1);
  const std::string shown = set.print_sample(0, tokenizer);
  return shown.substr(shown.find('\n') + 2);
}

std::string fault_of(const std::string& text, Format format = Format::choices,
                     const Tokenizer& tokenizer = word_tokenizer()) {
  const auto faults = check_dataset(text, settings_of(format), tokenizer);
  REQUIRE(faults.size() == 1);
  // Loading reports the same fault, except for skipped samples.
  if (!faults[0].unsupervised && faults[0].record >= 0)
    CHECK(
        contains(error_of([&] { Dataset::parse(text, settings_of(format), tokenizer); }), faults[0].text()));
  return faults[0].text();
}

}  // namespace

TEST_CASE("the words around an item, by shape") {
  const DatasetSettings s = settings_of(Format::choices);
  CHECK(tokens_of(item("boolq", "p q", "[\"true\", \"false\"]", "1"), s) ==
        "<bos> Is it true or false? Question: p q Answer: [[false]]\n");
  CHECK(tokens_of(item("boolq", "p q", "[\"false\", \"true\"]", "1"), s) ==
        "<bos> Is it true or false? Question: p q Answer: [[true]]\n");
  CHECK(tokens_of(item("arc", "p q", "[\"r\", \"s\", \"p\"]", "2"), s) ==
        "<bos> Which answer is right? Question: p q (A) r (B) s (C) p Answer: [[C]]\n");
  CHECK(tokens_of(item("winogrande", "p q", "[\"r\", \"s\"]", "0"), s) ==
        "<bos> Which option fills the blank? Sentence: p q (1) r (2) s Option: [[1]]\n");
  const std::string with_context =
      R"({"id": "x", "task": "siqa", "context": " p ", "question": "q", "choices": ["r", "s"], "answer": 1})";
  CHECK(tokens_of(with_context, s) ==
        "<bos> Which answer fits what happened? Context: p Question: q (A) r (B) s Answer: [[B]]\n");
  for (const TaskShape& shape : task_shapes()) {  // the labels of every shape are single tokens
    const std::string choices = shape.choices_are_labels ? "[\"true\", \"false\"]" : "[\"r\", \"s\"]";
    const std::string tokens = tokens_of(item(shape.name, "p", choices, "1"), s);
    CHECK(contains(tokens, fmt::format("[[{}]]", shape.labels[1])));
    CHECK(!contains(tokens, "<unk>"));
  }
}

TEST_CASE(
    "supervision of all tokens leaves out the first, which nothing predicts, and keeps the kinds of tokens") {
  DatasetSettings s = settings_of(Format::choices);
  s.supervision = Supervision::all;
  const std::string text = item("boolq", "p", "[\"true\", \"false\"]", "0");
  CHECK(tokens_of(text, s) == "<bos> [[Is it true or false? Question: p Answer: true]]\n");
  const Tokenizer tokenizer = word_tokenizer();
  const Dataset set = Dataset::parse(text, s, tokenizer);
  const std::vector<BatchSample> one{{set.sample(0), 0, 0}};
  const Batch batch = make_batch(one, 0);
  CHECK(set.sample(0).supervised() == 9);
  CHECK(set.supervised_tokens() == 9);
  CHECK(batch.supervised.numel() == 9);
  CHECK(batch.targets.data<int32_t>()[8] == tokenizer.id_of("true"));
  CHECK(std::count(batch.segments.kind.begin(), batch.segments.kind.end(), TokenKind::answer) == 1);
  CHECK(set.sample(0).first_answer() == 9);
}

TEST_CASE("all tokens of a text are supervised, and a long text continues as the next sample") {
  const Tokenizer tokenizer = word_tokenizer();
  const std::string text = "{\"text\": \"p q r s\"}\n\n{\"text\": \"yes <eos>\", \"source\": 1}\r\n";
  const Dataset set = Dataset::parse(text, settings_of(Format::text), tokenizer);
  REQUIRE(set.size() == 2);
  CHECK(set.sample(0).supervised() == 5);
  CHECK(set.print_sample(0, tokenizer) ==
        "set.jsonl, sample 0 (line 1): 6 tokens, 5 supervised\n <bos> [[p q r s <eos>]]\n");
  CHECK(set.print_sample(1, tokenizer) ==
        "set.jsonl, sample 1 (line 3): 4 tokens, 3 supervised\n <bos> [[yes <unk> <eos>]]\n");
  const Dataset cut = Dataset::parse(text, settings_of(Format::text, 3), tokenizer);
  CHECK(cut.size() == 3);  // bos p q | r s eos | bos yes unk; a single eos is no sample
  CHECK(contains(cut.print_sample(1, tokenizer), " r [[s <eos>]]"));
  std::vector<BatchSample> all;
  for (int64_t i = 0; i < cut.size(); ++i) all.push_back({cut.sample(i), 0, i});
  CHECK(make_batch(all, 0).supervised.numel() == cut.supervised_tokens());
  CHECK(cut.supervised_tokens() == 6);
}

TEST_CASE("every fault is named with file, line and field") {
  const std::string two = "[\"r\", \"s\"]";
  const std::vector<std::pair<std::string, std::string>> faults{
      {"{\"task\": \"arc\"", "set.jsonl, line 1: malformed JSON: column"},
      {"7", "set.jsonl, line 1: must be an object, not number"},
      {"{}", "line 1, task: is missing"},
      {item("ark", "p", two, "0"),
       "line 1, task: no task shape 'ark': there are boolq, piqa, siqa, hellaswag"},
      {item("arc", " ", two, "0"), "line 1, question: is empty"},
      {"{\"task\": \"arc\", \"choices\": [\"r\", \"s\"], \"answer\": 0}", "line 1, question: is missing"},
      {"{\"task\": \"arc\", \"question\": \"p\", \"answer\": 0}", "line 1, choices: is missing"},
      {item("arc", "p", "\"r\"", "0"), "line 1, choices: must be an array of strings, not string"},
      {item("arc", "p", "[\"r\"]", "0"), "line 1, choices: has 1 choices: an item of arc has 2 to 5"},
      {item("piqa", "p", "[\"r\", \"s\", \"q\"]", "0"), "choices: has 3 choices: an item of piqa has 2"},
      {item("arc", "p", "[\"r\", 3]", "0"), "line 1, choices[1]: must be a string, not number"},
      {item("arc", "p", "[\"r\", \"\"]", "0"), "line 1, choices[1]: is empty"},
      {item("arc", "p", "[\"r\", \"s\", \" r\"]", "0"), "line 1, choices[2]: repeats choices[0]: 'r'"},
      {item("boolq", "p", "[\"yes\", \"no\"]", "0"),
       "choices[0]: 'yes': the choices of boolq are true and false"},
      {"{\"task\": \"arc\", \"question\": \"p\", \"choices\": [\"r\", \"s\"]}", "line 1, answer: is missing"},
      {item("arc", "p", two, "\"A\""),
       "answer: must be the index of a choice, an integer from 0, not string"},
      {item("arc", "p", two, "1.5"), "answer: must be the index of a choice, an integer from 0, not 1.5"},
      {item("arc", "p", two, "2"), "line 1, answer: 2 is out of range: the 2 choices are 0 to 1"},
      {item("arc", "p", two, "-1"), "line 1, answer: -1 is out of range"},
      {item("arc", "p", two, "18446744073709551615"), "answer: 18446744073709551615 is out of range"},
      {replaced(item("arc", "p", two, "0"), "{", "{\"context\": 3, "),
       "context: must be a string, not number"},
      {"[" + item("arc", "p", two, "0") + "]",
       "set.jsonl: [data] set.jsonl: is a JSON list; JSON lines are"}};
  for (const auto& [text, part] : faults) {
    const std::string fault = fault_of(text);
    CHECK_MESSAGE(contains(fault, part), fault);
  }

  CHECK(contains(fault_of("{\"txt\": \"p q\"}", Format::text), "line 1, text: is missing"));
  CHECK(contains(fault_of("{\"text\": 3}", Format::text), "line 1, text: must be a string, not number"));
  CHECK(contains(fault_of("{\"text\": \" \"}", Format::text), "line 1, text: is empty"));
  CHECK(contains(fault_of("[3", Format::text), "a JSON list"));

  // A label must be one token, if the item uses it.
  const Tokenizer few = Tokenizer::of({"<unk>"}, {"A", "p", "B"});
  CHECK(contains(fault_of(item("arc", "p", "[\"r\", \"s\", \"q\"]", "0"), Format::choices, few),
                 "line 1, task: arc's label 'C' must be one token of the tokenizer: it is unknown"));
  CHECK(check_dataset(item("arc", "p", two, "0"), settings_of(Format::choices), few).empty());
  const Dataset set = Dataset::parse(item("arc", "p", two, "1"), settings_of(Format::choices), few);
  CHECK(set.labels(set.sample(0), false).size() == 2);
  CHECK(set.labels(set.sample(0), true)[4] == -1);

  // Lines after a bad one are checked too.
  int64_t checked = 0;
  const auto all = check_dataset("{\n" + item("arc", "p", two, "0") + "\n" + item("arc", "p", two, "9"),
                                 settings_of(Format::choices), word_tokenizer(), &checked);
  REQUIRE(all.size() == 2);
  CHECK(checked == 3);
  CHECK(all[1].text().starts_with("set.jsonl, line 4, answer: 9"));

  // A prompt that does not fit is skipped and reported.
  const auto cut =
      check_dataset(item("arc", "p", two, "0"), settings_of(Format::choices, 8), word_tokenizer());
  REQUIRE(cut.size() == 1);
  CHECK(cut[0].unsupervised);
  CHECK(cut[0].text() == "set.jsonl, line 1, question: no supervised token is left within 8 tokens");
}

TEST_CASE("the first label in an answer must be a separate word") {
  using train::first_label;
  const std::vector<std::string> letters{"A", "B"}, words{"true", "false"};
  CHECK(first_label("B", letters) == 1);
  CHECK(first_label("the answer is (B), not A", letters) == 1);
  CHECK(first_label("a B", letters) == 1);
  CHECK(first_label("AB", letters) == -1);
  CHECK(first_label("", letters) == -1);
  CHECK(first_label("It is False.", words) == 1);
  CHECK(first_label("untrue", words) == -1);
  CHECK(first_label("\u00E9A A", letters) == 0);
  CHECK(first_label("\u00E9A", letters) == -1);
}

TEST_CASE("chance, majority and blind of items") {
  const Folder folder;
  const std::string rs = "[\"r\", \"s\"]", sr = "[\"s\", \"r\"]", three = "[\"r\", \"s\", \"q\"]";
  // Answers r, r, q, r, with labels A, B, C, A.
  const std::string train =
      folder.put("train.jsonl", item("arc", "p", rs, "0") + item("arc", "p", sr, "1") +
                                    item("arc", "q", three, "2") + item("arc", "r", rs, "0"));
  const std::string test =
      folder.put("test.jsonl", item("arc", "p", sr, "1") + item("arc", "q", three, "2") +
                                   item("arc", "new", rs, "0") + item("arc", "p", rs, "1"));
  const train::Baselines b = train::baselines(Format::choices, train, test, 0);
  CHECK(b.chance == doctest::Approx((0.5 + 1.0 / 3 + 0.5 + 0.5) / 4));
  CHECK(b.majority == 0.25);  // label A is right in the third item
  CHECK(b.blind == 0.75);     // r, q, the majority label, and r where s is right
  CHECK(train::baselines(Format::choices, train, test, 1).majority == 0);
  const train::Baselines circle = train::baselines(Format::choices, train, test, 0, true);
  CHECK(circle.majority == 0);
  CHECK(circle.chance == doctest::Approx((0.25 + 1.0 / 27 + 0.25 + 0.25) / 4));
  CHECK(circle.blind == 0.5);  // without the third item
  CHECK(error_of([&] { train::baselines(Format::text, train, test, 0); }) ==
        train + ": texts have no answers to guess");
  const std::string bad = folder.put("bad.jsonl", "\n" + item("arc", "p", rs, "2"));
  CHECK(error_of([&] { train::baselines(Format::choices, train, bad, 0); }) ==
        bad + ", line 2: answer: 2 is out of range: the 2 choices are 0 to 1");
}

namespace {

struct Published {
  const char* shape;
  std::string record, labels;  // labels: empty when the record has its answer
  std::string item;            // the expected output
};
const std::vector<Published> published{
    {"boolq", R"({"question": "is p", "title": "t", "answer": false, "passage": "q"})", "",
     R"({"id":"boolq-1","task":"boolq","question":"is p","choices":["true","false"],"answer":1})"},
    {"piqa", R"({"goal": "p", "sol1": "q", "sol2": "r"})", "1\n",
     R"({"id":"piqa-1","task":"piqa","question":"p","choices":["q","r"],"answer":1})"},
    {"siqa", R"({"context": "c", "question": "p", "answerA": "q", "answerB": "r", "answerC": "s"})", "3\r\n",
     R"({"id":"siqa-1","task":"siqa","context":"c","question":"p","choices":["q","r","s"],"answer":2})"},
    {"hellaswag", R"({"ind": 4, "ctx": "p", "endings": ["q", "r", "s", "t"], "label": "3"})", "",
     R"({"id":"hellaswag-1","task":"hellaswag","question":"p","choices":["q","r","s","t"],"answer":3})"},
    {"winogrande", R"({"qID": "w7", "sentence": "p _ q", "option1": "r", "option2": "s", "answer": "2"})", "",
     R"({"id":"w7","task":"winogrande","question":"p _ q","choices":["r","s"],"answer":1})"},
    {"arc",
     R"({"id": "M1", "question": {"stem": "p", "choices": [{"text": "q", "label": "1"}, {"text": "r", "label": "2"}]},
 "answerKey": "2"})",
     "", R"({"id":"M1","task":"arc","question":"p","choices":["q","r"],"answer":1})"},
    {"obqa",
     R"({"id": "7-9", "question": {"stem": "p", "choices": [{"text": "q", "label": "A"}, {"text": "r", "label": "B"}]},
 "answerKey": "A"})",
     "", R"({"id":"7-9","task":"obqa","question":"p","choices":["q","r"],"answer":0})"}};

// Options of a conversion of `text` to out.jsonl, with a file of labels where there are some.
ConvertOptions options_of(const Folder& folder, const char* shape, const std::string& text,
                          const std::string& labels) {
  ConvertOptions o;
  o.shape = shape;
  o.in = folder.put("in.jsonl", text);
  if (!labels.empty()) o.labels = folder.put("in.lst", labels);
  o.out = folder / "out.jsonl";
  return o;
}

std::string on_one_line(const std::string& record) { return nlohmann::json::parse(record).dump() + "\n"; }

}  // namespace

TEST_CASE("published files are converted to items") {
  const Folder folder;
  for (const Published& p : published) {
    INFO(p.shape);
    const Converted done = convert_choices(options_of(folder, p.shape, on_one_line(p.record), p.labels));
    CHECK(done.items == 1);
    CHECK(done.answers.begin()->second == 1);
    CHECK(read_file(folder / "out.jsonl") == p.item + "\n");
  }
  ConvertOptions o = options_of(folder, "boolq", on_one_line(published[0].record), "");
  o.passage = true;
  convert_choices(o);
  CHECK(contains(read_file(folder / "out.jsonl"), "\"context\":\"q\""));
}

TEST_CASE("faulty published files are rejected with the reason") {
  const Folder folder;
  const auto error = [&](const char* shape, const std::string& text, const std::string& labels = "",
                         bool leave_out = false) {
    ConvertOptions o = options_of(folder, shape, text, labels);
    o.leave_out = leave_out;
    std::string what = error_of([&] { convert_choices(o); });
    CHECK((what == "no error") == std::filesystem::exists(folder / "out.jsonl"));
    std::filesystem::remove(folder / "out.jsonl");
    return what;
  };
  const auto record = [](size_t i) { return on_one_line(published[i].record); };
  const std::string in = folder / "in.jsonl", lst = folder / "in.lst";
  CHECK(error("csqa", record(0)).starts_with("[choices] no task shape 'csqa': there are boolq"));
  CHECK(error("boolq", record(1)) == in + ", line 1: answer: is missing");
  CHECK(error("boolq", "{\"question\": \"p\", \"answer\": \"yes\"}") ==
        in + ", line 1: answer: must be true or false, not string");
  CHECK(error("piqa", record(1)) ==
        in + ", line 1: label: is missing: name the file of labels (.lst) with --labels");
  CHECK(error("piqa", record(1) + record(1), "0\n") ==
        fmt::format("{} has 1 labels, but {} has more records", lst, in));
  CHECK(error("piqa", record(1), "0\n1\n") == fmt::format("{} has 2 labels, but {} has 1 records", lst, in));
  CHECK(error("piqa", record(1), "A\n") == lst + ", line 1: 'A' is not a label: a whole number is expected");
  CHECK(contains(error("piqa", record(1), "2\n"),
                 "line 1: answer: 2 is out of range: the 2 choices are 0 to 1"));
  CHECK(contains(error("siqa", record(2), "0\n"), "line 1: answer: -1 is out of range"));
  CHECK(contains(error("hellaswag", record(3), "0\n"),
                 "the files of hellaswag have their answers in the records"));
  CHECK(contains(error("winogrande", replaced(record(4), "\"answer\":\"2\"", "\"answer\":\"\"")),
                 "line 1: answer: is empty: a test file without its answers"));
  CHECK(contains(error("arc", replaced(record(5), "\"answerKey\":\"2\"", "\"answerKey\":\"E\"")),
                 "line 1: answerKey: 'E' is not one of the labels 1, 2"));
  CHECK(contains(error("obqa", "{\"question\": {\"stem\": \"p\"}}"), "line 1: choices: is missing"));
  CHECK(contains(error("boolq", "{"), "line 1: malformed JSON"));
  CHECK(error("boolq", "\n") == in + ": no item to write");
  const std::string same = replaced(record(1), "\"sol1\":\"q\"", "\"sol1\":\"r\"");
  CHECK(contains(error("piqa", same, "0\n"),
                 "choices[1]: repeats choices[0]: 'r' (--leave-out drops such items)"));
  CHECK(error("piqa", same + record(1), "0\n1\n", true) == "no error");
  CHECK(contains(error("piqa", same + record(1), "0\n7\n", true), "line 2: answer: 7 is out of range"));
  ConvertOptions o{"boolq", in, "", in};
  CHECK(error_of([&] { convert_choices(o); }) == in + ": the output is the input");
  o.shape = "piqa", o.out = lst + "x", o.passage = true;
  CHECK(error_of([&] { convert_choices(o); }) == "--passage: only boolq has passages, not piqa");
}
