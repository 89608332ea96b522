#include "train/measure/plan.h"

#include <algorithm>
#include <optional>

#include "nn/arena.h"
#include "tensor/device.h"
#include "tensor/files.h"
#include "tensor/json.h"
#include "train/commands/commands.h"
#include "train/measure/synthetic.h"
#include "train/run/optimizer.h"

namespace burrow::train {
namespace {

constexpr size_t kMiB = size_t{1} << 20, kGiB = size_t{1} << 30;
// Memory of the driver's context, including kernel code, and of the workspace of cuBLASLt.
constexpr size_t kContext = 600 * kMiB, kWorkspace = 32 * kMiB;

// While an object exists, cuda allocations are counted but not made, and no kernel runs.
class Planned {
 public:
  Planned() { cuda::options().planned = true; }
  ~Planned() { cuda::options().planned = false; }
  Planned(const Planned&) = delete;
  Planned& operator=(const Planned&) = delete;
};

size_t bytes_now() { return memory_report(Device::cuda).live; }

// Size of the buffer in which bf16 weights are converted for f32 products, one matrix at a time.
size_t largest_conversion(nn::Llava& model) {
  size_t most = 0;
  if (model.compute == DType::bf16) return most;
  model.parameters([&](const nn::Parameter& p) {
    const Tensor& weight = p.var->value();
    if (weight.dtype() == DType::bf16) most = std::max(most, 2 * weight.nbytes());
  });
  return most;
}

std::string gib(size_t bytes) { return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / kGiB); }

size_t parse_memory(const std::string& text) {
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  const std::string unit = text.substr(used);
  BURROW_CHECK(used > 0 && value > 0 && (unit == "GiB" || unit == "GB" || unit == "MiB"),
               "--memory {}: must be a number with unit GiB, GB or MiB, such as 80GiB", text);
  return static_cast<size_t>(value * (unit == "GiB" ? 0x1p30 : unit == "GB" ? 1e9 : 0x1p20));
}

// The smallest number of recomputed layers for which the step fits; nullopt if it never does.
std::optional<int64_t> enough_layers(RunConfig config, size_t memory) {
  const auto fits = [&](int64_t layers) {
    config.train.recompute_layers = layers;
    return plan_memory(config).peak() <= memory;
  };
  int64_t least = config.train.recompute_layers, most = config.model.sizes.decoder.layers;
  if (!fits(most)) return std::nullopt;
  while (least + 1 < most) {  // `least` does not fit, `most` does
    const int64_t middle = (least + most) / 2;
    (fits(middle) ? most : least) = middle;
  }
  return most;
}

// Changes that would make the step fit, each checked by a plan: weights and activations in bf16; if that is
// not enough, recomputed layers, or smaller micro-batches; if neither is, both.
std::vector<std::string> advice(const RunConfig& config, size_t memory) {
  std::vector<std::string> found;
  RunConfig half = config;
  half.model.dtype = half.model.compute = "bf16";
  const bool whole = config.model.dtype != "bf16" || config.model.compute != "bf16";
  const std::string in_bf16 = "model.dtype = 'bf16' and model.compute = 'bf16'",
                    too = whole ? ", " + in_bf16 : "";
  const auto attempt = [&](const std::string& what, const RunConfig& changed) {
    const size_t peak = plan_memory(changed).peak();
    if (peak <= memory) found.push_back(fmt::format("{}: {}", what, gib(peak)));
    return peak <= memory;
  };
  if (whole && attempt(in_bf16, half)) return found;
  if (const auto layers = enough_layers(half, memory)) {
    RunConfig changed = half;
    changed.train.recompute_layers = *layers;
    attempt(fmt::format("train.recompute_layers = {}{}", *layers, too), changed);
  }
  const auto smaller = [&](RunConfig changed, const std::string& with) {
    while (changed.train.tokens_per_step / changed.train.accumulation > 1024) {
      changed.train.accumulation *= 2;
      if (attempt(fmt::format("train.accumulation = {}{}", changed.train.accumulation, with), changed))
        return;
    }
  };
  smaller(half, too);
  if (!found.empty()) return found;
  half.train.recompute_layers = half.model.sizes.decoder.layers;
  smaller(half, fmt::format(", train.recompute_layers = {}{}", half.train.recompute_layers, too));
  return found;
}

void print_plan(const MemoryPlan& p) {
  fmt::print("parameters        {:>14}  ({} trainable)\n", p.total_parameters, p.trainable_parameters);
  fmt::print("a micro-batch     {:>14} tokens in {} sequences\n\n", p.tokens, p.sequences);
  const auto row = [](const char* name, size_t bytes) { fmt::print("{:<18}{:>14}\n", name, gib(bytes)); };
  row("weights", p.weights);
  row("optimiser", p.optimiser);
  row("activations", p.activations);
  row("driver, libraries", p.reserved);
  row("peak", p.peak());
  fmt::print("\nlargest allocations at the peak, by name:\n");
  for (size_t i = 0; i < std::min<size_t>(p.at_peak.size(), 10); ++i)
    fmt::print("  {:<20}{:>12} in {} blocks\n", p.at_peak[i].what, gib(p.at_peak[i].bytes),
               p.at_peak[i].blocks);
}

}  // namespace

