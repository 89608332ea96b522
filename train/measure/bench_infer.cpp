// burrow bench infer: tokens per second of a dense decoder and of one with its FFNs split into blocks.
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "moe/attach.h"
#include "tensor/device.h"
#include "tensor/files.h"
#include "tensor/json.h"
#include "tensor/profile.h"
#include "tensor/rng.h"
#include "train/commands/commands.h"
#include "train/config/options.h"
#include "train/run/device.h"
#include "train/table/statistics.h"

namespace burrow::train {
namespace {

using Json = nlohmann::ordered_json;

// Options of `burrow bench infer`. Variants are named as in the paper (FactorLLM), such as 1R4E1K.
struct BenchInferCommand {
  std::string config, json;
  std::vector<std::string> overrides, variants{"1R4E1K"};
  int64_t prompt = 512, new_tokens = 32, rounds = 5;
  DeviceChoice device = {};
};

// Weights that are cheap to draw, with the magnitude of a Linear's: timings do not depend on their values.
class QuickWeights : public nn::WeightSource {
 public:
  Tensor take(const std::string& name, const Shape& shape, nn::Init init, int64_t) override {
    if (init == nn::Init::one) return Tensor::full(shape, 1, DType::f32);
    Tensor t = Tensor::empty(shape, DType::f32, Device::cpu, "weights");
    const float scale = 2 / std::sqrt(static_cast<float>(t.cols()));
    float* to = t.data<float>();
    const uint64_t key = random_key(0, 0, name);
#pragma omp parallel for
    for (int64_t i = 0; i < t.numel(); ++i)
      to[i] = scale * (static_cast<float>(mix_bits(key ^ static_cast<uint64_t>(i)) >> 40) * 0x1p-24f - 0.5f);
    return t;
  }
};

// A source that shares another model's tensors; a narrower FFN receives a copy of its first channels.
class SharedWeights : public nn::WeightSource {
 public:
  explicit SharedWeights(nn::Llava& model) {
    model.parameters([&](const nn::Parameter& p) { tensors_[p.name] = p.var->value(); });
  }
  Tensor take(const std::string& name, const Shape& shape, nn::Init, int64_t) override {
    const Tensor& whole = tensors_.at(name);
    if (whole.shape() == shape) return whole;
    if (whole.dim(1) == shape[1]) return whole.slice_rows(0, shape[0]);
    Tensor part = Tensor::empty(shape, whole.dtype(), Device::cpu, "weights");
    for (int64_t row = 0; row < shape[0]; ++row)
      part.slice_rows(row, row + 1)
          .copy_from(whole.slice_rows(row, row + 1)
                         .reshape({whole.dim(1)})
                         .slice_rows(0, shape[1])
                         .reshape({1, shape[1]}));
    return part;
  }

