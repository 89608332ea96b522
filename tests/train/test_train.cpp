// The program from a user's view: killed and continued runs, locked directories, damaged checkpoints, and
// errors for bad input.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <thread>

#include "tensor/safetensors.h"
#include "tests/support/playground.h"

namespace fs = std::filesystem;
using namespace burrow;
using namespace burrow::testing;

TEST_CASE("the balance term reaches the router") {
  // With the gate "none" no other gradient reaches a router.
  const Playground& p = playground();
  const auto router_after_a_step = [&](const std::string& weight) {
    p.good("train run.toml --out balance" + weight +
           " --set train.max_steps=1 --set eval.limit=1 --set method.balance.weight=" + weight);
    const auto trained = read_safetensors((p.folder / ("balance" + weight) / "trained.safetensors").string());
    const Tensor& router = trained.tensors.at("language_model.model.layers.0.mlp.router.weight");
    return std::string(reinterpret_cast<const char*>(router.bytes()), router.nbytes());
  };
  CHECK(router_after_a_step("0.01") != router_after_a_step("0"));
}

TEST_CASE("a dry run of model sizes alone needs no data, but a vocabulary") {
  const Playground& p = playground();
  p.write("sizes.toml", "[model.decoder]\nlayers = 1\nvocabulary = 50\n[method]\nname = 'mole'\n");
  const std::string sizes = p.good("train sizes.toml --dry-run");
  CHECK(contains(sizes, "vocabulary = 50"));
  CHECK(contains(sizes, "trainable"));
  const std::string without = "train sizes.toml --dry-run --set model.decoder.vocabulary=0";
  p.refused(without, {"model.decoder.vocabulary = 0: must be positive where there is no data.tokenizer"});
  p.good(without + " --set data.tokenizer=data/tokenizer.json");
  CHECK(contains(p.run("train sizes.toml").text, "data.tokenizer is missing"));
}

TEST_CASE("a run writes its directory, and eval and ask read it") {
  const Playground& p = playground();
  const std::string trained = p.good("train run.toml --out whole");
  for (const char* file : {"config.toml", "provenance.json", "metrics.jsonl", "timings.json",
                           "trained.safetensors", "result.json"}) {
    CHECK(fs::exists(p.folder / "whole" / file));
  }
  CHECK(contains(p.read("whole/metrics.jsonl"),
                 "\"routing\":[{\"site\":\"language_model.model.layers.0.mlp.router\",\"load\":{"));
  for (const char* key : {"loss", "balance", "lr", "gradient_norm", "entropy", "dead_experts", "document"})
    CHECK_MESSAGE(contains(p.read("whole/metrics.jsonl"), fmt::format("\"{}\":", key)), key);
  CHECK(contains(trained, "gate_proj"));
  CHECK(contains(p.good("eval whole --limit 5"), "of 5)"));
  const std::string two = p.good("eval whole --limit 5 --sets document,general");
  CHECK(contains(two, "document"));
  CHECK(!contains(two, "biomedicine"));
  CHECK(contains(p.run("eval whole --sets generl").text, "no set named 'generl' among data.sets"));
  p.good(R"(ask whole "what is the circle value" --image data/general/images/test/000000.png)");
  p.good(R"(ask whole "repeat A 1")");
  p.refused("train run.toml --out whole", {"--resume"});
  CHECK(contains(p.run("train run.toml --out whole --resume").text, "finished already"));
  p.refused("train run.toml --out whole --resume --set train.lr=1e-3", {"another config"});
}

