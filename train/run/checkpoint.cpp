#include "train/run/checkpoint.h"

#include <charconv>

namespace burrow::train {
namespace {

using Named = std::vector<std::pair<std::string, Tensor>>;

Named state_of(const nn::ParameterArena& arena, const Optimizer& optimizer) {
  Named state;
  for (const auto& slot : arena.slots()) {
    const auto part = [&](const Tensor& flat) {
      return flat.slice_rows(slot.begin, slot.end).reshape(slot.shape);
    };
    state.emplace_back(slot.name, part(arena.values));
    state.emplace_back("adam_m/" + slot.name, part(optimizer.m));
    state.emplace_back("adam_v/" + slot.name, part(optimizer.v));
  }
  return state;
}

uint64_t hash_tensors(const Named& tensors, uint64_t h) {
  for (const auto& [name, tensor] : tensors) {
    h = hash_bytes(bytes_of(name), h);
    const Tensor host = tensor.to(Device::cpu);
    h = hash_bytes({host.bytes(), host.nbytes()}, h);
  }
  return h;
}

uint64_t checksum(const Named& state, const Progress& p) {
  const uint64_t h = hash_bytes(bytes_of(fmt::format("{} {}", p.step, p.metrics_bytes)));
  return hash_tensors(state, h);
}

int64_t number(const std::map<std::string, std::string>& metadata, const char* key, const std::string& path) {
  const auto found = metadata.find(key);
  BURROW_CHECK(found != metadata.end(), "{}: metadata has no '{}'", path, key);
  int64_t value = 0;
  const char *begin = found->second.data(), *end = begin + found->second.size();
  const auto [stop, error] = std::from_chars(begin, end, value);
  BURROW_CHECK(error == std::errc{} && stop == end, "{}: '{}' is '{}', not a number: the file is damaged",
               path, key, found->second);
  return value;
}

Progress restore(const std::string& path, nn::ParameterArena& arena, Optimizer& optimizer) {
  const SafetensorsFile file = read_safetensors(path);
  const Progress progress{number(file.metadata, "step", path), number(file.metadata, "metrics_bytes", path)};
  Named read;
  const Named mine = state_of(arena, optimizer);
  for (const auto& [name, tensor] : mine) {
    const auto found = file.tensors.find(name);
    BURROW_CHECK(found != file.tensors.end() && found->second.shape() == tensor.shape(),
                 "{}: no tensor '{}' of shape {}", path, name, tensor.shape());
    read.emplace_back(name, found->second);
  }
  const auto sum = file.metadata.find("checksum");
  BURROW_CHECK(sum != file.metadata.end() && sum->second == hash_hex(checksum(read, progress)),
               "{}: the checksum does not match: the file is damaged", path);
  for (size_t i = 0; i < mine.size(); ++i) {
    Tensor to = mine[i].second;
    to.copy_from(read[i].second);
  }
  optimizer.steps = progress.step;
  return progress;
}

}  // namespace

void save_checkpoint(const RunDirectory& run, const nn::ParameterArena& arena, const Optimizer& optimizer,
                     const Progress& progress, int64_t keep) {
  const Named state = state_of(arena, optimizer);
  write_safetensors(run.checkpoint_path(progress.step).string(), state,
                    {{"step", std::to_string(progress.step)},
                     {"metrics_bytes", std::to_string(progress.metrics_bytes)},
                     {"checksum", hash_hex(checksum(state, progress))}});
  // A checkpoint of a later step was damaged when the run was continued; it must not count as one of `keep`.
  int64_t kept = 0;
  for (const int64_t step : run.checkpoint_steps()) {
    if (step > progress.step || kept == keep)
      std::filesystem::remove(run.checkpoint_path(step));
    else
      ++kept;
  }
}

std::optional<Progress> load_checkpoint(const RunDirectory& run, nn::ParameterArena& arena,
                                        Optimizer& optimizer,
                                        const std::function<void(const std::string&)>& say) {
  const std::vector<int64_t> steps = run.checkpoint_steps();
  for (const int64_t step : steps) {
    try {
      return restore(run.checkpoint_path(step).string(), arena, optimizer);
    } catch (const Error& e) {
      say(fmt::format("{}; {}", e.what(),
                      step == steps.back() ? "there is no earlier checkpoint: the run starts from step 0"
                                           : "trying the checkpoint before it"));
    }
  }
  return std::nullopt;
}

void save_trained(const std::string& path, const nn::ParameterArena& arena, const std::string& method) {
  Named tensors;
  for (const auto& slot : arena.slots()) tensors.emplace_back(slot.name, arena.value(slot));
  write_safetensors(path, tensors, {{"method", method}, {"checksum", hash_hex(hash_tensors(tensors, 0))}});
}

void load_trained(const std::string& path, const std::vector<nn::Parameter>& trainable) {
  const SafetensorsFile file = read_safetensors(path);
  Named read;
  for (const nn::Parameter& p : trainable) {
    const auto found = file.tensors.find(p.name);
    BURROW_CHECK(found != file.tensors.end() && found->second.shape() == p.var->shape(),
                 "{}: no tensor '{}' of shape {}", path, p.name, p.var->shape());
    read.emplace_back(p.name, found->second);
  }
  BURROW_CHECK(file.tensors.size() == trainable.size(), "{}: {} tensors, but the method trains {}", path,
               file.tensors.size(), trainable.size());
  // Files of older versions have no checksum.
  const auto sum = file.metadata.find("checksum");
  BURROW_CHECK(
      sum == file.metadata.end() ? file.metadata.size() <= 1 : sum->second == hash_hex(hash_tensors(read, 0)),
      "{}: the checksum does not match: the file is damaged", path);
  for (size_t i = 0; i < read.size(); ++i)
    *trainable[i].var = Var(read[i].second.to(trainable[i].var->value().dtype()));
}

}  // namespace burrow::train
