#pragma once
// A run is a directory:
//   config.toml          the resolved config
//   provenance.json      commit, build flags, CPU, threads, hashes of base and data, schema version
//   metrics.jsonl        losses, learning rate, gradient norm, routing; equal bytes for equal runs
//   timings.jsonl        seconds and tokens/s, which differ from run to run
//   checkpoints/         step-NNNNNNNN.safetensors, each whole or absent
//   trained.safetensors  the trained parameters, by name
//   result.json          written last: a run that has it is finished
// A lock keeps a second process out.
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "tensor/files.h"

namespace burrow::train {

inline constexpr int kSchemaVersion = 2;

// A file of JSON lines that can be cut back to a checkpoint's length.
class LineLog {
 public:
  // Opens for appending and cuts the file to `bytes`; throws when it is shorter.
  LineLog(std::filesystem::path path, int64_t bytes);
  ~LineLog();
  LineLog(const LineLog&) = delete;
  LineLog& operator=(const LineLog&) = delete;
  void write(const nlohmann::ordered_json& line);  // throws on a full disk
  void sync();
  int64_t bytes() const { return bytes_; }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  int64_t bytes_ = 0;
};

// One run's folder, locked for as long as this lives.
class RunDirectory {
 public:
  // Creates the folder and locks it. A run that has begun is an error unless `resume`, and then its config
  // must be `config` to the letter. One that failed before its first step (a path with a slip in it) holds
  // nothing to lose: its config is replaced.
  RunDirectory(std::filesystem::path path, const std::string& config, bool resume);

  const std::filesystem::path& path() const { return path_; }
  // The process that worked here before and was killed, as "process 12 on host a", or "".
  const std::string& abandoned_by() const { return lock_->abandoned_by(); }
  bool begun() const;  // whether anything was trained
  bool finished() const { return std::filesystem::exists(path_ / "result.json"); }
  // Writes `name` whole or not at all.
  void write_json(const std::string& name, const nlohmann::ordered_json& value) const;
  // checkpoints/step-NNNNNNNN.safetensors, the step in eight digits.
  std::filesystem::path checkpoint_path(int64_t step) const;
  std::vector<int64_t> checkpoint_steps() const;  // newest first

 private:
  std::filesystem::path path_;
  std::unique_ptr<FileLock> lock_;
};

// Commit, flags, compiler, CPU, threads.
nlohmann::ordered_json provenance();

}  // namespace burrow::train
