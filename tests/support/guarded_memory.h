#pragma once
// Guard bytes around everything that is allocated, without a line in the library: the linker sends calls of
// Storage::allocate here (--wrap, tests/CMakeLists.txt). Blocks begin as a chosen pattern, so that an output
// that a kernel did not write in full differs between two runs with different patterns.
#include <string>
#include <vector>

namespace burrow::testing {

class GuardedMemory {
 public:
  // While it lives, blocks are filled with `fill` when they are made; those of the CPU lie between guard
  // bytes.
  explicit GuardedMemory(unsigned char fill);
  ~GuardedMemory();
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  // How many blocks were made, and the names of those written outside, released or still alive.
  size_t blocks() const;
  std::vector<std::string> damaged() const;
};

// Where the GPU is emulated: threads between two barriers run in rising or in falling order.
void set_thread_order(bool rising);

constexpr unsigned char kFillNan = 0xff;     // NaN in each float type, -1 in i32
constexpr unsigned char kFillFinite = 0x3e;  // 0.18 in f32, 7e-9 in f64

}  // namespace burrow::testing
