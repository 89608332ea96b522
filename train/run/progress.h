#pragma once
// A progress line, rewritten in place on a terminal, printed occasionally as a new line otherwise.
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
  // Shows `done` of the total and `more`; at most 5 times per second on a terminal, every 20 s otherwise.
  void update(int64_t done, const std::string& more);

 private:
  std::string what_;
  int64_t total_;
  bool terminal_, open_ = false;
  std::chrono::steady_clock::time_point begin_, shown_;
};

}  // namespace burrow::train
