#pragma once
// All settings of a run with their defaults. visit_fields declares each key once, for reading TOML, for
// --set, for the resolved config in the run directory, and for the reference (docs/config.md).
#include <string>
#include <vector>

#include "data/sets/format.h"
#include "moe/config.h"
#include "nn/config.h"
#include "train/config/config.h"

namespace burrow::train {

struct DataSet {
  std::string name;
  data::Format format = data::Format::llava;
  std::string train, validation, test, images;
  bool circular = false;
};
struct DataConfig {
  std::string tokenizer, chat = "plain";
  std::vector<DataSet> sets;
  std::vector<std::string> use;
  std::vector<double> ratios;
  int64_t samples = 0;
  data::Supervision loss = data::Supervision::answer;
  std::string feature_cache;
};
struct ModelOptions {
  std::string weights, projector;
  std::string dtype = "f32", compute = "f32";
  nn::ModelConfig sizes;
};
struct TrainConfig {
  int64_t seed = 0;
  int64_t tokens_per_step = 400, accumulation = 1, recompute_layers = 0;
  double lr = 1e-2, router_lr = 0, warmup = 0.03, final_lr = 0;
  double beta1 = 0.9, beta2 = 0.98, eps = 1e-8, weight_decay = 0, clip = 1;
  int64_t max_steps = 0;
  int64_t log_every = 50, checkpoint_every = 1000, keep_checkpoints = 2;
};
// How multiple-choice items are scored (docs/data.md).
BURROW_ENUM(Protocol, exact_match, label_logits, generation)
BURROW_ENUM(LabelRange, item, shape)  // candidate labels: those of the item's choices, or all of its shape
struct EvalConfig {
  std::string split = "test";
  Protocol protocol = Protocol::label_logits;
  LabelRange labels = LabelRange::item;
  std::vector<std::string> sets;
  int64_t limit = 0, batch_tokens = 4096, max_new = 16;
};
struct RunConfig {
  ModelOptions model;
  moe::MethodConfig method;
  DataConfig data;
  TrainConfig train;
  EvalConfig eval;
};

template <class V>
void visit_fields(V& v, DataSet& c) {
  v.field("name", c.name, "", "name of the set in reports");
  v.field("format", c.format, "",
          "format of the files: llava, a JSON list of conversations; choices, JSON lines of multiple-choice "
          "items; text, JSON lines {\"text\": \"...\"}");
  v.field("train", c.train, "file", "training records");
  v.field("validation", c.validation, "file", "validation records");
  v.field("test", c.test, "file", "test records");
  v.field("images", c.images, "folder", "base folder of the records' image paths (llava, choices)");
  v.field("circular", c.circular, "",
          "choices only: validation and test present each item once for every rotation of its choices, and "
          "it is correct when all rotations are (MMBench)");
}
template <class V>
void visit_fields(V& v, DataConfig& c) {
  v.field("tokenizer", c.tokenizer, "file", "tokenizer.json, or SentencePiece's tokenizer.model");
  v.field("chat", c.chat, "", "chat template of conversations: plain or vicuna_v1");
  v.field("use", c.use, "names", "sets to train on; empty: all");
  v.field("ratios", c.ratios, "", "share of each set of `use` in the mixture; empty: by size");
  v.field("samples", c.samples, "samples", "number drawn in the whole run; 0: as many as the sets contain");
  v.field("loss", c.loss, "",
          "supervised tokens of a sample: those of its answers, or all, prompts included; text sets always "
          "supervise every token");
  v.field("feature_cache", c.feature_cache, "folder", "cache of a frozen tower's features; empty: none");
  v.list("sets", c.sets, "the data sets; those with a file for the evaluated split are evaluated");
}
template <class V>
void visit_fields(V& v, ModelOptions& c) {
  v.field("weights", c.weights, "file",
          "safetensors with every weight of the model; empty: random, from the seed");
  v.field("projector", c.projector, "file",
          "safetensors with the projector's weights, which replace those of `weights`: the "
          "trained.safetensors of a run that trained it; empty: none");
  v.field(
      "dtype", c.dtype, "",
      "type of the frozen weights and of arithmetic: f32 or f64; bf16: matrices in bf16, arithmetic in f32");
  v.field(
      "compute", c.compute, "",
      "type of the activations with dtype f32 or bf16: f32, or bf16 with sums in f32 (--device cuda only)");
  visit_fields(v, c.sizes);
}
template <class V>
void visit_fields(V& v, TrainConfig& c) {
  v.field("seed", c.seed, "", "seed of adapters, sample order and dropout");
  v.field("tokens_per_step", c.tokens_per_step, "tokens",
          "budget of one optimiser step, visual tokens included");
  v.field("accumulation", c.accumulation, "micro-batches", "number of parts in which a step is computed");
  v.field(
      "recompute_layers", c.recompute_layers, "layers",
      "number of decoder blocks, from the first, that keep only their input for the backward pass and are "
      "recomputed there: less memory, up to 1.5 times the work");
  v.field("lr", c.lr, "", "peak learning rate");
  v.field("router_lr", c.router_lr, "", "peak learning rate of the routers; 0: train.lr");
  v.field("warmup", c.warmup, "of the steps", "share of the steps in which the learning rate rises linearly");
  v.field("final_lr", c.final_lr, "of the peak", "learning rate at the end of the cosine");
  v.field("beta1", c.beta1, "", "AdamW's decay rate of the first moment");
  v.field("beta2", c.beta2, "", "AdamW's decay rate of the second moment");
  v.field("eps", c.eps, "", "AdamW's epsilon");
  v.field("weight_decay", c.weight_decay, "", "AdamW's decoupled weight decay");
  v.field("clip", c.clip, "", "largest norm of the whole gradient; 0: no clipping");
  v.field("max_steps", c.max_steps, "steps", "maximum number of steps; 0: no limit but data.samples");
  v.field("log_every", c.log_every, "steps", "interval between lines of metrics.jsonl");
  v.field("checkpoint_every", c.checkpoint_every, "steps", "interval between checkpoints; 0: none");
  v.field("keep_checkpoints", c.keep_checkpoints, "files", "number kept; older ones are removed");
}
template <class V>
void visit_fields(V& v, EvalConfig& c) {
  v.field("split", c.split, "", "split evaluated at the end of training: test or validation");
  v.field("protocol", c.protocol, "",
          "scoring of sets of choices. label_logits: the most likely label after the prompt; generation: the "
          "first label in a greedy answer of at most max_new tokens; exact_match: the most likely token must "
          "be the label. Conversations are always scored by exact match, texts by the next token");
  v.field(
      "labels", c.labels, "",
      "labels that label_logits and generation consider: those of the item's choices, or all of its shape");
  v.field("sets", c.sets, "names", "sets to evaluate; empty: all that have the split");
  v.field("limit", c.limit, "samples", "samples evaluated of each set; 0: all");
  v.field("batch_tokens", c.batch_tokens, "tokens", "size of a batch of prompts decoded together");
  v.field("max_new", c.max_new, "tokens", "maximum length of an answer");
}
template <class V>
void visit_fields(V& v, RunConfig& c) {
  v.section("model", [&] { visit_fields(v, c.model); });
  v.section("method", [&] { visit_fields(v, c.method); });
  v.section("data", [&] { visit_fields(v, c.data); });
  v.section("train", [&] { visit_fields(v, c.train); });
  v.section("eval", [&] { visit_fields(v, c.eval); });
}

// optional: a config without data.sets is allowed; then [data] and [eval] are not checked, and without a
// tokenizer the vocabulary must be given.
enum class DataKeys { required, optional };
// Reads a TOML file with `--set` overrides. The defaults of [method] are the config of the named method.
RunConfig read_run_config(const std::string& path, const std::vector<std::string>& overrides,
                          DataKeys data = DataKeys::required);
RunConfig read_run_config(Document document, const std::vector<std::string>& overrides,
                          DataKeys data = DataKeys::required);
std::string write_run_config(const RunConfig& config);  // the resolved config as TOML
void check(const RunConfig& c);                         // throws an Error that names the key

}  // namespace burrow::train
