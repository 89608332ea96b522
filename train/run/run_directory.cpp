#include "train/run/run_directory.h"

#include <fcntl.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "build_info.h"
#include "tensor/json.h"

namespace burrow::train {
namespace {

// Seconds to wait for the lock: a killed process with gigabytes of memory takes some to exit.
constexpr double kLockPatience = 2;

}  // namespace

LineLog::LineLog(std::filesystem::path path, int64_t bytes) : path_(std::move(path)), bytes_(bytes) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  BURROW_CHECK(fd_ >= 0, "{}: {}", path_.string(), std::strerror(errno));
  const off_t size = ::lseek(fd_, 0, SEEK_END);
  BURROW_CHECK(size >= bytes, "{}: {} bytes, but the checkpoint was made at {}", path_.string(), size, bytes);
  BURROW_CHECK(::ftruncate(fd_, bytes) == 0 && ::lseek(fd_, bytes, SEEK_SET) == bytes, "{}: {}",
               path_.string(), std::strerror(errno));
}
LineLog::~LineLog() { ::close(fd_); }

void LineLog::write(const nlohmann::ordered_json& line) {
  const std::string text = line.dump() + "\n";
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int error = errno;
      if (::ftruncate(fd_, bytes_) != 0) std::perror(path_.c_str());  // removes the partial line
      fail("{}: {}", path_.string(), std::strerror(error));
    }
    done += static_cast<size_t>(n);
  }
  bytes_ += static_cast<int64_t>(text.size());
}
void LineLog::sync() { BURROW_CHECK(::fsync(fd_) == 0, "{}: {}", path_.string(), std::strerror(errno)); }

RunDirectory::RunDirectory(std::filesystem::path path, const std::string& config, bool resume)
    : path_(std::move(path)) {
  std::filesystem::create_directories(path_ / "checkpoints");
  lock_ = std::make_unique<FileLock>((path_ / "lock").string(), kLockPatience);
  for (const auto& folder : {path_, path_ / "checkpoints"}) remove_abandoned_temporaries(folder.string(), 0);
  const auto file = path_ / "config.toml";
  if (!std::filesystem::exists(file) || !begun()) {
    write_file_atomically(file.string(), config);
    return;
  }
  BURROW_CHECK(resume, "{}: holds a run already; continue it with --resume, or choose another --out",
               path_.string());
  BURROW_CHECK(read_file(file.string()) == config,
               "{}: the run was started with another config; choose another --out", file.string());
}

bool RunDirectory::begun() const {
  return std::filesystem::exists(path_ / "metrics.jsonl") || !checkpoint_steps().empty() || finished();
}

void RunDirectory::write_json(const std::string& name, const nlohmann::ordered_json& value) const {
  write_file_atomically((path_ / name).string(), value.dump(2) + "\n");
}

std::filesystem::path RunDirectory::checkpoint_path(int64_t step) const {
  return path_ / "checkpoints" / fmt::format("step-{:08}.safetensors", step);
}

std::vector<int64_t> RunDirectory::checkpoint_steps() const {
  std::vector<int64_t> steps;
  for (const auto& entry : std::filesystem::directory_iterator(path_ / "checkpoints")) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    int length = 0;
    if (std::sscanf(name.c_str(), "step-%ld.safetensors%n", &step, &length) == 1 &&
        length == static_cast<int>(name.size())) {
      steps.push_back(step);
    }
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

nlohmann::ordered_json provenance() {
  std::string cpu = "unknown";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) {
      cpu = line.substr(line.find(':') + 2);
      break;
    }
  }
  return {{"schema", kSchemaVersion},        {"commit", kBuildCommit},  {"flags", kBuildFlags},
          {"matmul", kBuildMatmul},          {"compiler", __VERSION__}, {"cpu", cpu},
          {"threads", omp_get_max_threads()}};
}

}  // namespace burrow::train
