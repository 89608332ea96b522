#include "train/run/device.h"

#include "tensor/device.h"

namespace burrow::train {

Device choose_device(const DeviceChoice& choice, const std::function<void(const std::string&)>& say) {
  BURROW_CHECK(choice.name == "cpu" || choice.name == "cuda", "--device {}: must be cpu or cuda",
               choice.name);
  BURROW_CHECK(choice.attention == "own" || choice.attention == "cudnn",
               "--attention {}: must be own or cudnn", choice.attention);
  if (choice.name == "cpu") {
    BURROW_CHECK(!choice.fast, "--fast needs --device cuda: it has no effect on the CPU");
    BURROW_CHECK(choice.attention == "own", "--attention cudnn needs --device cuda");
    return Device::cpu;
  }
  const cuda::DeviceInfo info = cuda::device_info();
  BURROW_CHECK(info.absent.empty(), "--device cuda: {}", info.absent);
  cuda::options().tf32 = choice.fast;
  if (choice.fast)
    say("--fast: products of f32 matrices use TF32, which keeps 10 mantissa bits of each factor; nothing "
        "else "
        "changes");
  if (choice.attention == "cudnn") {
    const cuda::CudnnInfo cudnn = cuda::cudnn_info();
    BURROW_CHECK(cudnn.absent.empty(), "--attention cudnn: {}; use --attention own", cudnn.absent);
    cuda::options().attention = cuda::AttentionBy::cudnn;
    say("--attention cudnn: cuDNN computes bf16 heads of 64 and 128, our kernels other attention; cuDNN is "
        "configured to be deterministic, which is not verified");
  }
  return Device::cuda;
}

std::string describe(Device device) {
  return device == Device::cpu ? "cpu" : fmt::format("cuda: {}", cuda::device_info().name);
}

}  // namespace burrow::train