 private:
  std::map<std::string, Tensor> tensors_;
};

struct Subject {
  std::string name;
  std::unique_ptr<nn::Llava> model;
  double prompt_flops = 0, prompt_ffn_flops = 0, token_flops = 0,
         token_ffn_flops = 0;                                        // FLOPs counted by the kernels
  std::vector<double> prompt{}, token{}, prompt_ffn{}, token_ffn{};  // seconds, one value per round
};

// Parses a name such as "1R4E1K": one router, 4 experts, 1 expert per token.
moe::MethodConfig variant(const std::string& name) {
  int routers = 0, experts = 0, chosen = 0, read = 0;
  const int found = std::sscanf(name.c_str(), "%dR%dE%dK%n", &routers, &experts, &chosen, &read);
  BURROW_CHECK(found == 3 && routers == 1 && static_cast<size_t>(read) == name.size(),
               "--variants: '{}' is not of the form 1R4E1K", name);
  moe::MethodConfig c = moe::method("factorllm");
  c.experts = experts;
  c.router.top_k = chosen;
  c.prior.weight = 0;
  moe::check(c);
  return c;
}

std::vector<Subject> make_subjects(const nn::ModelConfig& sizes, const std::string& weights,
                                   const std::vector<std::string>& variants) {
  std::vector<Subject> all;
  std::unique_ptr<nn::WeightSource> source;
  if (weights.empty())
    source = std::make_unique<QuickWeights>();
  else
    source = std::make_unique<nn::FileWeights>(weights, DType::f32);
  all.push_back({"dense", std::make_unique<nn::Llava>(sizes, *source)});
  SharedWeights shared(*all[0].model);
  for (const std::string& name : variants) {
    const moe::MethodConfig method = variant(name);
    Subject cut{name, std::make_unique<nn::Llava>(sizes, shared)};
    moe::attach(*cut.model, method, 0);
    all.push_back(std::move(cut));
  }
  for (const std::string& name : variants) {  // dense models as narrow as the chosen blocks: an upper bound
    const moe::MethodConfig method = variant(name);
    nn::ModelConfig narrow = sizes;
    narrow.decoder.mlp_width = sizes.decoder.mlp_width / method.experts * method.router.top_k;
    const std::string label = fmt::format("dense, F {}", narrow.decoder.mlp_width);
    if (std::any_of(all.begin(), all.end(), [&](const Subject& s) { return s.name == label; })) continue;
    all.push_back({label, std::make_unique<nn::Llava>(narrow, shared)});
  }
  return all;
}

Segments one_sequence(int64_t T) {
  Segments s;
  for (int64_t t = 0; t < T; ++t) {
    s.position.push_back(static_cast<int32_t>(t));
    s.sequence.push_back(0);
    s.kind.push_back(TokenKind::prompt);
  }
  s.offsets.push_back(static_cast<int32_t>(T));
  s.ordinal.push_back(0);
  s.dataset.push_back(0);
  return s;
}

// Runs the FFNs of all layers on N random rows.
double ffn_seconds(const nn::Llava& model, const Segments& segments) {
  const NoGrad no_grad;
  const Device device = model.device();
  nn::Pass pass(segments, device);
  QuickWeights draw;
  const Var x(draw.take("x", {segments.rows(), model.config.decoder.width}, nn::Init::linear, 1).to(device));
  const auto wait = [device] {
    if (device == Device::cuda) cuda::synchronise();
  };
  wait();
  const double begin = seconds_now();
  for (const nn::DecoderBlock& block : model.decoder.blocks) (*block.ffn)(x, pass);
  wait();
  return seconds_now() - begin;
}

// FLOPs of the kernels that f runs.
double flops_of(const std::function<void()>& f) {
  start_profile();
  f();
  double sum = 0;
  for (const KernelProfile& k : stop_profile()) sum += k.flops;
  return sum;
}

constexpr int32_t kNever = -1;  // a stop token that no model outputs

// Warms up on the prompt and counts FLOPs.
void warm_up(Subject& s, const Segments& prompt, const Tensor& ids) {
  s.prompt_flops = flops_of([&] { nn::greedy_decode(*s.model, prompt, ids, {}, kNever, 1); });
}

void measure(Subject& s, const Segments& prompt, const Tensor& ids, int64_t new_tokens) {
  const Segments one = one_sequence(1);
  std::vector<double> seconds, single;
  const double flops =
      flops_of([&] { nn::greedy_decode(*s.model, prompt, ids, {}, kNever, new_tokens + 1, &seconds); });
  s.token_flops = (flops - s.prompt_flops) / static_cast<double>(new_tokens);
  s.prompt.push_back(seconds[0]);
  s.token.push_back(median(std::span(seconds).subspan(1)));
  s.prompt_ffn_flops = flops_of([&] { s.prompt_ffn.push_back(ffn_seconds(*s.model, prompt)); });
  for (int64_t i = 0; i < new_tokens; ++i)
    s.token_ffn_flops = flops_of([&] { single.push_back(ffn_seconds(*s.model, one)); });
  s.token_ffn.push_back(median(single));
}

// Speed relative to the reference: the ratio of times, computed round by round.
double speedup(const std::vector<double>& reference, const std::vector<double>& mine) {
  std::vector<double> ratios;
  for (size_t i = 0; i < mine.size(); ++i) ratios.push_back(reference[i] / mine[i]);
  return median(ratios);
}

Json print(const std::vector<Subject>& subjects, int64_t T) {
  const Subject& dense = subjects[0];
  Json rows = Json::array();
  for (const bool prefill : {true, false}) {
    const double tokens = prefill ? static_cast<double>(T) : 1;
    fmt::print(
        "\n{}\n\n| model | FFN MFLOP a token | all | x fewer | tokens/s | x dense | FFN ms | x dense | the "
        "rest ms |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        prefill ? fmt::format("Prefill of {} tokens", T) : std::string("Decode, one token at a time"));
    for (const Subject& s : subjects) {
      const auto &all = prefill ? s.prompt : s.token, &ffn = prefill ? s.prompt_ffn : s.token_ffn;
      const auto &all0 = prefill ? dense.prompt : dense.token,
                 &ffn0 = prefill ? dense.prompt_ffn : dense.token_ffn;
      const double flops = prefill ? s.prompt_flops : s.token_flops,
                   flops0 = prefill ? dense.prompt_flops : dense.token_flops;
      const double ffn_flops = prefill ? s.prompt_ffn_flops : s.token_ffn_flops;
      fmt::print("| {} | {:.2f} | {:.2f} | {:.2f} | {:.1f} | {:.2f} | {:.3f} | {:.2f} | {:.3f} |\n", s.name,
                 1e-6 * ffn_flops / tokens, 1e-6 * flops / tokens, flops0 / flops, tokens / median(all),
                 speedup(all0, all), 1e3 * median(ffn), speedup(ffn0, ffn),
                 1e3 * (median(all) - median(ffn)));
      rows.push_back({{"model", s.name},
                      {"phase", prefill ? "prefill" : "decode"},
                      {"ffn_flops_per_token", ffn_flops / tokens},
                      {"flops_per_token", flops / tokens},
                      {"tokens_per_second", tokens / median(all)},
                      {"speedup", speedup(all0, all)},
                      {"ffn_seconds", median(ffn)},
                      {"seconds", median(all)}});
    }
  }
  return rows;
}

int run_bench_infer(const BenchInferCommand& c) {
  const Device device = choose_device(c.device, [](const std::string& line) { fmt::print("{}\n", line); });
  RunConfig config;
  Document document = Document::load(c.config);
  for (const std::string& o : c.overrides) document.apply_override(o, fields_of(config));
  read_config(document, config);
  nn::ModelConfig& sizes = config.model.sizes;
  sizes.vision.layers = 0;  // no vision tower
  nn::check(sizes);
  std::vector<Subject> subjects = make_subjects(sizes, config.model.weights, c.variants);
  for (Subject& s : subjects) s.model->move_to(device);
  const nn::DecoderConfig& d = sizes.decoder;
  fmt::print(
      "C {}, F {}, {} layers, {} tokens in the vocabulary; {} weights; {}, {} threads; medians of {} rounds "
      "in turns\n",
      d.width, d.mlp_width, d.layers, d.vocabulary,
      config.model.weights.empty() ? "random" : config.model.weights, describe(device), omp_get_max_threads(),
      c.rounds);
  const Segments prompt = one_sequence(c.prompt);
  std::vector<int32_t> tokens;
  Random random(1);
  for (int64_t i = 0; i < c.prompt; ++i)
    tokens.push_back(static_cast<int32_t>(random.below(static_cast<uint32_t>(d.vocabulary))));
  const Tensor ids = Tensor::of({c.prompt}, tokens);
  for (Subject& s : subjects) warm_up(s, prompt, ids);
  for (int64_t round = 0; round < c.rounds; ++round) {
    for (Subject& s : subjects) measure(s, prompt, ids, c.new_tokens);
  }
  const Json rows = print(subjects, c.prompt);
  if (!c.json.empty()) write_file_atomically(c.json, rows.dump(2) + "\n");
  return 0;
}

}  // namespace

void add_bench_infer(Command& bench) {
  auto [infer, c] =
      bench.command("infer", "Tokens a second of a decoder, dense and with its FFNs in blocks, in one run",
                    run_bench_infer);
  infer.option("config", c.config, "TOML file with the model's sizes; without model.weights they are random");
  infer.option("--set", c.overrides, "key=value, over the file (repeatable)");
  infer.option("--variants", c.variants, "e.g. 1R4E1K,1R4E2K: one router, 4 blocks, 1 or 2 of them a token",
               {.by_commas = true});
  infer.option("--prompt", c.prompt, "tokens of the prompt", {.show_default = true, .range = kPositive});
  infer.option("--new", c.new_tokens, "tokens decoded after it", {.show_default = true, .range = kPositive});
  infer.option("--rounds", c.rounds, "of which medians are printed",
               {.show_default = true, .range = kPositive});
  infer.option("--json", c.json, "write the figures to this file");
  add_device_options(infer, c.device);
}

}  // namespace burrow::train
