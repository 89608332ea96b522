// Runs the threads of a block on fibers. A fiber runs one thread after another; only a thread that waits at a
// barrier keeps its fiber, so a kernel without barriers never switches stacks.
#include <csetjmp>
#include <memory>
#include <vector>

#include <ucontext.h>

#include "tensor/check.h"
#include "tensor/cuda/emulate/emulate.h"

EmulatedDim threadIdx, blockIdx, blockDim, gridDim;

namespace burrow::cuda::emulate {
namespace {

constexpr size_t kStack = 128 << 10;
constexpr unsigned kWarp = 32, kMostThreads = 1024;

enum class Wait { nothing, block, warp };

struct Fiber {
  std::unique_ptr<char[]> stack;
  ucontext_t start{};
  jmp_buf at{};
  bool begun = false, busy = false;
  unsigned thread = 0;
  Wait wait = Wait::nothing;
};

struct Warp {
  unsigned alive = 0, waiting = 0;
  // Two alternating sets of slots: a lane may write its next value while another still reads the last one.
  unsigned char slots[2][kWarp][kMostBytes];
};

struct Copy {
  void* to;
  const void* from;
  size_t bytes, whole;
};

struct Scheduler {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Warp> warps = std::vector<Warp>(kMostThreads / kWarp);
  std::vector<unsigned char> turn = std::vector<unsigned char>(kMostThreads);
  std::vector<std::vector<Copy>> copies = std::vector<std::vector<Copy>>(kMostThreads);  // pending
  ucontext_t main{};
  jmp_buf at{};
  Fiber* running = nullptr;
  const std::function<void()>* body = nullptr;
  unsigned threads = 0, begun = 0, alive = 0, waiting = 0;
  size_t running_copies = 0;
  Order order = Order::rising;
};
Scheduler& scheduler() {
  static Scheduler s;
  return s;
}

void to_scheduler() {
  Scheduler& s = scheduler();
  if (_setjmp(s.running->at) == 0) _longjmp(s.at, 1);
}

void finish_thread() {
  Scheduler& s = scheduler();
  --s.alive;
  --s.warps[s.running->thread / kWarp].alive;
}

void fiber_main() {
  Scheduler& s = scheduler();
  for (;;) {
    while (s.begun < s.threads) {
      const unsigned t = s.begun++;
      s.running->thread = s.order == Order::rising ? t : s.threads - 1 - t;
      threadIdx = {s.running->thread, 0, 0};
      (*s.body)();
      finish_thread();
    }
    s.running->busy = false;
    to_scheduler();
  }
}

void resume(Fiber& f) {
  Scheduler& s = scheduler();
  s.running = &f;
  f.busy = true;
  f.wait = Wait::nothing;
  threadIdx = {f.thread, 0, 0};
  if (_setjmp(s.at) != 0) return;
  if (f.begun) _longjmp(f.at, 1);
  f.begun = true;
  f.stack = std::make_unique<char[]>(kStack);
  getcontext(&f.start);
  f.start.uc_stack.ss_sp = f.stack.get();
  f.start.uc_stack.ss_size = kStack;
  f.start.uc_link = nullptr;
  makecontext(&f.start, fiber_main, 0);
  setcontext(&f.start);
}

Fiber& idle_fiber() {
  Scheduler& s = scheduler();
  for (auto& f : s.fibers) {
    if (!f->busy) return *f;
  }
  s.fibers.push_back(std::make_unique<Fiber>());
  return *s.fibers.back();
}

// Whether all threads have reached the barrier at which f waits.
bool open(const Fiber& f) {
  const Scheduler& s = scheduler();
  const Warp& w = s.warps[f.thread / kWarp];
  return f.wait == Wait::block ? s.waiting == s.alive : w.waiting == w.alive;
}

// If f's barrier is complete, resumes all fibers that wait at it, in order, and returns true.
bool pass_barrier(Fiber& f) {
  Scheduler& s = scheduler();
  if (!open(f)) return false;
  const Wait kind = f.wait;
  const unsigned warp = f.thread / kWarp;
  std::vector<Fiber*> through;
  for (auto& other : s.fibers) {
    if (other->busy && other->wait == kind && (kind == Wait::block || other->thread / kWarp == warp))
      through.push_back(other.get());
  }
  (kind == Wait::block ? s.waiting : s.warps[warp].waiting) = 0;
  for (Fiber* other : through) other->wait = Wait::nothing;
  for (Fiber* other : through) resume(*other);
  return true;
}

void run_block() {
  Scheduler& s = scheduler();
  s.begun = 0;
  s.alive = s.threads;
  s.waiting = 0;
  for (unsigned w = 0; w * kWarp < s.threads; ++w)
    s.warps[w].alive = std::min(kWarp, s.threads - w * kWarp), s.warps[w].waiting = 0;
  while (s.begun < s.threads) resume(idle_fiber());
  while (s.alive > 0) {
    bool moved = false;
    for (size_t i = 0; i < s.fibers.size() && s.alive > 0; ++i) {
      Fiber& f = *s.fibers[i];
      if (f.busy && f.wait != Wait::nothing) moved = pass_barrier(f) || moved;
    }
    BURROW_CHECK(moved || s.alive == 0, "[emulate] threads of a block wait at different barriers");
  }
  BURROW_CHECK(s.running_copies == 0,
               "[emulate] a block ended without waiting for its copies to shared memory");
}

void warp_barrier() {
  Scheduler& s = scheduler();
  s.running->wait = Wait::warp;
  ++s.warps[s.running->thread / kWarp].waiting;
  to_scheduler();
}

}  // namespace

void set_order(Order order) { scheduler().order = order; }

void run(EmulatedDim blocks, unsigned threads, const std::function<void()>& body) {
  Scheduler& s = scheduler();
  BURROW_CHECK(threads <= kMostThreads && threads % kWarp == 0, "[emulate] a block of {} threads", threads);
  s.threads = threads;
  s.body = &body;
  gridDim = blocks;
  blockDim = {threads, 1, 1};
  const unsigned count = blocks.x * blocks.y * blocks.z;
  for (unsigned i = 0; i < count; ++i) {
    const unsigned b = s.order == Order::rising ? i : count - 1 - i;
    blockIdx = {b % blocks.x, b / blocks.x % blocks.y, b / (blocks.x * blocks.y)};
    run_block();
  }
}

void block_barrier() {
  Scheduler& s = scheduler();
  s.running->wait = Wait::block;
  ++s.waiting;
  to_scheduler();
}

const unsigned char* exchange(const void* value, size_t bytes) {
  Scheduler& s = scheduler();
  const unsigned thread = s.running->thread, turn = s.turn[thread];
  Warp& w = s.warps[thread / kWarp];
  std::memcpy(w.slots[turn][thread % kWarp], value, bytes);
  s.turn[thread] = turn == 0;
  warp_barrier();
  return w.slots[turn][0];
}

unsigned ballot(bool vote) {
  const Lanes<bool> votes = of_lanes(vote);
  unsigned bits = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane) bits |= unsigned{votes[lane]} << lane;
  return bits;
}

void copy_later(void* to, const void* from, size_t bytes, size_t whole) {
  Scheduler& s = scheduler();
  s.copies[s.running->thread].push_back({to, from, bytes, whole});
  ++s.running_copies;
}

void finish_copies() {
  Scheduler& s = scheduler();
  std::vector<Copy>& copies = s.copies[s.running->thread];
  s.running_copies -= copies.size();
  for (const Copy& c : copies) {
    std::memset(c.to, 0, c.whole);
    std::memcpy(c.to, c.from, c.bytes);
  }
  copies.clear();
}

}  // namespace burrow::cuda::emulate
