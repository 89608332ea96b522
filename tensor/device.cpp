#include "tensor/device.h"

namespace burrow::cuda {

Options& options() {
  static Options chosen;
  return chosen;
}

}  // namespace burrow::cuda
