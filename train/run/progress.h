#pragma once
// One line that is rewritten on a terminal; plain lines, a few in all, in a pipe.
#include <chrono>
#include <cstdint>
#include <string>

namespace burrow::train {

class ProgressLine {
 public:
  ProgressLine(std::string what, int64_t total);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  // Shows `done` of the total and `more`: at most five times a second, in a pipe every 20 seconds.
  void update(int64_t done, const std::string& more);

 private:
  std::string what_;
  int64_t total_;
  bool terminal_, open_ = false;
  std::chrono::steady_clock::time_point begin_, shown_;
};

}  // namespace burrow::train
