#pragma once
// Where a model runs: the command line's --device, --fast and --attention.
#include <functional>
#include <string>

#include "tensor/dtype.h"

namespace burrow::train {

struct DeviceChoice {
  std::string name = "cpu";
  bool fast = false;
  std::string attention = "own";
};
// Throws, with the reason, where the device or what is asked of it is not there. `say` receives what was
// given up for --fast and --attention.
Device choose_device(const DeviceChoice& choice, const std::function<void(const std::string&)>& say);
// "cpu", or the name of the GPU.
std::string describe(Device device);

}  // namespace burrow::train
