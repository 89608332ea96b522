#pragma once
// Choice of the device and its options: the command line's --device, --fast and --attention.
#include <functional>
#include <string>

#include "tensor/dtype.h"

namespace burrow::train {

struct DeviceChoice {
  std::string name = "cpu";
  bool fast = false;
  std::string attention = "own";
};
// Selects the device. Throws with the reason if the device or an option is unavailable. `say` receives what
// --fast and --attention change.
Device choose_device(const DeviceChoice& choice, const std::function<void(const std::string&)>& say);
// "cpu", or "cuda: " and the GPU's name.
std::string describe(Device device);

}  // namespace burrow::train
