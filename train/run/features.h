#pragma once
// Input of the model from images: features of a frozen tower, computed once and cached on disk, or pixels if
// the tower is trained.
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "data/sets/batch.h"
#include "nn/llava.h"

namespace burrow::train {

// The tower's features, input of the projector, for all images of some data sets. A file's name contains a
// hash of the tower (weights and settings) and one of the images' pixels, so that stale files are not read.
// The pixel hash is itself cached by paths, sizes and modification times. Files with a wrong checksum are
// recomputed.
class FeatureCache {
 public:
  // `tower` is nullopt for a model of text alone. With an empty `folder`, features are kept in memory only.
  // `say` receives progress messages.
  FeatureCache(const std::optional<nn::VisionTower>& tower, std::filesystem::path folder,
               std::function<void(const std::string&)> say);
  // Adds a data set; ImageRef::dataset refers to sets in the order of these calls.
  void add(const data::Dataset& set);
  // The concatenated features of these images: [images*P, C]
  Tensor gather(std::span<const data::ImageRef> images) const;

 private:
  Tensor compute(const data::Dataset& set) const;
  // A set's features from the cache file; undefined if it is missing or damaged (reported to say_).
  Tensor cached(const std::string& path, const data::Dataset& set) const;
  uint64_t hash_images(const data::Dataset& set) const;
  const std::optional<nn::VisionTower>& tower_;
  std::filesystem::path folder_;
  std::function<void(const std::string&)> say_;
  uint64_t tower_hash_ = 0;
  std::vector<Tensor> features_;  // [images, P*C] for each data set
};

// Reads and normalises images: [images, 3, S, S]
Tensor read_pixels(std::span<const data::ImageRef> images, const std::vector<data::MixtureEntry>& sets,
                   const nn::VisionConfig& config);
Tensor pixels_of(const data::Image& image, const nn::VisionConfig& config);  // [3, S, S]

}  // namespace burrow::train
