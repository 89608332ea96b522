// A text-only decoder, run through the program: pretraining on texts, multiple-choice tasks and their
// protocols.

#include "tensor/json.h"
#include "tensor/safetensors.h"
#include "tests/support/choices_testing.h"
#include "tests/support/playground.h"

namespace fs = std::filesystem;
using namespace burrow::testing;
using burrow::data::testing::item;
using nlohmann::json;

namespace {

// Two tasks that a small decoder learns quickly, and texts.
struct TextPlayground : Playground {
  TextPlayground() : Playground(false) {
    burrow::data::testing::word_tokenizer().save(folder / "tokenizer.json");
    std::string items, texts;
    for (int i = 0; i < 60; ++i) {
      const bool p = i % 3 > 0;
      items += item("boolq", p ? "p s" : "q s", "[\"true\", \"false\"]", p ? "0" : "1");
      items +=
          item("arc", p ? "r" : "s", i % 2 ? "[\"p\", \"q\"]" : "[\"q\", \"p\", \"yes\"]", p ? "0" : "1");
      texts += "{\"text\": \"p q r s p q r s p q r s\"}\n";
    }
    write("items.jsonl", items);
    write("texts.jsonl", texts);
    const std::string model = fmt::format(
        "base = '{}'\n[model.decoder]\nlayers = 2\nwidth = 32\nheads = 2\nkv_heads = 2\nmlp_width = 48\n",
        fs::proximate(fs::path(BURROW_TEST_FILES) / "../configs/models/miniature_text.toml", folder)
            .string());
    const std::string data = "[data]\ntokenizer = 'tokenizer.json'\nsamples = 1200\n";
    write("pretrain.toml", model + data +
                               "[method]\nname = 'full'\n[train]\ntokens_per_step = 100\nmax_steps = 20\n"
                               "[[data.sets]]\nname = 'words'\nformat = 'text'\ntrain = 'texts.jsonl'\n"
                               "test = 'texts.jsonl'\n");
    write(
        "tasks.toml",
        model + data +
            "[method]\nname = 'full'\n[train]\ntokens_per_step = 150\nmax_steps = 90\ncheckpoint_every = 20\n"
            "[eval]\nmax_new = 3\n[[data.sets]]\nname = 'facts'\nformat = 'choices'\ntrain = 'items.jsonl'\n"
            "test = 'items.jsonl'\n");
    REQUIRE(run({"train", "tasks.toml", "--out", "tasks"}).code == 0);
  }
};

const TextPlayground& text_playground() {
  static const TextPlayground p;
  return p;
}

Outcome good(const std::vector<std::string>& arguments) {
  Outcome o = text_playground().run(arguments);
  REQUIRE_MESSAGE(o.code == 0, o.text);
  return o;
}

}  // namespace

TEST_CASE("a dry run on LLaMA-2-7B counts its parameters, without a tower") {
  const auto& p = text_playground();
  p.write(
      "7b.toml",
      fmt::format(
          "base = '{}'\n{}",
          fs::proximate(fs::path(BURROW_TEST_FILES) / "../configs/models/llama_2_7b.toml", p.folder).string(),
          p.read("tasks.toml").substr(p.read("tasks.toml").find("[data]"))));
  const Outcome o = good({"train", "7b.toml", "--dry-run"});
  CHECK_MESSAGE(has(o.text, "parameters: 6738415616 in all, 6738415616 trainable"), o.text);
}

