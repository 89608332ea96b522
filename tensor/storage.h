#pragma once
// Storage: a block of bytes on a device, counted and named. The names answer "what filled the memory":
// memory_at_peak() lists the blocks that were alive at the high-water mark.
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace burrow {

class Storage {
 public:
  // Uninitialised; counted under the name `what`, a string literal, in the memory report.
  static std::shared_ptr<Storage> allocate(size_t bytes, Device device, const char* what);
  // Memory that somebody else owns (a mapped file); `release` runs when the last user is gone.
  static std::shared_ptr<Storage> external(std::byte* bytes, size_t size, std::function<void()> release);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  std::byte* bytes() const { return bytes_; }
  size_t size() const { return size_; }
  Device device() const { return device_; }

 private:
  Storage() = default;
  std::byte* bytes_ = nullptr;
  void* block_ = nullptr;  // what malloc gave, on the CPU
  size_t size_ = 0;
  Device device_ = Device::cpu;
  const char* what_ = "";
  std::function<void()> release_;
};

// What a device's memory held when most was in use, by the names of the allocations.
struct MemoryReport {
  // All blocks of one name.
  struct Line {
    std::string what;
    size_t bytes = 0, blocks = 0;
  };
  size_t live = 0, peak = 0;  // bytes in allocated (not external) storage
  std::vector<Line> at_peak;  // by name, largest first
};
MemoryReport memory_report(Device device);
void reset_memory_peak(Device device);

}  // namespace burrow
