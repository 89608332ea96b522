#include "tests/support/golden_data.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "tensor/rng.h"

namespace burrow::testing {

namespace {

constexpr uint64_t kSeed = 37;

bool ends_in_one_of(const std::string& name, std::initializer_list<std::string_view> ends) {
  return std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return name.ends_with(end); });
}

}  // namespace

Tensor generated(const std::string& name, const Shape& shape, double scale) {
  Tensor t = Tensor::empty(shape, DType::f64);
  const uint64_t key = random_key(kSeed, 0, name);
  for (int64_t i = 0; i < t.numel(); ++i) {
    const double unit = static_cast<double>(mix_bits(key ^ static_cast<uint64_t>(i)) >> 11) * 0x1p-53;
    t.data<double>()[i] = (unit - 0.5) * scale;
  }
  return t;
}

Tensor generated_parameter(const std::string& name, const Shape& shape, int64_t rank) {
  if (ends_in_one_of(name, {"layernorm.weight", "layer_norm1.weight", "layer_norm2.weight", "layrnorm.weight",
                            "model.norm.weight"})) {
    Tensor t = generated(name, shape, 0.2);
    for (int64_t i = 0; i < t.numel(); ++i) t.data<double>()[i] += 1;
    return t;
  }
  if (name.ends_with(".bias")) return generated(name, shape, 0.2);
  if (ends_in_one_of(name, {"embed_tokens.weight", "position_embedding.weight", "class_embedding"})) {
    return generated(name, shape, 1);
  }
  if (name.ends_with("lora_B.weight"))
    return generated(name, shape, 0.5 / std::sqrt(static_cast<double>(rank)));
  const auto fan_in = static_cast<double>(shape.numel() / shape[0]);
  return generated(name, shape, (name.ends_with("router.weight") ? 8 : 2) / std::sqrt(fan_in));
}

Tensor digest(const std::string& name, const Tensor& x) {
  const Tensor values = x.to(DType::f64), probe = generated(name + ".probe", x.shape(), 1);
  const double* v = values.data<double>();
  const double* p = probe.data<double>();
  double squares = 0, against_probe = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    squares += v[i] * v[i];
    against_probe += v[i] * p[i];
  }
  Tensor out = Tensor::zeros({10}, DType::f64);
  double* to = out.data<double>();
  to[0] = std::sqrt(squares);
  to[1] = against_probe;
  std::copy_n(v, std::min<int64_t>(x.numel(), 8), to + 2);
  return out;
}

const SafetensorsFile& golden_file(const std::string& name) {
  static std::map<std::string, SafetensorsFile> files;
  auto found = files.find(name);
  if (found == files.end()) {
    const char* elsewhere = std::getenv("BURROW_TEST_FILES");  // set if the test runs on another machine
    const std::string path =
        std::string(elsewhere ? elsewhere : BURROW_TEST_FILES) + "/golden/" + name + ".safetensors";
    found = files.emplace(name, read_safetensors(path)).first;
  }
  return found->second;
}

}  // namespace burrow::testing