TEST_CASE("texts are learnt, and scored by the next token") {
  const auto& p = text_playground();
  const Outcome o = good({"train", "pretrain.toml", "--out", "pretrained"});
  CHECK(has(o.text, "tokens)  next token"));
  CHECK(has(o.text, "nats per token"));
  const json result = json::parse(p.read("pretrained/result.json"));
  CHECK(result["score"]["words"].get<double>() > 0.9);
  CHECK(result["nats_per_token"]["words"].get<double>() < 0.5);
  CHECK(result["count"]["words"] == 60 * 13);
  CHECK(result["scoring"]["words"]["loss"] == "all");
  // The vocabulary size is that of the tokenizer, and the weights are those of a decoder.
  const auto trained = burrow::read_safetensors((p.folder / "pretrained/trained.safetensors").string());
  const auto words = static_cast<int64_t>(burrow::data::template_words().size()) + 9;
  CHECK(trained.tensors.at("language_model.lm_head.weight").dim(0) == words);
  for (const auto& [name, tensor] : trained.tensors) CHECK(name.starts_with("language_model."));
  // Files of language models name their tensors without LLaVA's prefix, and may contain rotary frequencies.
  std::vector<std::pair<std::string, burrow::Tensor>> plain;
  for (const auto& [name, tensor] : trained.tensors) plain.emplace_back(name.substr(15), tensor);
  plain.emplace_back("model.layers.0.self_attn.rotary_emb.inv_freq",
                     burrow::Tensor::full({8}, 1, burrow::DType::f32));
  burrow::write_safetensors((p.folder / "llama.safetensors").string(), plain);
  good({"train", "pretrain.toml", "--out", "loaded", "--set", "model.weights=llama.safetensors", "--set",
        "train.lr=0", "--set", "train.max_steps=1"});
  CHECK(json::parse(p.read("loaded/result.json"))["score"] == result["score"]);
  // The model continues a text, and can be the base of another run.
  CHECK(good({"ask", "pretrained", "p q r"}).text.starts_with("s p q r s"));
  good({"train", "tasks.toml", "--out", "on_top", "--set", "model.weights=pretrained/trained.safetensors",
        "--set", "method.name=mole", "--set", "train.max_steps=2"});
}

TEST_CASE("tasks are scored by each protocol, which the result names beside the baselines") {
  const auto& p = text_playground();
  const json result = json::parse(p.read("tasks/result.json"));
  CHECK(result["score"]["facts"] == 1);
  CHECK(result["count"]["facts"] == 120);
  CHECK(result["by_type"]["facts"]["boolq"] == 1);
  CHECK(result["scoring"]["facts"] == json({{"score", "accuracy by label logits, the item's labels"},
                                            {"protocol", "label_logits"},
                                            {"labels", "item"},
                                            {"loss", "answer"}}));
  // Chance is 1/2 for boolq; arc items alternate between two and three choices.
  CHECK(result["baselines"]["facts"]["chance"].get<double>() ==
        doctest::Approx((0.5 + (0.5 + 1.0 / 3) / 2) / 2));
  for (const auto& [protocol, said] :
       std::vector<std::pair<std::string, std::string>>{{"label_logits", "accuracy by label logits"},
                                                        {"generation", "accuracy by generation"},
                                                        {"exact_match", "exact match of the label"}}) {
    const Outcome o = good({"eval", "tasks", "--protocol", protocol, "--labels", "shape"});
    CHECK_MESSAGE(has(o.text, "facts          100.00 %  (120 of 120)  " + said), o.text);
    CHECK(has(o.text, "majority"));
    CHECK(has(o.text, "trained on: the answers alone"));
  }
  CHECK(has(p.run({"eval", "tasks", "--protocol", "logits"}).text, "--protocol logits: one of exact_match"));
}

TEST_CASE("an untrained model is at chance among labels, and lower among all words") {
  const auto score = [](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"train", "tasks.toml",        "--out", out,
                                       "--set", "train.max_steps=1", "--set", "train.lr=0"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    good(arguments);
    return json::parse(text_playground().read(out + "/result.json"))["score"]["facts"].get<double>();
  };
  const double item = score("item", {}), shape = score("shape", {"--set", "eval.labels=shape"}),
               all = score("all", {"--set", "eval.protocol=exact_match"});
  CHECK(item > 0.2);
  CHECK(item < 0.8);
  CHECK(shape <= item);
  CHECK(all <= shape);
}

TEST_CASE("a loss on all tokens gives another run, and the result records it") {
  const auto& p = text_playground();
  good({"train", "tasks.toml", "--out", "loss_all", "--set", "data.loss=all", "--set", "train.max_steps=3"});
  CHECK(json::parse(p.read("loss_all/result.json"))["scoring"]["facts"]["loss"] == "all");
  const auto supervised = [&](const std::string& run) {
    return json::parse(p.read(run + "/metrics.jsonl")
                           .substr(0, p.read(run + "/metrics.jsonl").find('\n')))["supervised"]
        .get<int64_t>();
  };
  CHECK(supervised("loss_all") > 5 * supervised("tasks"));
}