TEST_CASE("a run that is killed at random moments and continued has the same bytes") {
  const Playground& p = playground();
  p.good("train run.toml --out straight");
  std::mt19937 random(std::random_device{}());
  int kills = 0;
  const fs::path killed = p.folder / "killed", metrics = killed / "metrics.jsonl";
  const auto logged = [&] { return fs::exists(metrics) ? fs::file_size(metrics) : 0; };
  for (int attempt = 0; attempt < 60 && kills < 3; ++attempt) {
    const auto before = logged();
    const pid_t child = p.start("train run.toml --out killed --resume");
    // Wait until this process has trained a few steps, then a random time.
    for (int i = 0; i < 4000; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (logged() != before || fs::exists(killed / "result.json")) break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 40));
    kill(child, SIGKILL);
    const int code = Playground::wait(child);
    REQUIRE((code == 0 || code == -SIGKILL));
    kills += code == -SIGKILL;
    if (code == 0) fs::remove_all(killed);  // it finished before the kill
  }
  REQUIRE(kills == 3);
  p.good("train run.toml --out killed --resume");
  std::string last;  // the final checkpoint holds the optimiser's state
  for (const auto& entry : fs::directory_iterator(p.folder / "straight/checkpoints"))
    last = entry.path().filename().string();
  for (const std::string& file : {std::string("trained.safetensors"), std::string("metrics.jsonl"),
                                  std::string("result.json"), "checkpoints/" + last}) {
    CHECK_MESSAGE(p.read("straight/" + file) == p.read("killed/" + file), file);
  }
}

TEST_CASE("a damaged checkpoint is skipped and named") {
  const Playground& p = playground();
  const std::string options = " --set train.max_steps=30 --set train.keep_checkpoints=9";
  p.good("train run.toml --out damaged" + options);
  p.good("train run.toml --out sound" + options);
  fs::remove(p.folder / "damaged/result.json");
  const fs::path last = "damaged/checkpoints/step-00000030.safetensors";
  REQUIRE(fs::exists(p.folder / last));
  p.flip_bit(last, 9);  // of the state
  // The run falls back to an earlier intact checkpoint.
  CHECK(contains(p.good("train run.toml --out damaged --resume" + options), "checksum does not match"));
  CHECK(p.read("damaged/trained.safetensors") == p.read("sound/trained.safetensors"));
  CHECK(p.read("damaged/metrics.jsonl") == p.read("sound/metrics.jsonl"));
}

TEST_CASE("two processes cannot use one run directory") {
  const Playground& p = playground();
  fs::create_directories(p.folder / "held");
  const FileLock held((p.folder / "held/lock").string());
  p.refused("train run.toml --out held", {std::to_string(getpid())});
}

TEST_CASE("the first loss with a frozen base in bf16 equals that in f32, up to rounding") {
  const Playground& p = playground();
  const auto first_loss = [&](const std::string& dtype) {
    p.good(fmt::format("train run.toml --out {0} --set train.max_steps=2 --set model.dtype={0}", dtype));
    const std::string metrics = p.read(dtype + "/metrics.jsonl");
    return std::stod(metrics.substr(metrics.find("\"loss\":") + 7));
  };
  const double single = first_loss("f32"), half = first_loss("bf16");
  CHECK(half != single);
  CHECK(std::abs(half - single) < 1e-2 * single);
  p.good("eval bf16 --limit 2");
}

TEST_CASE("a profile trains in memory only and prints the time of each kernel") {
  const Playground& p = playground();
  const std::string text = p.good(
      "train run.toml --profile --profile-seconds 0.05 --profile-json profile.json --profile-batches "
      "batches.safetensors --set train.accumulation=1");
  CHECK(contains(text, "matmul_nt"));
  CHECK(contains(text, "of the GEMM peak"));
  CHECK(contains(p.read("profile.json"), "\"first_gradient_norm\""));
  CHECK(read_safetensors((p.folder / "batches.safetensors").string()).tensors.contains("batch.0.ids"));
  CHECK(!fs::exists(p.folder / "runs"));
  p.refused("train run.toml --profile --profile-batches batches.safetensors", {"train.accumulation"});
}

