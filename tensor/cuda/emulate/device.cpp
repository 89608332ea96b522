// device.h for the GPU that the CPU emulates in tests, present if BURROW_EMULATE_CUDA=1. Nothing runs in
// parallel. Each allocation is filled with NaN and ends at a guard page, so that an access beyond its end
// stops the program.
#include "tensor/device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string_view>

#include "tensor/check.h"

namespace burrow::cuda {
namespace {

bool asked_for() {
  const char* set = std::getenv("BURROW_EMULATE_CUDA");
  return set && std::string_view(set) == "1";
}

constexpr size_t kAlign = 16;         // bytes, the widest access of a kernel
constexpr size_t kGuarded = 1 << 22;  // larger blocks come from malloc, because mapping is slow

struct Mapping {
  void* begin;
  size_t bytes;
};
std::map<void*, Mapping>& mappings() {
  static auto* all = new std::map<void*, Mapping>;  // outlives the static tensors
  return *all;
}

}  // namespace

bool built() { return true; }
int device_count() { return asked_for() ? 1 : 0; }

DeviceInfo device_info() {
  if (!asked_for())
    return {.absent = "the device of this build is emulated for tests: set BURROW_EMULATE_CUDA=1"};
  return {.name = "emulated on the CPU", .memory = size_t{1} << 36, .free = size_t{1} << 36};
}

void* allocate(size_t bytes) {
  BURROW_CHECK(asked_for(), "[cuda] no device: {}", device_info().absent);
  const size_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
  if (bytes > kGuarded) {
    void* block = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    BURROW_CHECK(block, "[memory] out of memory: {} bytes", bytes);
    std::memset(block, 0xff, bytes);
    return block;
  }
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t whole = (rounded + page - 1) / page * page;
  void* begin = mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  BURROW_CHECK(begin != MAP_FAILED, "[memory] no mapping of {} bytes", whole + page);
  BURROW_CHECK(mprotect(static_cast<char*>(begin) + whole, page, PROT_NONE) == 0, "[memory] no guard page");
  void* block = static_cast<char*>(begin) + (whole - rounded);
  std::memset(block, 0xff, rounded);
  mappings()[block] = {begin, whole + page};
  return block;
}

void release(void* block) {
  const auto found = mappings().find(block);
  if (found == mappings().end()) return std::free(block);
  munmap(found->second.begin, found->second.bytes);
  mappings().erase(found);
}

void copy_to_device(void* device, const void* host, size_t bytes) { std::memcpy(device, host, bytes); }
void copy_to_host(void* host, const void* device, size_t bytes) { std::memcpy(host, device, bytes); }
void copy_on_device(void* to, const void* from, size_t bytes) { std::memmove(to, from, bytes); }
void fill(void* device, int byte, size_t bytes) { std::memset(device, byte, bytes); }
void synchronise() {}

}  // namespace burrow::cuda
