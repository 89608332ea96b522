#pragma once
// Collects scalars that a step computes on the device and copies them to the host together at the end of the
// step, which is the only time that the host waits for the device.
#include <functional>
#include <vector>

#include "tensor/tensor.h"

namespace burrow::train {

class Readback {
 public:
  // Queues a copy of a one-element f32 or f64 tensor. read() passes its value to `receive`, in order of
  // add().
  void add(const Tensor& value, std::function<void(double)> receive);
  void read();
  void forget();  // discards values added since the last read

 private:
  static constexpr int64_t kMost = 512;  // capacity; when it is reached, add() calls read()
  struct Entry {
    DType dtype;
    std::function<void(double)> receive;
  };
  Tensor slots_;  // f64 [kMost] on the values' device; an f32 value is in the first 4 bytes of its slot
  std::vector<Entry> entries_;
};

}  // namespace burrow::train