TEST_CASE("a checkpoint with a damaged step in its metadata is skipped, and removed in favour of new ones") {
  const Playground& p = playground();
  const std::string command =
      "train run.toml --out metadata --resume --set train.max_steps=16 --set train.keep_checkpoints=1";
  p.good(command);
  const std::string sound = p.read("metadata/trained.safetensors");
  fs::remove(p.folder / "metadata/result.json");
  const fs::path checkpoints = p.folder / "metadata/checkpoints";
  const fs::path last = checkpoints / "step-00000016.safetensors",
                 named = checkpoints / "step-00000099.safetensors";
  std::string bytes = read_file(last.string());
  const size_t at = bytes.find("\"step\":\"16\"");
  REQUIRE(at != std::string::npos);
  bytes[at + 8] = 'q';
  // Its name is newer than any that this run writes: it must not be kept in their place.
  write_file_atomically(named.string(), bytes);
  fs::remove(last);
  const std::string resumed = p.good(command);
  CHECK(contains(resumed, "step-00000099.safetensors: 'step' is 'q6'"));
  CHECK(contains(resumed, "the run starts from step 0"));
  CHECK(fs::exists(last));
  CHECK(!fs::exists(named));
  CHECK(p.read("metadata/trained.safetensors") == sound);
}

TEST_CASE("damaged features are recomputed, and damaged trained parameters are refused") {
  const Playground& p = playground();
  p.good("train run.toml --out flips --set train.max_steps=3");
  std::vector<fs::path> features;
  for (const auto& entry : fs::directory_iterator(p.folder / "features")) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("features-")) features.push_back(entry.path());
    if (name.starts_with("images-")) write_file_atomically(entry.path().string(), "no hash");
  }
  REQUIRE(features.size() >= 3);
  const std::string sound = read_file(features[0].string());
  p.flip_bit(features[0], 9);
  const std::string again = p.good("features run.toml");
  CHECK(contains(again, "computing the features again"));
  CHECK(contains(again, features[0].filename().string()));
  CHECK(contains(again, "not a hash"));
  CHECK(read_file(features[0].string()) == sound);
  // The test split is computed even if no set has a validation file.
  std::string without = "features run.toml --set data.feature_cache=others";
  for (const int set : {0, 1, 2}) without += fmt::format(" --set data.sets[{}].validation=", set);
  CHECK(contains(p.good(without), "biomedicine: computing the features of 30 images"));
  p.flip_bit("flips/trained.safetensors", 9);
  p.refused("eval flips", {"trained.safetensors: the checksum does not match"});
}

