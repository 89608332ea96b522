#include "tensor/storage.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>

#include "tensor/device.h"

namespace burrow {
namespace {

struct Ledger {
  std::mutex mutex;
  std::map<std::string, MemoryReport::Line, std::less<>> by_name;  // of live blocks
  std::map<std::string, MemoryReport::Line, std::less<>> peak_by_name;
  size_t live = 0, peak = 0;
  // A new peak is copied at the first release after it, because most allocations in a row set a new peak.
  bool climbing = false;

  void add(const char* what, size_t bytes) {
    std::lock_guard lock(mutex);
    auto& line = by_name.try_emplace(what).first->second;
    line.bytes += bytes;
    line.blocks += 1;
    live += bytes;
    if (live > peak) {
      peak = live;
      climbing = true;
    }
  }
  void remove(const char* what, size_t bytes) {
    std::lock_guard lock(mutex);
    settle();
    auto& line = by_name.find(what)->second;
    line.bytes -= bytes;
    line.blocks -= 1;
    live -= bytes;
  }
  void settle() {
    if (climbing) peak_by_name = by_name;
    climbing = false;
  }
};

constexpr size_t kLine = 64;  // bytes of a cache line, and of an AVX-512 register
// By default glibc returns blocks above 128 KB to the kernel on free, and every step would page-fault on them
// again. With these options malloc keeps freed memory, as a caching allocator does.
const bool keep_freed_memory = [] {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, -1);
  return true;
}();

Ledger& ledger(Device device) {
  static Ledger ledgers[2];
  return ledgers[static_cast<int>(device)];
}

}  // namespace

std::shared_ptr<Storage> Storage::allocate(size_t bytes, Device device, const char* what) {
  std::shared_ptr<Storage> s(new Storage);
  s->size_ = bytes;
  s->device_ = device;
  s->what_ = what;
  if (device == Device::cpu) {
    // Aligned by hand to a cache line: aligned_alloc splits and merges blocks, 5 % of a small model's step.
    void* block = std::malloc(bytes + kLine);
    s->block_ = block;
    s->bytes_ = static_cast<std::byte*>(block) + (kLine - reinterpret_cast<uintptr_t>(block) % kLine);
    BURROW_CHECK(block && keep_freed_memory, "[memory] out of memory: {} bytes for '{}'", bytes, what);
  } else if (cuda::options().planned) {
    static std::byte nowhere;
    s->block_ = s->bytes_ = &nowhere;
  } else {
    s->bytes_ = static_cast<std::byte*>(cuda::allocate(std::max<size_t>(bytes, 1)));
  }
  ledger(device).add(what, bytes);
  return s;
}

std::shared_ptr<Storage> Storage::external(std::byte* bytes, size_t size, std::function<void()> release) {
  std::shared_ptr<Storage> s(new Storage);
  s->bytes_ = bytes;
  s->size_ = size;
  s->release_ = std::move(release);
  return s;
}

Storage::~Storage() {
  if (release_) {
    release_();
    return;
  }
  if (!bytes_) return;
  ledger(device_).remove(what_, size_);
  if (device_ == Device::cpu) {
    std::free(block_);
  } else if (!block_) {
    cuda::release(bytes_);
  }
}

MemoryReport memory_report(Device device) {
  Ledger& l = ledger(device);
  std::lock_guard lock(l.mutex);
  l.settle();
  MemoryReport report{l.live, l.peak, {}};
  for (const auto& [name, line] : l.peak_by_name) {
    if (line.bytes) report.at_peak.push_back({name, line.bytes, line.blocks});
  }
  std::sort(report.at_peak.begin(), report.at_peak.end(),
            [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return report;
}

void reset_memory_peak(Device device) {
  Ledger& l = ledger(device);
  std::lock_guard lock(l.mutex);
  l.peak = l.live;
  l.peak_by_name = l.by_name;
  l.climbing = false;
}

}  // namespace burrow
