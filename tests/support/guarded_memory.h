#pragma once
// Guard bytes around all allocations, without changes to the library: the linker redirects calls of
// Storage::allocate here (--wrap, tests/CMakeLists.txt). Blocks are filled with a pattern, so that an output
// that a kernel writes only in part differs between two runs with different patterns.
#include <string>
#include <vector>

namespace burrow::testing {

class GuardedMemory {
 public:
  // During the object's lifetime, new blocks are filled with `fill`, and CPU blocks are between guard bytes.
  explicit GuardedMemory(unsigned char fill);
  ~GuardedMemory();
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  // The number of blocks, and the names of blocks with overwritten guards, released or still allocated.
  size_t blocks() const;
  std::vector<std::string> damaged() const;
};

// Sets the order, rising or falling, in which the emulated GPU runs threads between two barriers.
void set_thread_order(bool rising);

constexpr unsigned char kFillNan = 0xff;     // NaN in each float type, -1 in i32
constexpr unsigned char kFillFinite = 0x3e;  // 0.18 in f32, 7e-9 in f64

}  // namespace burrow::testing
