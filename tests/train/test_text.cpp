// A text-only decoder, run through the program: pretraining on texts, multiple-choice tasks and their
// protocols.

#include "moe/config.h"
#include "tensor/json.h"
#include "tensor/safetensors.h"
#include "tests/support/choices_testing.h"
#include "tests/support/playground.h"

namespace fs = std::filesystem;
using namespace burrow;
using namespace burrow::testing;
using burrow::data::testing::item;
using nlohmann::json;

namespace {

// Two tasks that a small decoder learns quickly, and texts.
struct TextPlayground : Playground {
  TextPlayground() : Playground(false) {
    data::testing::word_tokenizer().save(folder / "tokenizer.json");
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
    const std::string shared =
        base("miniature_text") +
        "model.decoder = {layers = 2, width = 32, heads = 2, kv_heads = 2, mlp_width = 48}\n"
        "[data]\ntokenizer = 'tokenizer.json'\nsamples = 1200\n[method]\nname = 'full'\n";
    write("pretrain.toml",
          shared +
              "[train]\ntokens_per_step = 100\nmax_steps = 20\n[[data.sets]]\nname = 'words'\n"
              "format = 'text'\ntrain = 'texts.jsonl'\ntest = 'texts.jsonl'\n");
    write("tasks.toml", shared +
                            "[train]\ntokens_per_step = 150\nmax_steps = 90\ncheckpoint_every = 20\n[eval]\n"
                            "max_new = 3\n[[data.sets]]\nname = 'facts'\nformat = 'choices'\ntrain = "
                            "'items.jsonl'\ntest = 'items.jsonl'\n");
    good("train tasks.toml --out tasks");
  }
};

const TextPlayground& text_playground() {
  static const TextPlayground p;
  return p;
}

}  // namespace

TEST_CASE("a dry run on LLaMA-2-7B counts its parameters, without a tower") {
  const auto& p = text_playground();
  p.write("7b.toml", p.base("llama_2_7b") + p.read("tasks.toml").substr(p.read("tasks.toml").find("[data]")));
  CHECK(contains(p.good("train 7b.toml --dry-run"), "parameters: 6738415616 in all, 6738415616 trainable"));
}

TEST_CASE("texts are learnt, and scored by the next token") {
  const auto& p = text_playground();
  const std::string text = p.good("train pretrain.toml --out pretrained");
  CHECK(contains(text, "tokens)  next token"));
  CHECK(contains(text, "nats per token"));
  const json result = json::parse(p.read("pretrained/result.json"));
  CHECK(result["score"]["words"].get<double>() > 0.9);
  CHECK(result["nats_per_token"]["words"].get<double>() < 0.5);
  CHECK(result["count"]["words"] == 60 * 13);
  CHECK(result["scoring"]["words"]["loss"] == "all");
  // The vocabulary size is that of the tokenizer, and the weights are those of a decoder.
  const auto trained = read_safetensors((p.folder / "pretrained/trained.safetensors").string());
  const auto words = static_cast<int64_t>(data::template_words().size()) + 9;
  CHECK(trained.tensors.at("language_model.lm_head.weight").dim(0) == words);
  for (const auto& [name, tensor] : trained.tensors) CHECK(name.starts_with("language_model."));
  // Files of language models name their tensors without LLaVA's prefix, and may contain rotary frequencies.
  std::vector<std::pair<std::string, Tensor>> plain;
  for (const auto& [name, tensor] : trained.tensors) plain.emplace_back(name.substr(15), tensor);
  plain.emplace_back("model.layers.0.self_attn.rotary_emb.inv_freq", Tensor::full({8}, 1, DType::f32));
  write_safetensors((p.folder / "llama.safetensors").string(), plain);
  p.good(
      "train pretrain.toml --out loaded --set model.weights=llama.safetensors --set train.lr=0 --set "
      "train.max_steps=1");
  CHECK(json::parse(p.read("loaded/result.json"))["score"] == result["score"]);
  // The model continues a text, and can be the base of another run.
  CHECK(p.good(R"(ask pretrained "p q r")").starts_with("s p q r s"));
  p.good(
      "train tasks.toml --out on_top --set model.weights=pretrained/trained.safetensors --set "
      "method.name=mole --set train.max_steps=2");
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
       std::map<std::string, std::string>{{"label_logits", "accuracy by label logits"},
                                          {"generation", "accuracy by generation"},
                                          {"exact_match", "exact match of the label"}}) {
    const std::string text = p.good("eval tasks --protocol " + protocol + " --labels shape");
    CHECK_MESSAGE(contains(text, "facts          100.00 %  (120 of 120)  " + said), text);
    CHECK(contains(text, "majority"));
    CHECK(contains(text, "trained on: the answers alone"));
  }
  CHECK(contains(p.run("eval tasks --protocol logits").text, "--protocol logits: one of exact_match"));
}

