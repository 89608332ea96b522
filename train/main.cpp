// burrow: trains, evaluates and compares mixtures of LoRA experts. See docs/tour.md for a walk through one
// batch, from here to a kernel and back.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <system_error>

#include "train/commands/commands.h"
#include "train/measure/plan.h"
#include "train/measure/synthetic.h"
#include "train/table/table.h"

using namespace burrow::train;

namespace {

// CLI::PositiveNumber would say it with all 309 digits of the largest double.
CLI::Range count() { return CLI::Range(int64_t{1}, int64_t{INT32_MAX}); }

void add_device(CLI::App* command, DeviceChoice& device) {
  command->add_option("--device", device.name, "cpu or cuda")->capture_default_str();
  command->add_flag("--fast", device.fast,
                    "cuda: f32 products in TF32, faster and less exact; it says what it gave up");
  command
      ->add_option("--attention", device.attention,
                   "cuda: own, or cudnn for what NVIDIA's library can take of it")
      ->capture_default_str();
}

void add_train(CLI::App& app, TrainCommand& c, int& code) {
  CLI::App* train =
      app.add_subcommand("train",
                         "Train one run, then evaluate it. A run is a directory (--out); it can be "
                         "killed at any time and continued with --resume, to the same bytes.");
  train->add_option("config", c.config, "TOML file; `burrow config` lists the keys")->required();
  train->add_option("--set", c.overrides, "key=value, over the file (repeatable), e.g. --set train.lr=5e-3");
  train->add_option("--out", c.out, "run directory (default: runs/<name of the config>)");
  train->add_flag("--resume", c.resume, "continue the run in the directory, or start it");
  train->add_flag("--dry-run", c.dry_run, "print the resolved config and the parameter counts, and stop");
  CLI::Option* profile = train->add_flag(
      "--profile", c.profile, "train a few steps in memory only, print where their time goes, and stop");
  train->add_option("--profile-seconds", c.profile_seconds, "how long to measure (default: 6)")
      ->needs(profile);
  train->add_option("--profile-json", c.profile_json, "write the profile's figures to this file")
      ->needs(profile);
  train
      ->add_option("--profile-batches", c.profile_batches,
                   "write the model and the profiled batches, as safetensors, for other programs")
      ->needs(profile);
  add_device(train, c.device);
  train->callback([&] { code = run_train(c); });
}

struct AskArguments {
  std::string run, image, question;
  DeviceChoice device;
};
void add_eval(CLI::App& app, EvalCommand& c, AskArguments& a, int& code) {
  CLI::App* eval = app.add_subcommand(
      "eval",
      "Score a finished run, by data set and type of question: exact match of conversations, "
      "accuracy on multiple-choice items, next tokens of texts");
  eval->add_option("run", c.run, "run directory")->required();
  eval->add_option("--split", c.split, "test or validation (default: the config's)");
  eval->add_option("--sets", c.sets, "sets to score, by commas (default: the config's)")->delimiter(',');
  eval->add_option("--limit", c.limit, "samples of each set (default: all)")->check(count());
  eval->add_option(
      "--protocol", c.protocol,
      "of multiple-choice items: label_logits, generation or exact_match (default: the config's)");
  eval->add_option(
      "--labels", c.labels,
      "labels to choose from: item (its choices') or shape (all of its kind of task; default: the "
      "config's)");
  add_device(eval, c.device);
  eval->callback([&] { code = run_eval(c); });
  CLI::App* ask = app.add_subcommand(
      "ask",
      "One question, about an image or not, answered greedily; a run without conversations goes on with "
      "the question as with any text");
  ask->add_option("run", a.run, "run directory")->required();
  ask->add_option("question", a.question, "the question")->required();
  ask->add_option("--image", a.image, "PNG file (default: no image)");
  add_device(ask, a.device);
  ask->callback([&] { code = run_ask(a.run, a.image, a.question, a.device); });
}

struct DataArguments {
  DataMakeCommand make;
  DataMakeTasksCommand tasks;
  DataMakeLanguagesCommand languages;
  DataFile file;
  burrow::data::ConvertOptions convert;
  int64_t sample = 0;
};
void add_data(CLI::App& app, DataArguments& a, int& code) {
  CLI::App* data =
      app.add_subcommand("data", "Make, convert, check and show data sets")->require_subcommand(1);
  CLI::App* make = data->add_subcommand(
      "make", "Write the three generated domains (or the stage-1 set): JSON, PNG, tokenizer");
  make->add_option("folder", a.make.folder, "where to")->required();
  make->add_option("--seed", a.make.seed, "of everything drawn")->check(CLI::Range(int64_t{0}, INT64_MAX));
  make->add_option("--train", a.make.train, "training records of each domain");
  make->add_option("--validation", a.make.validation, "validation records of each domain");
  make->add_option("--test", a.make.test, "test records of each domain");
  make->add_flag("--pretrain", a.make.pretrain,
                 "the stage-1 set instead: captions, grounding, counting, copying");
  make->add_option("--images", a.make.images, "images of the stage-1 set");
  make->add_option("--records-per-image", a.make.records_per_image,
                   "records that share an image of the stage-1 set")
      ->check(CLI::Range(1, 1000));
  make->callback([&] { code = run_data_make(a.make); });
  CLI::App* tasks = data->add_subcommand(
      "make-tasks", "Write the eight reasoning tasks and their pretraining text: JSON lines, tokenizer");
  tasks->add_option("folder", a.tasks.folder, "where to")->required();
  tasks->add_option("--seed", a.tasks.seed, "of everything drawn")->check(CLI::Range(int64_t{0}, INT64_MAX));
  tasks->add_option("--train", a.tasks.train, "training items of each family");
  tasks->add_option("--validation", a.tasks.validation, "validation items of each family");
  tasks->add_option("--test", a.tasks.test, "test items of each family");
  tasks->add_option("--texts", a.tasks.texts, "lines of the pretraining text");
  tasks->callback([&] { code = run_data_make_tasks(a.tasks); });
  CLI::App* languages = data->add_subcommand(
      "make-languages",
      "Write conversations and multiple-choice items about one set of scenes in six artificial languages");
  languages->add_option("folder", a.languages.folder, "where to")->required();
  languages->add_option("--seed", a.languages.seed, "of everything drawn")
      ->check(CLI::Range(int64_t{0}, INT64_MAX));
  languages->add_option("--train", a.languages.train, "training records of each language");
  languages->add_option("--validation", a.languages.validation, "validation records of each language");
  languages->add_option("--test", a.languages.test, "test records of each language");
  languages->add_flag("--pretrain", a.languages.pretrain,
                      "a base model's lessons instead: captions in English, text in all languages");
  languages->callback([&] { code = run_data_make_languages(a.languages); });
  CLI::App* convert = data->add_subcommand(
      "convert",
      "Write multiple-choice items (the format choices) from a task's published file. What is read of each "
      "line:\n"
      "  boolq       question, passage, answer (true or false)\n"
      "  piqa        goal, sol1, sol2; labels 0 or 1\n"
      "  siqa        context, question, answerA, answerB, answerC; labels 1 to 3\n"
      "  hellaswag   ctx, endings, label\n"
      "  winogrande  sentence, option1, option2, answer (1 or 2)\n"
      "  arc, obqa   question.stem, question.choices (label, text), answerKey\n"
      "  mmmb        tab-separated: index, image (in base64), question, A to D, answer; hint, category\n"
      "e.g. burrow data convert piqa train.jsonl piqa/train.jsonl --labels train-labels.lst");
  convert->add_option("shape", a.convert.shape, "boolq, piqa, siqa, hellaswag, winogrande, arc, obqa or mmmb")
      ->required();
  convert->add_option("in", a.convert.in, "the published file, JSON lines or TSV")->required();
  convert->add_option("out", a.convert.out, "file of items to write")->required();
  convert->add_option("--labels", a.convert.labels, "piqa, siqa: the file with a label a line (.lst)");
  convert->add_option("--images", a.convert.images, "mmmb: the folder that images are written to");
  convert->add_option("--language", a.convert.language, "mmmb: what the items say of their language");
  convert->add_flag("--passage", a.convert.passage,
                    "boolq: give the passage, which MixLoRA's protocol leaves out");
  convert->add_flag("--leave-out", a.convert.leave_out,
                    "drop items that are none (equal choices, empty ones), and say how many");
  convert->callback([&] { code = run_data_convert(a.convert); });
  const auto reads = [&a](CLI::App* c) {
    c->add_option("path", a.file.path, "file of records")->required();
    c->add_option(
        "--format", a.file.format,
        "llava (a JSON list of conversations), choices (JSON lines of multiple-choice items) or text "
        "(JSON lines {\"text\": \"...\"}); default: what the file looks like");
    c->add_option("--images", a.file.images, "image folder of conversations (default: the file's folder)");
    c->add_option("--tokenizer", a.file.tokenizer,
                  "tokenizer.json or .model (default: found beside the file or above it)");
    c->add_option("--chat", a.file.chat, "chat template of conversations: plain or vicuna_v1");
    c->add_option("--max-tokens", a.file.max_tokens, "longest sample, as model.decoder.max_tokens")
        ->check(count())
        ->capture_default_str();
  };
  CLI::App* check = data->add_subcommand(
      "check", "Read every record and image; print each fault with file, record or line, field and reason");
  reads(check);
  check->callback([&] { code = run_data_check(a.file); });
  CLI::App* show = data->add_subcommand("show", "Print one sample's token stream, supervised tokens marked");
  reads(show);
  show->add_option("--sample", a.sample, "index of the sample")->required();
  show->callback([&] { code = run_data_show(a.file, a.sample); });
}

void add_factorize(CLI::App& app, FactorizeCommand& c, int& code) {
  CLI::App* cut = app.add_subcommand(
      "factorize",
      "Cut a dense decoder's FFNs into blocks with a router each (FactorLLM); the folder that it "
      "writes is read by train (its config.toml), eval and ask");
  cut->add_option("model", c.model, "run directory of method full, or TOML file with model.weights")
      ->required();
  cut->add_option("--out", c.out, "folder to write")->required();
  cut->add_option("--experts", c.experts, "blocks of each FFN")->check(count())->capture_default_str();
  cut->add_option("--top-k", c.top_k, "blocks that a token passes through")
      ->check(count())
      ->capture_default_str();
  cut->add_option("--split", c.split, "contiguous, random or clustered")->capture_default_str();
  cut->add_option("--seed", c.seed, "of the routers and of the split")
      ->check(CLI::Range(int64_t{0}, INT64_MAX));
  cut->callback([&] { code = run_factorize(c); });
}

struct BenchTrainArguments {
  BenchTrainCommand command;
  DeviceChoice device;
};
void add_bench_train(CLI::App* bench, BenchTrainArguments& a, int& code) {
  CLI::App* train = bench->add_subcommand(
      "train", "Tokens a second of training steps with random weights and words, at a config's sizes");
  train->add_option("config", a.command.config, "TOML file; one of model sizes alone will do")->required();
  train->add_option("--set", a.command.overrides, "key=value, over the file (repeatable)");
  train->add_option("--lengths", a.command.lengths, "file with the text tokens of each sample")
      ->default_val("configs/bench/llava_lengths.txt");
  train->add_option("--steps", a.command.steps, "of which the median is printed")
      ->check(count())
      ->capture_default_str();
  train->add_option("--json", a.command.json, "write the figures to this file");
  add_device(train, a.device);
  train->callback([&] {
    code = run_bench_train(
        a.command, choose_device(a.device, [](const std::string& line) { fmt::print("{}\n", line); }));
  });
}

void add_bench(CLI::App& app, BenchInferCommand& c, BenchTrainArguments& train, int& code) {
  CLI::App* bench = app.add_subcommand("bench", "Measure speed")->require_subcommand(1);
  CLI::App* infer = bench->add_subcommand(
      "infer", "Tokens a second of a decoder, dense and with its FFNs in blocks, in one run");
  infer
      ->add_option("config", c.config,
                   "TOML file with the model's sizes; without model.weights they are random")
      ->required();
  infer->add_option("--set", c.overrides, "key=value, over the file (repeatable)");
  infer
      ->add_option("--variants", c.variants,
                   "e.g. 1R4E1K,1R4E2K: one router, 4 blocks, 1 or 2 of them a token")
      ->delimiter(',');
  infer->add_option("--prompt", c.prompt, "tokens of the prompt")->check(count())->capture_default_str();
  infer->add_option("--new", c.new_tokens, "tokens decoded after it")->check(count())->capture_default_str();
  infer->add_option("--rounds", c.rounds, "of which medians are printed")
      ->check(count())
      ->capture_default_str();
  infer->add_option("--json", c.json, "write the figures to this file");
  add_device(infer, c.device);
  add_bench_train(bench, train, code);
  infer->callback([&] { code = run_bench_infer(c); });
}

void add_plan(CLI::App& app, PlanCommand& c, int& code) {
  CLI::App* plan = app.add_subcommand(
      "plan", "Predict the memory that training with a config takes on a GPU, without one");
  plan->add_option("config", c.config, "TOML file; one of model sizes alone will do")->required();
  plan->add_option("--set", c.overrides, "key=value, over the file (repeatable)");
  plan->add_option(
      "--memory", c.memory,
      "refuse what does not fit, e.g. 80GiB, and say what would help: bf16, layers computed again, smaller "
      "micro-batches");
  plan->add_option("--json", c.json, "write the figures to this file");
  plan->callback([&] { code = run_plan(c); });
}

void add_features(CLI::App& app, TrainCommand& c, int& code) {
  CLI::App* features =
      app.add_subcommand("features", "Compute the cached visual features of every set of a config");
  features->add_option("config", c.config, "TOML file")->required();
  features->add_option("--set", c.overrides, "key=value, over the file (repeatable)");
  add_device(features, c.device);
  features->callback([&] { code = run_features(c.config, c.overrides, c.device); });
}

void add_routing(CLI::App& app, RoutingCommand& c, int& code) {
  CLI::App* routing = app.add_subcommand(
      "routing", "How a finished run's routers weigh their experts: CSV, by language or data set");
  routing->add_option("run", c.run, "run directory")->required();
  routing->add_option("--split", c.split, "train, validation or test (default: the config's eval.split)");
  routing->add_option("--limit", c.limit, "samples of each set (default: all)")->check(count());
  routing->add_option("--out", c.out, "file to write (default: printed)");
  add_device(routing, c.device);
  routing->callback([&] { code = run_routing(c); });
}

void add_table(CLI::App& app, TableCommand& c, int& code) {
  CLI::App* table =
      app.add_subcommand("table",
                         "Train the cells of a table that are not finished yet, and print it. Paths "
                         "in its config are relative to the current directory; docs/tables.md has more.");
  table->add_option("config", c.config, "TOML file of the table")->required();
  table->add_option("--out", c.out, "folder of the cells and the table (default: runs/<name of the config>)");
  table
      ->add_option("--jobs", c.jobs,
                   "cells at once, the threads shared between them (default: the faster on this machine; "
                   "1 on a GPU)")
      ->check(count());
  table->add_option("--set", c.overrides, "key=value over every cell's config (repeatable)");
  table->add_option("--seeds", c.seeds, "only the first so many seeds")->check(count());
  table->add_flag("--list", c.list, "print the cells and whether they are finished, and stop");
  table->add_flag("--report", c.report_only, "print the table from the finished cells, train nothing");
  add_device(table, c.device);
  table->callback([&] { code = run_table(c); });
}

// What was printed is still in a buffer: a full disk or a closed pipe shows only when that is written.
void finish_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  throw std::system_error(errno, std::generic_category(), "standard output");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("burrow: mixtures of LoRA experts on multimodal transformers");
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "Help of every subcommand");
  int code = 0;
  bool markdown = false;
  TrainCommand train, features;
  EvalCommand eval;
  AskArguments ask;
  DataArguments data;
  TableCommand table;
  FactorizeCommand factorize;
  BenchInferCommand bench;
  BenchTrainArguments bench_train;
  RoutingCommand routing;
  add_train(app, train, code);
  add_eval(app, eval, ask, code);
  add_data(app, data, code);
  add_features(app, features, code);
  add_routing(app, routing, code);
  add_table(app, table, code);
  add_factorize(app, factorize, code);
  add_bench(app, bench, bench_train, code);
  PlanCommand plan;
  add_plan(app, plan, code);
  app.add_subcommand("device", "Print the device that --device cuda takes, or why there is none")
      ->callback([&] { code = run_device(); });
  app.add_subcommand("methods", "List the table of methods")->callback([&] { code = run_methods(); });
  CLI::App* reference = app.add_subcommand("config", "List every key of a run's config");
  reference->add_flag("--markdown", markdown, "as Markdown tables");
  reference->callback([&] { code = run_config_reference(markdown); });
  try {
    app.parse(argc, argv);
    finish_output();
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  } catch (const std::exception& e) {
    // Not fmt::print, which throws when stderr is a file on a disk that is full.
    std::fprintf(stderr, "burrow: %s\n", e.what());
    return 1;
  }
  return code;
}
