#include "train/measure/synthetic.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "nn/arena.h"
#include "tensor/device.h"
#include "tensor/files.h"
#include "tensor/json.h"
#include "tensor/profile.h"
#include "tensor/rng.h"
#include "train/commands/commands.h"
#include "train/run/device.h"
#include "train/table/statistics.h"

namespace burrow::train {
namespace {

// An i32 tensor of `values` on the device; the copy is skipped while `burrow plan` runs.
Tensor column(const std::vector<int32_t>& values, Device device) {
  return Tensor::of({static_cast<int64_t>(values.size())}, values).to(device);
}

// Fills t with copies of one random block times `deviation`: drawing billions of values would take minutes.
void fill_randomly(Tensor& t, double deviation) {
  constexpr int64_t kBlock = 1 << 20;
  static const Tensor block = [] {
    Tensor b = Tensor::empty({kBlock}, DType::f32);
    Random random(1);
    for (int64_t i = 0; i < kBlock; ++i) b.data<float>()[i] = static_cast<float>(random.normal());
    return b;
  }();
  Tensor scaled = block.clone();
  kernel::scale(scaled, block, deviation);
  const Tensor source = scaled.to(t.dtype());
  const Tensor flat = t.reshape({t.numel()});
  for (int64_t begin = 0; begin < t.numel(); begin += kBlock) {
    const int64_t end = std::min(t.numel(), begin + kBlock);
    flat.slice_rows(begin, end).copy_from(source.slice_rows(0, end - begin));
  }
}

std::vector<int64_t> read_lengths(const std::string& path) {
  std::vector<int64_t> lengths;
  std::istringstream lines(read_file(path));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("#")) continue;
    std::istringstream words(line);
    for (int64_t n = 0; words >> n;) {
      BURROW_CHECK(n > 0, "{}: length {} is not positive", path, n);
      lengths.push_back(n);
    }
  }
  BURROW_CHECK(!lengths.empty(), "{}: no lengths", path);
  return lengths;
}

// N of the estimate 4 N FLOPs per token: frozen weights in the Linears of the decoder's blocks. Excludes the
// tower, which a step does not run, and the head, which is applied to supervised rows only.
double multiplied_parameters(nn::Llava& model) {
  double count = 0;
  for (nn::DecoderBlock& block : model.decoder.blocks) {
    block.parameters([&](const nn::Parameter& p) {
      const Tensor& weight = p.var->value();
      if (weight.rank() == 2 && !p.var->needs_grad() && p.role != nn::Role::teacher)
        count += static_cast<double>(weight.numel());
    });
  }
  return count;
}

}  // namespace

Segments sequences_of(const nn::ModelConfig& sizes, const std::vector<int64_t>& texts, int64_t tokens) {
  const int64_t P = sizes.vision.visual_tokens();
  Segments s;
  for (size_t i = 0; s.rows() < tokens; ++i) {
    const int64_t length =
        std::min({P + texts[i % texts.size()], sizes.decoder.max_tokens, tokens - s.rows()});
    const int64_t text = length > P ? length - P : length;  // no image if it does not fit
    for (int64_t t = 0; t < length; ++t) {
      s.position.push_back(static_cast<int32_t>(t));
      s.sequence.push_back(static_cast<int32_t>(s.count()));
      s.kind.push_back(t < length - text       ? TokenKind::visual
                       : t < length - text / 2 ? TokenKind::prompt
                                               : TokenKind::answer);
    }
    s.ordinal.push_back(s.count());
    s.dataset.push_back(0);
    s.offsets.push_back(static_cast<int32_t>(s.rows() + length));
  }
  return s;
}

MicroInputs synthetic_inputs(const nn::Llava& model, Segments segments) {
  const Device device = model.device();
  const nn::VisionConfig& vision = model.config.vision;  // the last sequence may have no image
  const int64_t P = vision.visual_tokens();
  MicroInputs batch;
  std::vector<int32_t> ids, supervised, targets;
  Random random(2);
  for (int64_t n = 0; n < segments.rows(); ++n) {
    const auto i = static_cast<size_t>(n);
    const auto word =
        static_cast<int32_t>(random.below(static_cast<uint32_t>(model.config.decoder.vocabulary)));
    const bool visual = segments.kind[i] == TokenKind::visual;
    ids.push_back(visual ? static_cast<int32_t>(-1 - segments.sequence[i] * P - segments.position[i]) : word);
    if (segments.kind[i] != TokenKind::answer) continue;
    supervised.push_back(static_cast<int32_t>(n));
    targets.push_back(word);
  }
  batch.ids = column(ids, Device::cpu);
  batch.supervised = column(supervised, device);
  batch.targets = column(targets, device);
  const auto visual_rows = std::count(segments.kind.begin(), segments.kind.end(), TokenKind::visual);
  if (visual_rows > 0) {
    Tensor features = Tensor::empty({visual_rows, vision.width}, DType::f32, device, "features");
    fill_randomly(features, 1);
    batch.features = Var(features);
  }
  batch.segments = std::move(segments);
  return batch;
}

