#pragma once
// A checkpoint is one safetensors file, written atomically: the trained parameters, both moments, and as
// metadata the step, the length of metrics.jsonl and a checksum.
#include <optional>

#include "train/run/optimizer.h"
#include "train/run/run_directory.h"

namespace burrow::train {

struct Progress {
  int64_t step = 0;           // steps done
  int64_t metrics_bytes = 0;  // length of metrics.jsonl after these steps
};

// Writes the checkpoint of progress.step and removes all but the `keep` newest checkpoints.
void save_checkpoint(const RunDirectory& run, const nn::ParameterArena& arena, const Optimizer& optimizer,
                     const Progress& progress, int64_t keep);
// Restores the newest intact checkpoint (nullopt: none); damaged ones are skipped and reported to `say`.
std::optional<Progress> load_checkpoint(const RunDirectory& run, nn::ParameterArena& arena,
                                        Optimizer& optimizer,
                                        const std::function<void(const std::string&)>& say);

// Writes the trained parameters by name, for `eval`, `ask`, and with method `full` model.weights of other
// runs.
void save_trained(const std::string& path, const nn::ParameterArena& arena, const std::string& method);
// Reads the trainable parameters from such a file. Throws if one is missing or has another shape, or the
// checksum does not match.
void load_trained(const std::string& path, const std::vector<nn::Parameter>& trainable);

}  // namespace burrow::train
