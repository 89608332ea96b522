#pragma once
// A checkpoint is one safetensors file, so it is whole or absent: the trained values, both moments, and in
// its metadata the step, the length of metrics.jsonl, and a checksum of everything.
#include <optional>

#include "train/run/optimizer.h"
#include "train/run/run_directory.h"

namespace burrow::train {

struct Progress {
  int64_t step = 0;           // steps done
  int64_t metrics_bytes = 0;  // length of metrics.jsonl then
};

// Writes the checkpoint of progress.step; of the older ones only the newest are kept, `keep` in all.
void save_checkpoint(const RunDirectory& run, const nn::ParameterArena& arena, const Optimizer& optimizer,
                     const Progress& progress, int64_t keep);
// Restores the newest sound checkpoint; one that is damaged is passed over and named to `say`. Nothing when
// there is none.
std::optional<Progress> load_checkpoint(const RunDirectory& run, nn::ParameterArena& arena,
                                        Optimizer& optimizer,
                                        const std::function<void(const std::string&)>& say);

// The trained parameters by name: what `eval` and `ask` read, and for the `full` row a base for others.
void save_trained(const std::string& path, const nn::ParameterArena& arena, const std::string& method);
// Puts a file's values into the trainable parameters: every one must be there, with its shape, and the
// checksum must match.
void load_trained(const std::string& path, const std::vector<nn::Parameter>& trainable);

}  // namespace burrow::train
