#pragma once
// Numbers that a step computes on the device and the host needs at its end: gathered there without waiting,
// then fetched at once. It is the only time in a step that the host waits for the device.
#include <functional>
#include <vector>

#include "tensor/tensor.h"

namespace burrow::train {

class Readback {
 public:
  // Queues a copy of a one-element f32 or f64 tensor; `receive` gets its value in read(), in the order of
  // add.
  void add(const Tensor& value, std::function<void(double)> receive);
  void read();
  void forget();  // what was added since the last read

 private:
  static constexpr int64_t kMost = 512;  // values at once: with more, add() reads those before
  struct Entry {
    DType dtype;
    std::function<void(double)> receive;
  };
  Tensor slots_;  // f64 [kMost] on the values' device; a value of f32 has the first half of its slot
  std::vector<Entry> entries_;
};

}  // namespace burrow::train