TEST_CASE("a continued text run has the same bytes; profiles and tables work without a tower") {
  const auto& p = text_playground();
  fs::create_directories(p.folder / "again/checkpoints");
  fs::copy_file(p.folder / "tasks/config.toml", p.folder / "again/config.toml");
  const fs::path kept = "checkpoints/step-00000080.safetensors";
  fs::copy_file(p.folder / "tasks" / kept, p.folder / "again" / kept);
  fs::copy_file(p.folder / "tasks/metrics.jsonl", p.folder / "again/metrics.jsonl");
  CHECK(has(good({"train", "tasks.toml", "--out", "again", "--resume"}).text, "continuing at step 80 of 90"));
  for (const char* file : {"trained.safetensors", "metrics.jsonl", "result.json"})
    CHECK_MESSAGE(p.read(std::string("again/") + file) == p.read(std::string("tasks/") + file), file);
  CHECK(has(good({"train", "tasks.toml", "--profile", "--profile-seconds", "0.05"}).text, "matmul_nt"));

  p.write(
      "table.toml",
      "title = 'T'\nrun = 'tasks.toml'\nseeds = [1]\n[[rows]]\nname = 'a'\nset = ['data.feature_cache=f']\n"
      "[[rows]]\nname = 'b'\nset = ['data.loss=all']\n");
  const Outcome table = good({"table", "table.toml", "--out", "table", "--set", "train.max_steps=2"});
  CHECK(has(table.text, "Accuracy by label logits, the item's labels on the test split in percent"));
  CHECK(has(table.text, "Loss on the answers alone: a; on all tokens, prompts too: b."));
  CHECK(has(table.text, "| majority"));
  p.write("mixed.toml", p.read("table.toml") + "[[rows]]\nname = 'c'\nset = ['eval.protocol=generation']\n");
  CHECK(has(p.run({"table", "mixed.toml", "--list"}).text,
            "row 'c': its eval.protocol or eval.labels differ from the table's"));
  CHECK(has(p.run({"table", "table.toml", "--out", "other", "--set", "eval.labels=shape", "--list"}).text,
            "missing"));
}

TEST_CASE("errors of a text-only model") {
  const auto& p = text_playground();
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& part) {
    const Outcome o = p.run(arguments);
    CHECK(o.code == 1);
    CHECK_MESSAGE(has(o.text, part), o.text);
  };
  p.write("i.png", "no image");
  refused({"ask", "tasks", "p", "--image", "i.png"}, "i.png");
  refused({"features", "tasks.toml"}, "without a vision tower has no features");
  refused({"train", "tasks.toml", "--dry-run", "--set", "method.name=lora", "--set",
           "method.train_projector=true"},
          "method.train_projector: model.vision.layers is 0");
  refused({"train", "tasks.toml", "--dry-run", "--set", "data.sets[0].format=text", "--set",
           "data.sets[0].images=x"},
          "sets of the format text have no images");
  refused({"train", "tasks.toml", "--out", "r", "--set", "data.sets[0].format=llava"},
          "template plain needs a token for separator");
  refused({"train", "tasks.toml", "--out", "r", "--set", "data.sets[0].format=text"},
          "items.jsonl, line 1, text: is missing");
  refused({"train", "tasks.toml", "--dry-run", "--set", "model.vision.layers=-1"}, "vision.layers = -1");
  refused({"data", "check", "items.jsonl", "--format", "csv"}, "--format csv: one of llava, choices, text");
  refused({"data", "convert", "boolq", "absent.jsonl", "out.jsonl"}, "absent.jsonl");
  CHECK(has(good({"data", "check", "items.jsonl"}).text, "items.jsonl: 120 records, 0 faults"));
  CHECK(has(good({"data", "check", "texts.jsonl"}).text, "texts.jsonl: 60 records, 0 faults"));
  CHECK(has(good({"data", "show", "items.jsonl", "--sample", "1"}).text, "(line 2)"));
  p.write("piqa.jsonl", "{\"goal\": \"p\", \"sol1\": \"q\", \"sol2\": \"r\"}\n");
  p.write("piqa.lst", "1\n");
  CHECK(has(good({"data", "convert", "piqa", "piqa.jsonl", "converted.jsonl", "--labels", "piqa.lst"}).text,
            "converted.jsonl: 1 items of piqa; right answers: B 1"));
  CHECK(has(good({"data", "convert", "--help"}).text, "question.stem"));
}

