#include "tests/support/guarded_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "tensor/device.h"
#include "tensor/storage.h"
#ifdef BURROW_CUDA_EMULATED
#include "tensor/cuda/emulate/emulate.h"
#endif

namespace burrow::testing {
namespace {

constexpr size_t kGuard = 64;  // a multiple of the alignment of blocks
constexpr int kPattern = 0xa5;

struct Guarded {
  size_t bytes;
  const char* what;
};
struct State {
  std::mutex mutex;
  bool on = false;
  unsigned char fill = 0;
  size_t made = 0;
  std::map<std::byte*, Guarded> live;  // by the address of the leading guard
  std::vector<std::string> damaged;
};
State& state() {
  static State s;
  return s;
}

bool intact(const std::byte* base, size_t bytes) {
  const auto is_pattern = [](std::byte b) { return b == std::byte{kPattern}; };
  return std::all_of(base, base + kGuard, is_pattern) &&
         std::all_of(base + kGuard + bytes, base + kGuard + bytes + kGuard, is_pattern);
}

void release(std::byte* base) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  const auto block = s.live.find(base);
  if (!intact(base, block->second.bytes)) s.damaged.emplace_back(block->second.what);
  s.live.erase(block);
  std::free(base);
}

std::shared_ptr<Storage> allocate_guarded(size_t bytes, const char* what) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  const size_t rounded = (bytes + 2 * kGuard + 63) / 64 * 64;
  auto* base = static_cast<std::byte*>(std::aligned_alloc(64, rounded));
  std::memset(base, kPattern, rounded);
  std::memset(base + kGuard, s.fill, bytes);
  s.live[base] = {bytes, what};
  ++s.made;
  return Storage::external(base + kGuard, bytes, [base] { release(base); });
}

}  // namespace

GuardedMemory::GuardedMemory(unsigned char fill) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.on = true;
  s.fill = fill;
  s.made = 0;
  s.damaged.clear();
}
GuardedMemory::~GuardedMemory() { state().on = false; }

void set_thread_order([[maybe_unused]] bool rising) {
#ifdef BURROW_CUDA_EMULATED
  cuda::emulate::set_order(rising ? cuda::emulate::Order::rising : cuda::emulate::Order::falling);
#endif
}

size_t GuardedMemory::blocks() const { return state().made; }

std::vector<std::string> GuardedMemory::damaged() const {
  State& s = state();
  std::lock_guard lock(s.mutex);
  std::vector<std::string> names = s.damaged;
  for (const auto& [base, block] : s.live) {
    if (!intact(base, block.bytes)) names.emplace_back(block.what);
  }
  return names;
}

}  // namespace burrow::testing

// Symbol names of the linker's --wrap for burrow::Storage::allocate(size_t, Device, const char*).
std::shared_ptr<burrow::Storage> real_allocate(size_t, burrow::Device, const char*) asm(
    "__real__ZN6burrow7Storage8allocateEmNS_6DeviceEPKc");
std::shared_ptr<burrow::Storage> wrapped_allocate(size_t, burrow::Device, const char*) asm(
    "__wrap__ZN6burrow7Storage8allocateEmNS_6DeviceEPKc");

std::shared_ptr<burrow::Storage> wrapped_allocate(size_t bytes, burrow::Device device, const char* what) {
  if (burrow::testing::state().on && device == burrow::Device::cpu) {
    return burrow::testing::allocate_guarded(bytes, what);
  }
  auto storage = real_allocate(bytes, device, what);
  if (burrow::testing::state().on && bytes > 0)
    burrow::cuda::fill(storage->bytes(), burrow::testing::state().fill, bytes);
  return storage;
}
