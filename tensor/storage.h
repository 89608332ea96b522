#pragma once
// Storage: a block of bytes on a device, counted under a name. memory_report() lists the names and sizes of
// the blocks that were live at the peak.
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
  // Memory with another owner (a mapped file); `release` runs when the last reference is gone.
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
  void* block_ = nullptr;  // the pointer that malloc returned, on the CPU
  size_t size_ = 0;
  Device device_ = Device::cpu;
  const char* what_ = "";
  std::function<void()> release_;
};

// The memory of a device at its peak use, by the names of allocations.
struct MemoryReport {
  // All blocks with one name.
  struct Line {
    std::string what;
    size_t bytes = 0, blocks = 0;
  };
  size_t live = 0, peak = 0;  // bytes in allocated (not external) storage
  std::vector<Line> at_peak;  // largest first
};
MemoryReport memory_report(Device device);
void reset_memory_peak(Device device);

}  // namespace burrow