TEST_CASE("an untrained model is at chance among labels, and lower among all words") {
  const auto& p = text_playground();
  const auto score = [&](const std::string& out, const std::string& more) {
    p.good("train tasks.toml --set train.max_steps=1 --set train.lr=0 --out " + out + more);
    return json::parse(p.read(out + "/result.json"))["score"]["facts"].get<double>();
  };
  const double item = score("item", ""), shape = score("shape", " --set eval.labels=shape"),
               all = score("all", " --set eval.protocol=exact_match");
  CHECK(item > 0.2);
  CHECK(item < 0.8);
  CHECK(shape <= item);
  CHECK(all <= shape);
}

TEST_CASE("a loss on all tokens gives another run, and the result records it") {
  const auto& p = text_playground();
  p.good("train tasks.toml --out loss_all --set data.loss=all --set train.max_steps=3");
  CHECK(json::parse(p.read("loss_all/result.json"))["scoring"]["facts"]["loss"] == "all");
  const auto supervised = [&](const std::string& run) {
    const std::string metrics = p.read(run + "/metrics.jsonl");
    return json::parse(metrics.substr(0, metrics.find('\n')))["supervised"].get<int64_t>();
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
  CHECK(contains(p.good("train tasks.toml --out again --resume"), "continuing at step 80 of 90"));
  for (const char* file : {"trained.safetensors", "metrics.jsonl", "result.json"})
    CHECK_MESSAGE(p.read(std::string("again/") + file) == p.read(std::string("tasks/") + file), file);
  CHECK(contains(p.good("train tasks.toml --profile --profile-seconds 0.05"), "matmul_nt"));

  p.write(
      "table.toml",
      "title = 'T'\nrun = 'tasks.toml'\nseeds = [1]\n[[rows]]\nname = 'a'\nset = ['data.feature_cache=f']\n"
      "[[rows]]\nname = 'b'\nset = ['data.loss=all']\n");
  const std::string table = p.good("table table.toml --out table --set train.max_steps=2");
  CHECK(contains(table, "Accuracy by label logits, the item's labels on the test split in percent"));
  CHECK(contains(table, "Loss on the answers alone: a; on all tokens, prompts too: b."));
  CHECK(contains(table, "| majority"));
  p.write("mixed.toml", p.read("table.toml") + "[[rows]]\nname = 'c'\nset = ['eval.protocol=generation']\n");
  CHECK(contains(p.run("table mixed.toml --list").text,
                 "row 'c': its eval.protocol or eval.labels differ from the table's"));
  CHECK(contains(p.run("table table.toml --out other --set eval.labels=shape --list").text, "missing"));
}

TEST_CASE("errors of a text-only model") {
  const auto& p = text_playground();
  p.write("i.png", "no image");
  p.refused("ask tasks p --image i.png", {"i.png"});
  p.refused("features tasks.toml", {"without a vision tower has no features"});
  p.refused("train tasks.toml --dry-run --set method.name=lora --set method.train_projector=true",
            {"method.train_projector: model.vision.layers is 0"});
  p.refused("train tasks.toml --dry-run --set data.sets[0].format=text --set data.sets[0].images=x",
            {"sets of the format text have no images"});
  p.refused("train tasks.toml --out r --set data.sets[0].format=llava",
            {"template plain needs a token for separator"});
  p.refused("train tasks.toml --out r --set data.sets[0].format=text",
            {"items.jsonl, line 1, text: is missing"});
  p.refused("train tasks.toml --dry-run --set model.vision.layers=-1", {"vision.layers = -1"});
  p.refused("data check items.jsonl --format csv", {"--format csv: one of llava, choices, text"});
  p.refused("data convert boolq absent.jsonl out.jsonl", {"absent.jsonl"});
  CHECK(contains(p.good("data check items.jsonl"), "items.jsonl: 120 records, 0 faults"));
  CHECK(contains(p.good("data check texts.jsonl"), "texts.jsonl: 60 records, 0 faults"));
  CHECK(contains(p.good("data show items.jsonl --sample 1"), "(line 2)"));
  p.write("piqa.jsonl", "{\"goal\": \"p\", \"sol1\": \"q\", \"sol2\": \"r\"}\n");
  p.write("piqa.lst", "1\n");
  CHECK(contains(p.good("data convert piqa piqa.jsonl converted.jsonl --labels piqa.lst"),
                 "converted.jsonl: 1 items of piqa; right answers: B 1"));
  CHECK(contains(p.good("data convert --help"), "question.stem"));
}

// A folder of `burrow factorize` is read like any run, by its own config.
TEST_CASE("factorize: the folder works with eval, ask and train; with all blocks it equals the dense model") {
  const auto& p = text_playground();
  const std::string dense = p.good("eval tasks");
  for (const char* split : {"contiguous", "random", "clustered"}) {
    p.good(fmt::format("factorize tasks --out cut-{0} --experts 4 --top-k 4 --split {0}", split));
    CHECK(p.good(fmt::format("eval cut-{}", split)) == dense);
    CHECK(p.good(fmt::format("ask cut-{} \"p s\"", split)) == p.good("ask tasks \"p s\""));
  }
  p.good("factorize tasks --out cut --experts 4 --top-k 1 --split clustered");
  p.good("train cut/config.toml --out cut-trained --set train.max_steps=20");
  p.good("eval cut-trained");
  CHECK(contains(p.read("cut-trained/metrics.jsonl"), "\"prior\":"));
  // The split of a factorized model cannot be changed: it keeps its own routers and number of blocks.
  p.refused("train tasks.toml --out x1 --set model.weights=cut/trained.safetensors",
            {"was split into 4 blocks by `burrow factorize`"});
  p.refused("train cut/config.toml --out x2 --set method.experts=2", {"but method.experts = 2"});
  p.refused("train cut/config.toml --out x3 --set method.shard.split=random", {"is already permuted"});
  p.refused("factorize cut --out x4", {"a run of method 'factorllm'"});
  p.refused("factorize tasks --out cut", {"cut: exists already"});
  p.refused("factorize tasks --out x5 --experts 5", {"--experts 5"});
  p.refused("factorize tasks --out x6 --split even", {"--split even: one of contiguous, random, clustered"});
  p.refused("factorize tasks.toml --out x7", {"model.weights is empty"});
}

// The dense FFNs that teach the routers of factorllm are no parameters of the model, and need values all the
// same.
TEST_CASE("bench train takes a step of every method") {
  const auto& p = text_playground();
  p.write("lengths.txt", "9 5 7\n");
  for (const moe::Method& m : moe::methods()) {
    if (m.config.expert == moe::ExpertKind::visual) continue;  // needs a vision tower
    CHECK(contains(
        p.good("bench train tasks.toml --set model.decoder.vocabulary=50 --lengths lengths.txt --steps 1 "
               "--set method.experts_by_layer=[] --set method.name=" +
               m.config.name),
        m.config.name + ": "));
  }
}

TEST_CASE("bench infer measures the dense model, blocks, and a dense FFN of equal width in one run") {
  const auto& p = text_playground();
  p.good(
      "bench infer tasks.toml --set model.decoder.vocabulary=50 --variants 1R4E1K,1R2E1K --prompt 12 --new 3 "
      "--rounds 2 --json bench.json");
  const json rows = json::parse(p.read("bench.json"));
  REQUIRE(rows.size() == 2 * 5);
  CHECK(rows[1]["model"] == "1R4E1K");
  // 3 products of 2 C F/4, and a router of 2 C E
  CHECK(rows[1]["ffn_flops_per_token"] == 2 * (2 * 3 * 32 * 12 + 2 * 32 * 4));
  CHECK(rows[3]["ffn_flops_per_token"] == 2 * 2 * 3 * 32 * 12);
  p.refused("bench infer tasks.toml --set model.decoder.vocabulary=50 --variants 2R4E1K",
            {"'2R4E1K' is not of the form 1R4E1K"});
}