// A folder of `burrow factorize` is read like any run, by its own config.
TEST_CASE("factorize: the folder works with eval, ask and train; with all blocks it equals the dense model") {
  const std::string dense = good({"eval", "tasks"}).text;
  for (const char* split : {"contiguous", "random", "clustered"}) {
    const std::string out = fmt::format("cut-{}", split);
    good({"factorize", "tasks", "--out", out, "--experts", "4", "--top-k", "4", "--split", split});
    CHECK(good({"eval", out}).text == dense);
    CHECK(good({"ask", out, "p s"}).text == good({"ask", "tasks", "p s"}).text);
  }
  good({"factorize", "tasks", "--out", "cut", "--experts", "4", "--top-k", "1", "--split", "clustered"});
  good({"train", "cut/config.toml", "--out", "cut-trained", "--set", "train.max_steps=20"});
  good({"eval", "cut-trained"});
  CHECK(has(text_playground().read("cut-trained/metrics.jsonl"), "\"prior\":"));
  // The split of a factorized model cannot be changed: it keeps its own routers and number of blocks.
  const auto refused = [](std::vector<std::string> arguments, const char* part) {
    const Outcome o = text_playground().run(arguments);
    CHECK(o.code == 1);
    CHECK_MESSAGE(has(o.text, part), o.text);
  };
  const std::string weights = "model.weights=cut/trained.safetensors";
  refused({"train", "tasks.toml", "--out", "x1", "--set", weights}, "cut into 4 blocks (burrow factorize)");
  refused({"train", "cut/config.toml", "--out", "x2", "--set", "method.experts=2"},
          "method.experts asks for 2");
  refused({"train", "cut/config.toml", "--out", "x3", "--set", "method.shard.split=random"},
          "is already permuted");
  refused({"factorize", "cut", "--out", "x4"}, "a run of method 'factorllm'");
  refused({"factorize", "tasks", "--out", "cut"}, "cut: exists already");
  refused({"factorize", "tasks", "--out", "x5", "--experts", "5"}, "--experts 5");
  refused({"factorize", "tasks", "--out", "x6", "--split", "even"},
          "--split even: one of contiguous, random, clustered");
  refused({"factorize", "tasks.toml", "--out", "x7"}, "model.weights is empty");
}

TEST_CASE("bench infer measures the dense model, blocks, and a dense FFN of equal width in one run") {
  const Outcome o =
      good({"bench", "infer", "tasks.toml", "--set", "model.decoder.vocabulary=50", "--variants",
            "1R4E1K,1R2E1K", "--prompt", "12", "--new", "3", "--rounds", "2", "--json", "bench.json"});
  const json rows = json::parse(text_playground().read("bench.json"));
  REQUIRE(rows.size() == 2 * 5);
  CHECK(rows[1]["model"] == "1R4E1K");
  // 3 products of 2 C F/4, and a router of 2 C E
  CHECK(rows[1]["ffn_flops_per_token"] == 2 * (2 * 3 * 32 * 12 + 2 * 32 * 4));
  CHECK(rows[3]["ffn_flops_per_token"] == 2 * 2 * 3 * 32 * 12);
  const Outcome bad = text_playground().run(
      {"bench", "infer", "tasks.toml", "--set", "model.decoder.vocabulary=50", "--variants", "2R4E1K"});
  CHECK(bad.code == 1);
  CHECK_MESSAGE(has(bad.text, "'2R4E1K' is not of the form 1R4E1K"), bad.text);
}
