#pragma once
// LLaVA-1.5 (Liu et al. 2023, arXiv 2310.03744): a vision tower, a projector, and a decoder in whose input
// the projected patches replace the <image> token. Without a tower it is a LLaMA.
#include <optional>

#include "nn/decoder.h"
#include "nn/vision.h"

namespace burrow::nn {

// An optional module between projector and decoder that transforms the visual rows of a batch. moe/visual.h
// implements one with experts.
class VisualModule {
 public:
  virtual ~VisualModule() = default;
  // visual [M,C] (projected features), table [V,C] (decoder embedding), ids as in Llava::hidden -> [M,C]
  virtual Var operator()(const Var& visual, const Var& table, const Tensor& ids, Pass& pass) const = 0;
  virtual void parameters(const ParameterVisit& visit) = 0;
};

// A model with the sizes of a config. Its modules are public because moe/ replaces them.
struct Llava {
  Llava(const ModelConfig& config, WeightSource& source);

  // Returns the decoder's hidden states after the final norm, [N,C].
  // ids i32 [N]: a token, or -1 - r for row r of `features` [M, Cv] (input of the projector; undefined
  // without images or tower). Both are copied to the model's device, where the pass must be.
  Var hidden(const Tensor& ids, const Var& features, Pass& pass) const;
  void parameters(const ParameterVisit& visit);
  void freeze();                // makes every parameter a constant
  Device device() const;        // the device of the parameters
  void move_to(Device device);  // copies every parameter, as a constant; call it before making an arena

  ModelConfig config;
  std::optional<VisionTower> tower;  // present if and only if the projector is
  std::optional<Projector> projector;
  std::unique_ptr<VisualModule> visual_module;  // null: projected features enter the decoder unchanged
  Decoder decoder;
  std::optional<DType> compute;  // dtype of activations after the tower; none: determined by the weights
};

// Greedy decoding. `ids` are the packed tokens of the prompts; returns the new tokens of each sequence
// without `stop`, at most `max_new`. The batch runs until all sequences have stopped. `seconds` receives the
// times of the pass over the prompts and of every later pass.
std::vector<std::vector<int32_t>> greedy_decode(const Llava& model, const Segments& prompts,
                                                const Tensor& ids, const Var& features, int32_t stop,
                                                int64_t max_new, std::vector<double>* seconds = nullptr);

}  // namespace burrow::nn
