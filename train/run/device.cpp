#include "train/run/device.h"

#include "tensor/device.h"

namespace burrow::train {

Device choose_device(const DeviceChoice& choice, const std::function<void(const std::string&)>& say) {
  BURROW_CHECK(choice.name == "cpu" || choice.name == "cuda", "--device {}: cpu or cuda", choice.name);
  BURROW_CHECK(choice.attention == "own" || choice.attention == "cudnn", "--attention {}: own or cudnn",
               choice.attention);
  if (choice.name == "cpu") {
    BURROW_CHECK(!choice.fast, "--fast is for --device cuda: on the CPU it would relax nothing");
    BURROW_CHECK(choice.attention == "own", "--attention cudnn is for --device cuda");
    return Device::cpu;
  }
  const cuda::DeviceInfo info = cuda::device_info();
  BURROW_CHECK(info.absent.empty(), "--device cuda: {}", info.absent);
  cuda::options().tf32 = choice.fast;
  if (choice.fast)
    say("--fast: products of f32 matrices in TF32, which keeps 10 bits of each factor; everything else, and "
        "the "
        "order of all sums, is as without it");
  if (choice.attention == "cudnn") {
    const cuda::CudnnInfo cudnn = cuda::cudnn_info();
    BURROW_CHECK(cudnn.absent.empty(), "--attention cudnn: {}; --attention own does without it",
                 cudnn.absent);
    cuda::options().attention = cuda::AttentionBy::cudnn;
    say("--attention cudnn: bf16 heads of 64 and 128 by cuDNN, other attention by our own kernels; that two "
        "runs give the same bits is asked of cuDNN and not proved");
  }
  return Device::cuda;
}

std::string describe(Device device) {
  return device == Device::cpu ? "cpu" : fmt::format("cuda: {}", cuda::device_info().name);
}

}  // namespace burrow::train
