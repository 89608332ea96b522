#include "nn/weights.h"

#include <charconv>
#include <cmath>

#include "tensor/rng.h"

namespace burrow::nn {
namespace {

constexpr std::string_view kLanguageModel = "language_model.";
// Older LLaMA files contain rotary frequencies, which are ignored: rope_theta determines them.
constexpr std::string_view kRotaryBuffer = ".rotary_emb.inv_freq";

DType storage_of(DType dtype, const Shape& shape, Init init) {
  const bool matrix =
      shape.size() == 2 && (init == Init::linear || init == Init::residual || init == Init::embedding);
  return dtype == DType::bf16 && !matrix ? DType::f32 : dtype;
}

class RandomWeights : public WeightSource {
 public:
  RandomWeights(uint64_t seed, DType dtype) : seed_(seed), dtype_(dtype) {}
  Tensor take(const std::string& name, const Shape& shape, Init init, int64_t layers) override {
    if (init == Init::one || init == Init::zero)
      return Tensor::full(shape, init == Init::one ? 1 : 0, storage_of(dtype_, shape, init));
    double deviation = init == Init::position ? 0.4 : 0.1;
    if (init == Init::linear || init == Init::residual) {
      deviation = std::sqrt(static_cast<double>(shape[0]) / static_cast<double>(shape.numel()));
      if (init == Init::residual) deviation /= std::sqrt(2.0 * static_cast<double>(layers));
    }
    Tensor t = Tensor::empty(shape, DType::f64, Device::cpu, "weights");
    Random random(random_key(seed_, 0, name));
    for (double& value : std::span(t.data<double>(), static_cast<size_t>(t.numel())))
      value = deviation * random.normal();
    return t.to(storage_of(dtype_, shape, init));
  }

 private:
  uint64_t seed_;
  DType dtype_;
};

class ShapesOnly : public WeightSource {
 public:
  explicit ShapesOnly(DType dtype) : dtype_(dtype) {}
  Tensor take(const std::string&, const Shape& shape, Init init, int64_t) override {
    const DType dtype = storage_of(dtype_, shape, init);
    const size_t bytes = static_cast<size_t>(shape.numel()) * size_of(dtype);
    return Tensor::view(Storage::external(nullptr, bytes, [] {}), 0, shape, dtype);
  }

 private:
  DType dtype_;
};

}  // namespace

std::unique_ptr<WeightSource> random_weights(uint64_t seed, DType dtype) {
  return std::make_unique<RandomWeights>(seed, dtype);
}
std::unique_ptr<WeightSource> shapes_only(DType dtype) { return std::make_unique<ShapesOnly>(dtype); }

FileWeights::FileWeights(const std::string& path, DType dtype)
    : path_(path), dtype_(dtype), file_(read_safetensors(path)) {
  for (const auto& [name, tensor] : file_.tensors) taken_[name] = false;
}

Tensor FileWeights::take(const std::string& name, const Shape& shape, Init init, int64_t) {
  auto found = file_.tensors.find(name);
  if (found == file_.tensors.end() && name.starts_with(kLanguageModel))
    found = file_.tensors.find(name.substr(kLanguageModel.size()));
  BURROW_CHECK(found != file_.tensors.end(), "{}: no tensor '{}' of shape {}", path_, name, shape);
  BURROW_CHECK(found->second.shape() == shape, "{}: tensor '{}' has shape {}, the model needs {}", path_,
               name, found->second.shape(), shape);
  taken_[found->first] = true;
  return found->second.to(storage_of(dtype_, shape, init));
}

int64_t FileWeights::ffn_experts() const {
  const auto found = file_.metadata.find("ffn_experts");
  if (found == file_.metadata.end()) return 0;
  int64_t experts = 0;
  const char *begin = found->second.data(), *end = begin + found->second.size();
  const auto [stop, error] = std::from_chars(begin, end, experts);
  BURROW_CHECK(error == std::errc{} && stop == end && experts >= 1, "{}: metadata 'ffn_experts' is '{}'",
               path_, found->second);
  return experts;
}

void FileWeights::finish() const {
  for (const auto& [name, taken] : taken_)
    BURROW_CHECK(taken || name.ends_with(kRotaryBuffer), "{}: tensor '{}' is not part of this model", path_,
                 name);
}

}  // namespace burrow::nn
