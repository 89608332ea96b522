// eval and ask: a finished run's scores, and its answer to one question.
#include <fmt/format.h>

#include <algorithm>

#include "train/commands/commands.h"
#include "train/commands/scores.h"
#include "train/run/device.h"

namespace burrow::train {
namespace {

// Empty strings stand for the config's values; limit 0 takes all samples.
struct EvalCommand {
  std::string run, split, protocol, labels;
  std::vector<std::string> sets;
  int64_t limit = 0;
  DeviceChoice device = {};
};

struct AskCommand {
  std::string run, image, question;  // image: a PNG file, or empty
  DeviceChoice device = {};
};

int run_eval(const EvalCommand& command) {
  Setup setup = load_run(command.run, choose_device(command.device, say));
  EvalConfig& eval = setup.config.eval;
  eval.limit = command.limit;
  if (!command.protocol.empty()) eval.protocol = value_named<Protocol>("--protocol", command.protocol);
  if (!command.labels.empty()) eval.labels = value_named<LabelRange>("--labels", command.labels);
  if (!command.sets.empty()) eval.sets = command.sets;
  check(setup.config);
  const std::string chosen = command.split.empty() ? eval.split : command.split;
  print_scores(setup.config, score_split(setup, chosen), chosen);
  return 0;
}

int run_ask(const AskCommand& command) {
  const Setup setup = load_run(command.run, choose_device(command.device, say));
  const std::vector<int32_t> words = setup.tokenizer.encode_plain(command.question);
  if (const auto unknown = std::count(words.begin(), words.end(), setup.tokenizer.unknown()); unknown > 0)
    say(fmt::format("{} of the question's {} words are not in the vocabulary", unknown, words.size()));
  if (command.image.empty()) {
    fmt::print("{}\n", answer(setup, nullptr, command.question));
  } else {
    const data::Image picture = data::read_png(command.image);
    fmt::print("{}\n", answer(setup, &picture, command.question));
  }
  return 0;
}

}  // namespace

void add_eval(Command& app) {
  auto [eval, c] =
      app.command("eval",
                  "Score a finished run, by data set and type of question: exact match of conversations, "
                  "accuracy on multiple-choice items, next tokens of texts",
                  run_eval);
  eval.option("run", c.run, "run directory");
  eval.option("--split", c.split, "test or validation (default: the config's)");
  eval.option("--sets", c.sets, "sets to score, by commas (default: the config's)", {.by_commas = true});
  eval.option("--limit", c.limit, "samples of each set (default: all)", {.range = kPositive});
  eval.option("--protocol", c.protocol,
              "of multiple-choice items: label_logits, generation or exact_match (default: the config's)");
  eval.option("--labels", c.labels,
              "labels to choose from: item (its choices') or shape (all of its kind of task; default: the "
              "config's)");
  add_device_options(eval, c.device);
}

void add_ask(Command& app) {
  auto [ask, c] = app.command("ask",
                              "One question, about an image or not, answered greedily; a run without "
                              "conversations goes on with the question as with any text",
                              run_ask);
  ask.option("run", c.run, "run directory");
  ask.option("question", c.question, "the question");
  ask.option("--image", c.image, "PNG file (default: no image)");
  add_device_options(ask, c.device);
}

}  // namespace burrow::train
