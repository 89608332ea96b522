#pragma once
// Dividing work among OpenMP threads, and scratch memory that a thread keeps between calls.
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace burrow::cpu {

// Starting the team costs some ten microseconds; below this many elementary operations one thread is faster.
constexpr int64_t kParallelWork = 30'000;

// One compiled body for both calls below: inlined twice, the compiler could contract a*b+c in only one of
// them, and the bits would depend on the number of threads.
template <class F>
[[gnu::noinline, gnu::noclone]] void run_rows(const F& f, int64_t begin, int64_t end) {
  f(begin, end);
}

// Calls f(begin, end) on ranges that tile [0, n), one per thread, or f(0, n) if `work`, the total number of
// elementary operations, is too small for a team. f must not throw.
template <class F>
void parallel_rows(int64_t n, int64_t work, F&& f) {
  const int64_t threads = std::min<int64_t>(n, omp_get_max_threads());
  if (work < kParallelWork || threads < 2 || omp_in_parallel()) {
    if (n > 0) run_rows(f, 0, n);
    return;
  }
#pragma omp parallel num_threads(static_cast <int>(threads))
  {
    const int64_t count = omp_get_num_threads(), t = omp_get_thread_num();
    run_rows(f, n * t / count, n * (t + 1) / count);
  }
}

// At least n uninitialised elements, reused by this thread's next call with the same T and Tag, so that every
// function needs its own Tag.
template <class T, class Tag>
T* scratch(int64_t n) {
  thread_local std::vector<T> buffer;
  if (static_cast<int64_t>(buffer.size()) < n) buffer.resize(static_cast<size_t>(n));
  return buffer.data();
}

}  // namespace burrow::cpu
