#pragma once
// What a function writes to stderr, on a terminal or in a pipe.
#include <doctest/doctest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

namespace burrow::testing {

// Runs `f` in a process whose stderr is a terminal or a pipe, and returns what it wrote there.
template <class F>
std::string stderr_of(bool terminal, F&& f) {
  int ends[2] = {-1, -1};  // read end, write end
  REQUIRE((terminal ? ::openpty(&ends[0], &ends[1], nullptr, nullptr, nullptr) : ::pipe(ends)) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], 2);
    f();
    std::fflush(stderr);
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char block[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], block, sizeof(block))) > 0;)
    text.append(block, static_cast<size_t>(got));
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  return text;
}

}  // namespace burrow::testing
