#include "train/run/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace burrow::train {

using Clock = std::chrono::steady_clock;

ProgressLine::ProgressLine(std::string what, int64_t total)
    : what_(std::move(what)),
      total_(total),
      terminal_(isatty(2) == 1),
      begin_(Clock::now()),
      shown_(begin_) {}

ProgressLine::~ProgressLine() {
  if (open_) std::fputc('\n', stderr);
}

void ProgressLine::update(int64_t done, const std::string& more) {
  const auto now = Clock::now();
  const double since = std::chrono::duration<double>(now - shown_).count();
  if (done < total_ && since < (terminal_ ? 0.2 : 20.0)) return;
  if (done == total_ && !terminal_ && std::chrono::duration<double>(now - begin_).count() < 20.0) return;
  shown_ = now;
  const double spent = std::chrono::duration<double>(now - begin_).count();
  const double left = done ? spent / static_cast<double>(done) * static_cast<double>(total_ - done) : 0;
  // fmt::print would throw if stderr is closed.
  std::fputs(fmt::format("{}{} {}/{}  {}  {:.0f} s left{}", terminal_ ? "\r" : "", what_, done, total_, more,
                         left, terminal_ ? "   " : "\n")
                 .c_str(),
             stderr);
  std::fflush(stderr);
  open_ = terminal_;
}

}  // namespace burrow::train
