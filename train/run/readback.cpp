#include "train/run/readback.h"

#include <utility>

namespace burrow::train {
namespace {

Tensor slot_of(const Tensor& slots, int64_t i, DType dtype) {
  return Tensor::view(slots.storage(), static_cast<size_t>(i) * sizeof(double), {1}, dtype);
}

}  // namespace

void Readback::add(const Tensor& value, std::function<void(double)> receive) {
  BURROW_CHECK(value.numel() == 1, "[readback] needs one element, not shape {}", value.shape());
  if (static_cast<int64_t>(entries_.size()) == kMost) read();
  const auto i = static_cast<int64_t>(entries_.size());
  if (!slots_.defined() || slots_.device() != value.device())
    slots_ = Tensor::zeros({kMost}, DType::f64, value.device(), "readback");
  slot_of(slots_, i, value.dtype()).copy_from(value.reshape({1}));
  entries_.push_back({value.dtype(), std::move(receive)});
}

void Readback::read() {
  const auto count = static_cast<int64_t>(entries_.size());
  if (count == 0) return;
  const Tensor host = slots_.slice_rows(0, count).to(Device::cpu);
  const std::vector<Entry> entries = std::exchange(entries_, {});
  for (int64_t i = 0; i < count; ++i) {
    const Entry& entry = entries[static_cast<size_t>(i)];
    entry.receive(slot_of(host, i, entry.dtype).item());
  }
}

void Readback::forget() { entries_.clear(); }

}  // namespace burrow::train
