#pragma once
// Sources of a module's initial values. A module requests each of its tensors by full name (Hugging Face's
// names, so that published checkpoints load unchanged), shape and kind of initialisation.
#include <memory>
#include <string>

#include "tensor/safetensors.h"

namespace burrow::nn {

// The distribution of a tensor's random initial values.
enum class Init {
  linear,     // N(0, 1/in), a Linear's weight [out, in]
  residual,   // linear's, divided by sqrt(2 layers), for Linears that add to the residual stream
  embedding,  // N(0, 0.1²)
  position,   // N(0, 0.4²): large enough for a small tower to learn positions quickly
  one,
  zero,
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // `layers` is only read for Init::residual.
  virtual Tensor take(const std::string& name, const Shape& shape, Init init, int64_t layers = 1) = 0;
  // Number of blocks to which the inner channels of every FFN are assigned, with a router for them (`burrow
  // factorize`); 0: the FFNs are dense.
  virtual int64_t ffn_experts() const { return 0; }
};

// The sources below return tensors of `dtype`. With bf16 only matrices of Linears and embeddings are bf16;
// other tensors and the arithmetic are f32.

// Random values, determined by (seed, name) for each tensor.
std::unique_ptr<WeightSource> random_weights(uint64_t seed, DType dtype);
// Tensors without memory, for counting parameters (--dry-run); kernels cannot run on them.
std::unique_ptr<WeightSource> shapes_only(DType dtype);
// Tensors of a safetensors file, converted to `dtype`. take() throws an Error with file and tensor if the
// name is missing or the shape differs. Names of the decoder may lack LLaVA's prefix "language_model.", as in
// the file of a language model.
class FileWeights : public WeightSource {
 public:
  FileWeights(const std::string& path, DType dtype);
  // The tensor of this name; `init` only distinguishes matrices from other tensors.
  Tensor take(const std::string& name, const Shape& shape, Init init, int64_t layers) override;
  int64_t ffn_experts() const override;  // from the file's metadata
  // Call it after building the model: throws if a tensor of the file was not taken.
  void finish() const;

 private:
  std::string path_;
  DType dtype_;
  SafetensorsFile file_;
  std::map<std::string, bool> taken_;
};

}  // namespace burrow::nn