MemoryPlan plan_memory(const RunConfig& config) {
  BURROW_CHECK(config.model.sizes.decoder.vocabulary > 0,
               "model.decoder.vocabulary = 0: must be set, as `burrow plan` does not read the tokenizer");
  BURROW_CHECK(config.model.dtype != "f64", "model.dtype = 'f64': a GPU computes in f32");
  const Planned planned;
  MemoryPlan plan;
  const size_t before = bytes_now();
  nn::Llava model(config.model.sizes,
                  *nn::shapes_only(config.model.dtype == "bf16" ? DType::bf16 : DType::f32));
  if (config.model.compute == "bf16") model.compute = DType::bf16;
  moe::Attachment attachment = moe::attach(model, config.method, 0);
  model.parameters([](const nn::Parameter& p) {
    *p.var = Var(Tensor::empty(p.var->shape(), p.var->value().dtype(), Device::cuda, "weights"));
  });
  plan.total_parameters = attachment.counts.total;
  plan.trainable_parameters = attachment.counts.trainable;
  {
    nn::ParameterArena arena(attachment.trainable);
    plan.weights = bytes_now() - before - arena.values.nbytes() - arena.grads.nbytes();
    const Optimizer optimizer(arena, config.train);
    plan.optimiser = bytes_now() - before - plan.weights;
    const int64_t parts = config.train.accumulation,
                  tokens = (config.train.tokens_per_step + parts - 1) / parts;
    const Segments segments =
        sequences_of(config.model.sizes, {config.model.sizes.decoder.max_tokens}, tokens);
    plan.tokens = segments.rows();
    plan.sequences = segments.count();
    reset_memory_peak(Device::cuda);
    const size_t ready = bytes_now();
    const MicroInputs inputs = synthetic_inputs(model, segments);
    nn::Pass pass = training_pass(model, inputs, {.recompute_layers = config.train.recompute_layers});
    backward(losses_of(model, config.method, inputs, totals_of(inputs, 1), 1, pass).total);
    const MemoryReport report = memory_report(Device::cuda);
    plan.activations = report.peak - ready + largest_conversion(model);
    plan.at_peak = report.at_peak;
  }
  plan.reserved = kContext + kWorkspace;
  return plan;
}

int run_plan(const PlanCommand& command) {
  const RunConfig config = read_run_config(command.config, command.overrides, DataKeys::optional);
  const size_t memory = command.memory.empty() ? 0 : parse_memory(command.memory);
  const MemoryPlan plan = plan_memory(config);
  print_plan(plan);
  if (!command.json.empty()) {
    const nlohmann::ordered_json json = {{"total_parameters", plan.total_parameters},
                                         {"trainable_parameters", plan.trainable_parameters},
                                         {"tokens", plan.tokens},
                                         {"weights", plan.weights},
                                         {"optimiser", plan.optimiser},
                                         {"activations", plan.activations},
                                         {"reserved", plan.reserved},
                                         {"peak", plan.peak()}};
    write_file_atomically(command.json, json.dump(2) + "\n");
  }
  if (memory == 0 || plan.peak() <= memory) return 0;
  const std::vector<std::string> helps = advice(config, memory);
  fail("the step needs {}, and --memory is {}. {}", gib(plan.peak()), gib(memory),
       helps.empty()
           ? std::string("It fits neither with bf16 weights nor recomputed layers nor smaller micro-batches: "
                         "use fewer trainable parameters (method.rank, method.experts) or a larger GPU")
           : fmt::format("It fits with {}", fmt::join(helps, "; or with ")));
}

void add_plan(Command& app) {
  auto [plan, c] = app.command(
      "plan", "Predict the memory that training with a config takes on a GPU, without one", run_plan);
  plan.option("config", c.config, "TOML file; one of model sizes alone will do");
  plan.option("--set", c.overrides, "key=value, over the file (repeatable)");
  plan.option("--memory", c.memory,
              "refuse what does not fit, e.g. 80GiB, and say what would help: bf16, layers "
              "computed again, smaller micro-batches");
  plan.option("--json", c.json, "write the figures to this file");
}

}  // namespace burrow::train
