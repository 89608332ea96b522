#pragma once
// Where a module's initial values come from. A module asks for each of its tensors by its full name
// (Hugging Face's names, so that real checkpoints load unchanged), shape and kind.
#include <memory>
#include <string>

#include "tensor/safetensors.h"

namespace burrow::nn {

// How a tensor begins where weights are random.
enum class Init {
  linear,     // N(0, 1/in), a Linear's weight [out, in]
  residual,   // as linear, divided by the square root of twice the layers: it feeds the residual stream
  embedding,  // N(0, 0.1²)
  position,   // N(0, 0.4²): strong enough that a small tower learns places at once
  one,
  zero,
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // `layers` is only read for Init::residual.
  virtual Tensor take(const std::string& name, const Shape& shape, Init init, int64_t layers = 1) = 0;
  // Blocks that every FFN's inner channels are dealt to, in order, with a router beside them (`burrow
  // factorize`); 0: the FFNs are dense.
  virtual int64_t ffn_experts() const { return 0; }
};

// The sources below give tensors of `dtype`. bf16 is storage for the matrices of Linears and embeddings,
// which products read as they are; all else is f32 then, and so is the arithmetic.

// Seeded random values: each tensor is a function of (seed, name) alone.
std::unique_ptr<WeightSource> random_weights(uint64_t seed, DType dtype);
// Shapes without memory, for counting (--dry-run): no kernel may run on them.
std::unique_ptr<WeightSource> shapes_only(DType dtype);
// A file's tensors, converted to `dtype` where theirs differs; an absent name or another shape is an error
// that names file and tensor. finish() (call it once the model is built) refuses names that nobody took. A
// language model's file has its tensors without LLaVA's prefix "language_model.": that is found as well.
class FileWeights : public WeightSource {
 public:
  FileWeights(const std::string& path, DType dtype);
  // From the file; `init` only tells matrices from the rest.
  Tensor take(const std::string& name, const Shape& shape, Init init, int64_t layers) override;
  int64_t ffn_experts() const override;  // of the file's metadata
  // Throws when the file holds a tensor that nobody took.
  void finish() const;

 private:
  std::string path_;
  DType dtype_;
  SafetensorsFile file_;
  std::map<std::string, bool> taken_;
};

}  // namespace burrow::nn
