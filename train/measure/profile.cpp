#include "train/measure/profile.h"

#include <omp.h>

#include <algorithm>

#include "tensor/json.h"
#include "tensor/profile.h"
#include "train/table/statistics.h"

namespace burrow::train {

using Json = nlohmann::ordered_json;

namespace {

double seconds_of(const std::function<void()>& f) {
  const double begin = seconds_now();
  f();
  return seconds_now() - begin;
}

// Times single steps for at least `seconds` in total and kProfiledSteps steps; returns the seconds of each.
std::vector<double> time_steps(Trainer& trainer, double seconds) {
  const int64_t round = std::min(kProfiledSteps, trainer.steps());
  std::vector<double> times;
  double sum = 0;
  do {
    for (int64_t i = 0; i < round; ++i) {
      const data::StepPlan plan = trainer.plan().step(i);
      times.push_back(seconds_of([&] { trainer.step(i, plan); }));
      sum += times.back();
    }
  } while (sum < seconds);
  return times;
}

struct Figures {
  std::vector<double> times;  // seconds of each step without profiling
  double tokens = 0;          // mean tokens of a step
  double profiled = 0;        // mean seconds of a step with profiling
  StepResult first;           // result of the first step
  double peak_before = 0, peak_after = 0;
  int64_t profiled_steps = 0;
  std::vector<KernelProfile> kernels;

  double peak() const { return std::max(peak_before, peak_after); }
  double flops() const {  // mean FLOPs of a step
    double sum = 0;
    for (const KernelProfile& k : kernels) sum += k.flops;
    return sum / static_cast<double>(profiled_steps);
  }
};

void print_kernels(const Figures& f) {
  const auto steps = static_cast<double>(f.profiled_steps);
  fmt::print("{:<22}{:>9}{:>10}{:>8}{:>12}{:>10}\n", "kernel", "calls", "ms", "share", "GFLOP/s", "of peak");
  const auto row = [&](const std::string& name, double calls, double seconds, double flops) {
    fmt::print("{:<22}{:>9.1f}{:>10.3f}{:>7.1f}%", name, calls, 1e3 * seconds, 100 * seconds / f.profiled);
    if (flops > 0) fmt::print("{:>12.1f}{:>9.1f}%", 1e-9 * flops / seconds, 100 * flops / seconds / f.peak());
    fmt::print("\n");
  };
  double inside = 0;
  for (const KernelProfile& k : f.kernels) {
    row(k.name, static_cast<double>(k.calls) / steps, k.seconds / steps, k.flops / steps);
    inside += k.seconds / steps;
  }
  row("outside kernels", 0, f.profiled - inside, 0);
  row("whole step", 0, f.profiled, f.flops());
}

void print_memory(Device device) {
  const MemoryReport memory = memory_report(device);
  fmt::print("memory of tensors: {:.1f} MB at the peak, the largest:\n",
             1e-6 * static_cast<double>(memory.peak));
  for (size_t i = 0; i < std::min<size_t>(memory.at_peak.size(), 6); ++i) {
    const auto& line = memory.at_peak[i];
    fmt::print("  {:<20}{:>10.2f} MB in {} blocks\n", line.what, 1e-6 * static_cast<double>(line.bytes),
               line.blocks);
  }
}

Json to_json(const Figures& f, const moe::MethodConfig& method, Device device) {
  Json j = {{"first_loss", f.first.total()},
            {"first_gradient_norm", f.first.gradient_norm},
            {"lora_scale", method.alpha / static_cast<double>(method.rank)},
            {"balance_weight", method.balance.weight},
            {"threads", omp_get_max_threads()},
            {"steps", f.times},
            {"median_seconds", median(f.times)},
            {"tokens_per_step", f.tokens},
            {"flops_per_step", f.flops()},
            {"gemm_peak_flops", f.peak()},
            {"share_of_peak", f.flops() / median(f.times) / f.peak()},
            {"peak_memory_bytes", memory_report(device).peak}};
  for (const KernelProfile& k : f.kernels) {
    j["kernels"].push_back({{"name", k.name},
                            {"calls", static_cast<double>(k.calls) / static_cast<double>(f.profiled_steps)},
                            {"seconds", k.seconds / static_cast<double>(f.profiled_steps)},
                            {"flops", k.flops / static_cast<double>(f.profiled_steps)}});
  }
  return j;
}

}  // namespace

double measured_gemm_peak(Device device) {
  constexpr int64_t kSide = 1024, kTimes = 12;
  Tensor y = Tensor::empty({kSide, kSide}, DType::f32, device);
  const Tensor a = Tensor::full({kSide, kSide}, 0.5, DType::f32, device);
  double best = 1e30;
  for (int64_t i = 0; i < kTimes; ++i) {
    best = std::min(best, seconds_of([&] { kernel::matmul_nt(y, a, a, {}, false); }));
  }
  return 2.0 * kSide * kSide * kSide / best;
}

void write_batches(const std::string& path, Trainer& trainer, const Setup& setup) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  setup.model->parameters([&](const nn::Parameter& p) {
    if (p.role != nn::Role::teacher) tensors.emplace_back(p.name, p.var->value());
  });
  for (int64_t i = 0; i < std::min(kProfiledSteps, trainer.steps()); ++i) {
    const data::StepPlan plan = trainer.plan().step(i);
    BURROW_CHECK(plan.micro_batches.size() == 1, "[profile] writing batches needs train.accumulation = 1");
    const data::Batch batch = data::make_batch(trainer.plan(), plan.micro_batches[0],
                                               setup.config.model.sizes.vision.visual_tokens());
    const nn::Pass pass(batch.segments);
    const auto add = [&](const char* name, const Tensor& t) {
      tensors.emplace_back(fmt::format("batch.{}.{}", i, name), t);
    };
    add("ids", batch.ids);
    add("positions", pass.position);
    add("offsets", pass.ranges.q_offsets);
    add("supervised", batch.supervised);
    add("targets", batch.targets);
    if (const Var features = trainer.features_of(batch); features.defined())
      add("features", features.value());
  }
  write_safetensors(path, tensors);
}

