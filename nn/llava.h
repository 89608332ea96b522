#pragma once
// LLaVA-1.5 (Liu et al. 2023, arXiv 2310.03744): a vision tower, a projector, and a decoder whose packed
// stream holds the projected patches in place of the <image> token. Without a tower it is LLaMA itself.
#include <optional>

#include "nn/decoder.h"
#include "nn/vision.h"

namespace burrow::nn {

// What may stand between projector and decoder: the visual rows of a batch in, as many out. moe/ has one
// whose experts the prompt weighs.
class VisualModule {
 public:
  virtual ~VisualModule() = default;
  // visual [M,C] projected, table [V,C] the decoder's embedding, ids as of Llava::hidden -> [M,C]
  virtual Var operator()(const Var& visual, const Var& table, const Tensor& ids, Pass& pass) const = 0;
  virtual void parameters(const ParameterVisit& visit) = 0;
};

// The model of a config; its parts are public, since moe/ replaces them.
struct Llava {
  Llava(const ModelConfig& config, WeightSource& source);

  // ids and features may be on the host: they go to the model's device, where the pass is.
  // ids i32 [N]: a token, or -1 - row of `features` [M, Cv] (before the projector; undefined without images).
  // A model without a tower takes no features.
  // The decoder's last hidden states, normed: [N,C]
  Var hidden(const Tensor& ids, const Var& features, Pass& pass) const;
  void parameters(const ParameterVisit& visit);
  void freeze();                // every parameter becomes a constant
  Device device() const;        // where the parameters are
  void move_to(Device device);  // every parameter, as a constant: before they are gathered in an arena

  ModelConfig config;
  std::optional<VisionTower> tower;  // with its projector, or neither
  std::optional<Projector> projector;
  std::unique_ptr<VisualModule> visual_module;  // none: the projected features go on unchanged
  Decoder decoder;
  std::optional<DType> compute;  // of the activations from the projector on; none: what the weights give
};

// Decodes greedily: the prompts' packed tokens in, each sequence's new tokens out, `stop` excluded; at most
// `max_new` each. A sequence that has stopped leaves the batch's computation with the longest one. `seconds`
// receives the time of the prompts' pass and of each one after it.
std::vector<std::vector<int32_t>> greedy_decode(const Llava& model, const Segments& prompts,
                                                const Tensor& ids, const Var& features, int32_t stop,
                                                int64_t max_new, std::vector<double>* seconds = nullptr);

}  // namespace burrow::nn
