#pragma once
// Child processes, several at once, in which a table runs its cells.
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace burrow::train {

struct Job {
  std::string name;
  std::vector<std::string> command;  // program and arguments, without a shell
  std::filesystem::path log;         // stdout and stderr are appended
};
// A job that is running.
struct RunningJob {
  size_t job = 0;
  int pid = 0;
  std::chrono::steady_clock::time_point begin;
  double seconds() const;  // since it began
};
struct JobEvents {
  // Called for a job that ended. code: its exit status, or 128 + the signal that ended it.
  std::function<void(size_t job, int code, double seconds)> ended = {};
  std::function<void(std::span<const RunningJob>)> tick = {};  // about once a second
};

// Starts the jobs in order, `at_once` at a time, each with OMP_NUM_THREADS = threads, and waits for all.
// On SIGINT, SIGTERM or SIGHUP (unless ignored) it ends the children and returns false. When a child cannot
// be started it ends the others and throws. Children are killed when the calling thread dies.
bool run_jobs(const std::vector<Job>& jobs, int64_t at_once, int64_t threads, const JobEvents& events);

// The end of a log, for the report of a failure.
std::string last_lines(const std::filesystem::path& log, size_t lines);

}  // namespace burrow::train