TEST_CASE("files left by a killed run are removed, and a lock held by a dying process is waited for") {
  const Playground& p = playground();
  const fs::path run = p.folder / "left";
  fs::create_directories(run / "checkpoints");
  const fs::path left = run / "checkpoints/step-00000007.safetensors.tmp.12";
  p.write("left/checkpoints/step-00000007.safetensors.tmp.12", "half");
  p.write("left/lock", "process 12 on host a\n");
  pid_t child = 0;
  {
    const FileLock held((run / "lock").string());
    child = p.start("train run.toml --out left --set train.max_steps=2", "left.txt");
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  CHECK(Playground::wait(child) == 0);
  CHECK(!fs::exists(left));
  p.write("left/lock", "process 12 on host a\n");
  fs::remove(run / "result.json");
  CHECK(contains(p.run("train run.toml --out left --resume --set train.max_steps=2").text,
                 "process 12 on host a was killed here"));
}

TEST_CASE("an error gives exit code 1 even when its message cannot be written") {
  if (!fs::exists("/dev/full")) return;
  const pid_t child = fork();
  if (child == 0) {
    const int full = open("/dev/full", O_WRONLY);
    dup2(full, 2);
    execl(BURROW_PROGRAM, BURROW_PROGRAM, "eval", "absent", static_cast<char*>(nullptr));
    _exit(98);
  }
  CHECK(Playground::wait(child) == 1);
}

TEST_CASE("bad input gives an error that names it, and a non-zero exit code") {
  const Playground& p = playground();
  const auto refused = [&](const std::string& more, const std::vector<std::string>& parts) {
    p.refused("train run.toml --out refused " + more, parts);
    fs::remove_all(p.folder / "refused");
  };
  refused("--set train.learning_rate=1", {"unknown key 'train.learning_rate'"});
  refused("--set method.rnak=2", {"method.rank"});
  refused("--set train=5", {"unknown key 'train': it is a section"});
  refused("--set data.chat=mine", {"no template 'mine'", "plain and vicuna_v1"});
  refused("--dry-run --set data.chat=mine", {"no template 'mine'"});
  refused("--set data.sets[0].train= --set data.use=['general']",
          {"'general' has no file for the requested split"});
  refused("--set method.experts=0", {"method.experts = 0"});
  refused("--set method.rank=64", {"method.rank = 64", "of shape"});
  refused("--set method.name=mule", {"'mule'", "mole"});
  refused("--set method.expert_targets=['gate_poj']", {"gate_poj", "matches no Linear"});
  refused("--set method.router.top_k=4", {"method.router.top_k = 4: must be 1 to 3"});
  refused("--set data.use=['generl']", {"generl"});
  refused("--set eval.sets=['generl']", {"eval.sets: no set named 'generl' among data.sets"});
  refused("--set model.weights=none.safetensors", {"none.safetensors"});
  refused("--set model.dtype=f16", {"model.dtype = 'f16'", "bf16"});
  refused("--set model.decoder.heads=5", {"heads"});
  refused("--set data.tokenizer=data/general/train.json", {"data/general/train.json"});
  refused("--set train.tokens_per_step=many", {"train.tokens_per_step"});
  for (const std::string& option :
       words_of("train.lr=inf train.lr=-1 train.router_lr=-1 train.warmup=2 train.final_lr=nan train.beta1=1 "
                "train.eps=0 train.weight_decay=nan train.clip=nan train.clip=-1 train.max_steps=-1 "
                "train.accumulation=0 eval.limit=-1 eval.max_new=9223372036854775807 data.ratios=[-1,1,1] "
                "data.ratios=[0,0,0] data.ratios=[nan,1,1] data.ratios=[1] data.use=['general','general'] "
                "data.sets[1].name=general model.decoder.rope_theta=0 model.decoder.norm_eps=-1 "
                "model.decoder.layers=99999999999 model.vision.pixel_std=[0,1,1]")) {
    const std::string key =
        option.substr(0, option.find_first_of("[="));  // an element's error names its list
    refused("--set " + option, {key.starts_with("model.") ? key.substr(6) : key});
  }
  refused("--set train.lr=1e38 --set train.clip=0", {"step", "not finite", "samples (set:record):"});
  CHECK(p.run("train absent.toml").code == 1);
  CHECK(p.run("eval absent").code == 1);
  CHECK(p.run("nonsense").code != 0);
  CHECK(contains(p.good("train --help"), "--resume"));
}

TEST_CASE("bad options and files of the other commands") {
  const Playground& p = playground();
  const auto refused = [&](const std::string& line, const std::string& part) {
    const Outcome o = p.run(line);
    CHECK_MESSAGE(o.code > 0, line);
    CHECK_MESSAGE(contains(o.text, part), o.text);
  };
  for (const std::string seconds : {"-1", "0", "nan", "1e99"})
    refused("train run.toml --profile --profile-seconds " + seconds, "--profile-seconds");
  refused("train run.toml --profile-json x.json", "--profile-json requires --profile");
  refused("train run.toml --profile --profile-seconds 0.01 --profile-json no/x.json", "no/x.json");
  refused("train data", "data: Is a directory");
  refused("table run.toml --jobs 0", "--jobs");
  refused("table run.toml --jobs -1", "--jobs: Value -1 not in range 1 to 2147483647");
  refused("table run.toml --seeds 0", "--seeds");
  refused("data make new --train 99999999999", "train 99999999999");
  refused("data make new --seed -1", "--seed");
  refused("data make new --pretrain --records-per-image 4294967297", "--records-per-image");
  refused("data check absent.json", "absent.json: no such file");
  refused("data show data/general/test.json --sample -1", "no sample -1; there are 30");
  CHECK(!fs::exists(p.folder / "new/general"));
  p.good("train run.toml --out asked --set train.max_steps=2");
  refused("eval asked --limit -1", "--limit");
  refused("ask asked \" \"", "the question is empty");
  refused(fmt::format("ask asked \"{}\"", fmt::join(std::vector<std::string>(64, "circle"), " ")),
          "too long: 65 tokens");
  refused("ask asked what --image run.toml", "run.toml");
  CHECK(contains(p.run("ask asked \"what \xff\xfe is \u6f22\"").text, "2 of the question's 4 words"));
  const pid_t child = p.start("eval asked --limit 1", "/dev/full");
  CHECK(Playground::wait(child) == 1);
}

// 7,062,902,784 weights of CLIP ViT-L/14-336, projector and Vicuna; 2 * (4096 + 11008) for each of 96
// Linears.
TEST_CASE("a dry run on LLaVA-1.5-7B counts its parameters") {
  const Playground& p = playground();
  const std::string config = Playground::config();
  p.write("7b.toml", p.base("llava_1_5_7b") + config.substr(config.find("[method]")));
  const std::string counted =
      p.good("train 7b.toml --dry-run --set method.name=lora --set method.lora_targets=[]");
  CHECK(contains(counted, "parameters: 7065802752 in all, 2899968 trainable, 2899968 of these"));
  CHECK(contains(counted, "vocabulary = 32000"));
}

TEST_CASE(
    "Parrot: first the projector is trained, then the module and the decoder; `routing` prints weights") {
  const Playground& p = playground();
  const std::string train =
      "train run.toml --set model.vision.class_token=true --set train.max_steps=3 --set "
      "method.lora_targets=[]";
  p.good(train +
         " --out stage1 --set method.name=lora --set method.expert_targets=[] --set "
         "method.train_projector=true");
  const std::string parrot = train + " --set method.name=parrot --set model.projector=";
  p.good(parrot + "stage1/trained.safetensors --out stage2");
  CHECK(contains(p.read("stage2/metrics.jsonl"), "visual_experts.router"));
  const std::string weights = p.good("routing stage2 --limit 8");
  CHECK(std::count(weights.begin(), weights.end(), '\n') == 1 + 3 * 6);
  CHECK(contains(weights, "general,visual_experts.router,5,0."));
  p.good(R"(ask stage2 "what color is the circle" --image data/general/images/test/000000.png)");
  CHECK(contains(p.run("routing stage1").text, "method 'lora' has no router"));
  p.refused(parrot + "stage2/trained.safetensors --out none",
            {"stage2/trained.safetensors: no tensor 'multi_modal_projector.linear_1.weight'"});
}

// Ratios apply to the sets in the order of `use`.
TEST_CASE("data.ratios follow data.use") {
  const Playground& p = playground();
  p.good(
      "train run.toml --out ratios --set data.use=['biomedicine','general'] --set data.ratios=[1,0] --set "
      "train.max_steps=4 --set method.router.granularity=token");
  const std::string metrics = p.read("ratios/metrics.jsonl");
  CHECK(contains(metrics, "\"load\":{\"biomedicine\":"));
  CHECK(!contains(metrics, "general"));
}

TEST_CASE("data check prints each fault with file, index and reason") {
  const Playground& p = playground();
  const auto turns = [](const char* from, const char* value) {
    return fmt::format(R"("conversations":[{{"from":"{}","value":"{}"}},{{"from":"gpt","value":"fat"}}]}},)",
                       from, value);
  };
  p.write("bad.json", R"([{"id":"a",)" + turns("human", "what type is the tissue") + R"({"id":"b",)" +
                          turns("robot", "x") + R"({"id":"c","image":"../secret.png",)" +
                          turns("human", "<image>\\nx") + R"({"id":"d"}])");
  p.refused("data check bad.json --tokenizer data/tokenizer.json",
            {"bad.json, record 1", "bad.json, record 2", "bad.json, record 3", "4 records, 3 faults"});
  p.good("data check data/general/test.json");
}