StepTotals totals_of(const MicroInputs& inputs, int64_t micro_batches) {
  return {inputs.segments.count() * micro_batches, inputs.segments.rows() * micro_batches,
          std::max<int64_t>(1, inputs.targets.numel()) * micro_batches, micro_batches};
}

namespace {

// Options of `burrow bench train`. `lengths` is a file with the number of text tokens of each sample.
struct BenchTrainCommand {
  std::string config, lengths = "configs/bench/llava_lengths.txt", json;
  std::vector<std::string> overrides;
  int64_t steps = 10;
  DeviceChoice device = {};
};

int run_bench_train(const BenchTrainCommand& command) {
  const Device device =
      choose_device(command.device, [](const std::string& line) { fmt::print("{}\n", line); });
  const RunConfig config = read_run_config(command.config, command.overrides, DataKeys::optional);
  const DType dtype = config.model.dtype == "bf16" ? DType::bf16 : DType::f32;
  BURROW_CHECK(config.model.compute == "f32" || device == Device::cuda,
               "model.compute = 'bf16': use --device cuda");
  nn::Llava model(config.model.sizes, *nn::shapes_only(dtype));
  if (config.model.compute == "bf16") model.compute = DType::bf16;
  moe::Attachment attachment = moe::attach(model, config.method, 0);
  model.parameters([&](const nn::Parameter& p) {
    Tensor t = Tensor::empty(p.var->shape(), p.var->value().dtype(), device, "weights");
    const double share = static_cast<double>(t.dim(0)) / static_cast<double>(t.numel());
    fill_randomly(t, t.rank() > 1 ? std::sqrt(share) : 1);
    *p.var = Var(t);
  });
  nn::ParameterArena arena(attachment.trainable);
  Optimizer optimizer(arena, config.train);
  const int64_t tokens =
      (config.train.tokens_per_step + config.train.accumulation - 1) / config.train.accumulation;
  MicroInputs batch =
      synthetic_inputs(model, sequences_of(config.model.sizes, read_lengths(command.lengths), tokens));
  Learner learner{model, config.method, arena, optimizer};
  std::vector<double> seconds;
  double loss = 0;
  for (int64_t i = 0; i < command.steps + 2; ++i) {  // the first two are warm-up
    if (i == 2) reset_memory_peak(device);
    const double begin = seconds_now();
    const StepResult result = compute_gradients(
        learner, totals_of(batch, config.train.accumulation),
        {.step = static_cast<uint64_t>(i), .recompute_layers = config.train.recompute_layers},
        [&](int64_t) { return batch; });
    loss = result.loss;
    optimizer.step(result.gradient_norm, 1);
    if (device == Device::cuda) cuda::synchronise();
    if (i >= 2) seconds.push_back(seconds_now() - begin);
  }
  const double step = median(seconds), rate = static_cast<double>(tokens * config.train.accumulation) / step;
  const double model_flops = 4.0 * multiplied_parameters(model) * rate;
  const size_t peak = memory_report(device).peak;
  fmt::print(
      "{}: {} sequences, {} tokens a step; median of {} steps {:.1f} ms, {:.0f} tokens/s, {:.1f} TFLOP/s of "
      "4 N; "
      "{:.2f} GiB of tensors at the peak; loss {:.4f}\n",
      config.method.name, batch.segments.count(), tokens * config.train.accumulation, seconds.size(),
      1e3 * step, rate, 1e-12 * model_flops, static_cast<double>(peak) / (1 << 30), loss);
  if (!command.json.empty()) {
    const nlohmann::ordered_json json = {{"method", config.method.name},
                                         {"device", describe(device)},
                                         {"tokens", tokens * config.train.accumulation},
                                         {"sequences", batch.segments.count() * config.train.accumulation},
                                         {"supervised", batch.targets.numel() * config.train.accumulation},
                                         {"seconds", seconds},
                                         {"median_seconds", step},
                                         {"tokens_per_second", rate},
                                         {"flops_of_4n", model_flops},
                                         {"peak_bytes", peak}};
    write_file_atomically(command.json, json.dump(2) + "\n");
  }
  return 0;
}

}  // namespace

void add_bench_train(Command& bench) {
  auto [train, c] = bench.command(
      "train", "Tokens a second of training steps with random weights and words, at a config's sizes",
      run_bench_train);
  train.option("config", c.config, "TOML file; one of model sizes alone will do");
  train.option("--set", c.overrides, "key=value, over the file (repeatable)");
  train.option("--lengths", c.lengths, "file with the text tokens of each sample", {.show_default = true});
  train.option("--steps", c.steps, "of which the median is printed",
               {.show_default = true, .range = kPositive});
  train.option("--json", c.json, "write the figures to this file");
  add_device_options(train, c.device);
}

}  // namespace burrow::train