void profile(Trainer& trainer, const Setup& setup, const ProfileOptions& options) {
  if (!options.batches.empty()) write_batches(options.batches, trainer, setup);
  Figures f;
  const Device device = setup.model->device();
  f.peak_before = measured_gemm_peak(device);
  f.first = trainer.step(0, trainer.plan().step(0));
  time_steps(trainer, 0);  // warm-up
  reset_memory_peak(device);
  f.times = time_steps(trainer, options.seconds / 2);
  start_profile();
  const std::vector<double> profiled = time_steps(trainer, options.seconds / 2);
  f.kernels = stop_profile();
  f.profiled_steps = static_cast<int64_t>(profiled.size());
  for (const double t : profiled) f.profiled += t / static_cast<double>(profiled.size());
  const int64_t round = std::min(kProfiledSteps, trainer.steps());
  for (int64_t i = 0; i < round; ++i)
    f.tokens += static_cast<double>(trainer.plan().step(i).tokens) / static_cast<double>(round);
  f.peak_after = measured_gemm_peak(device);
  print_kernels(f);
  const double step = median(f.times);
  fmt::print(
      "a step (median of {}): {:.3f} ms, {:.0f} tokens/s; {:.3f} GFLOP in matrix products and attention: "
      "{:.1f} % "
      "of the GEMM peak of {:.1f} GFLOP/s (f32, 1024 x 1024 x 1024, {} threads)\n",
      f.times.size(), 1e3 * step, f.tokens / step, 1e-9 * f.flops(), 100 * f.flops() / step / f.peak(),
      1e-9 * f.peak(), omp_get_max_threads());
  print_memory(device);
  if (!options.json.empty())
    write_file_atomically(options.json, to_json(f, setup.config.method, device).dump(2) + "\n");
}

}  // namespace burrow::train
