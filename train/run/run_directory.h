#pragma once
// The directory of a run, locked against other processes:
//   config.toml          the resolved config
//   provenance.json      commit, build flags, CPU, threads, hashes of base and data, schema version
//   metrics.jsonl        losses, learning rate, gradient norm, routing; identical bytes for identical runs
//   timings.jsonl        seconds and tokens/s, which differ from run to run
//   checkpoints/         step-NNNNNNNN.safetensors, written atomically
//   trained.safetensors  the trained parameters, by name
//   result.json          written last: its presence marks a finished run
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "tensor/files.h"

namespace burrow::train {

inline constexpr int kSchemaVersion = 2;

// A file of JSON lines that can be truncated to its length at a checkpoint.
class LineLog {
 public:
  // Opens the file for appending and truncates it to `bytes`; throws if it is shorter.
  LineLog(std::filesystem::path path, int64_t bytes);
  ~LineLog();
  LineLog(const LineLog&) = delete;
  LineLog& operator=(const LineLog&) = delete;
  void write(const nlohmann::ordered_json& line);  // throws if the disk is full
  void sync();
  int64_t bytes() const { return bytes_; }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  int64_t bytes_ = 0;
};

// One run's directory, locked for the lifetime of the object.
class RunDirectory {
 public:
  // Creates and locks the directory. Throws if it has a run that has begun, unless `resume` is set and the
  // run's config equals `config` exactly. The config of a run that failed before its first step is replaced.
  RunDirectory(std::filesystem::path path, const std::string& config, bool resume);

  const std::filesystem::path& path() const { return path_; }
  // The earlier process that was killed while it held the lock, such as "process 12 on host a"; else "".
  const std::string& abandoned_by() const { return lock_->abandoned_by(); }
  bool begun() const;  // whether metrics, a checkpoint or a result exist
  bool finished() const { return std::filesystem::exists(path_ / "result.json"); }
  // Writes the file `name` atomically.
  void write_json(const std::string& name, const nlohmann::ordered_json& value) const;
  // The path checkpoints/step-NNNNNNNN.safetensors, with the step in eight digits.
  std::filesystem::path checkpoint_path(int64_t step) const;
  std::vector<int64_t> checkpoint_steps() const;  // newest first

 private:
  std::filesystem::path path_;
  std::unique_ptr<FileLock> lock_;
};

// Contents of provenance.json: commit, flags, compiler, CPU, threads.
nlohmann::ordered_json provenance();

}  // namespace burrow::train
