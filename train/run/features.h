#pragma once
// What the model reads of images: a frozen tower's features, computed once and kept on disk, or pixels for
// a tower that trains.
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "data/sets/batch.h"
#include "nn/llava.h"

namespace burrow::train {

// Features before the projector, for every image of some data sets. The file's name is a hash of the tower
// (weights and settings) and one of the images' pixels, so that a stale entry cannot be read; which pixels
// a list of files holds is remembered by their paths, sizes and times of change. A file whose checksum does
// not match is computed again.
class FeatureCache {
 public:
  // `tower`: none in a model of text alone, whose data sets have no images.
  // `folder` may be empty: features are then computed and kept in memory only.
  // `say` receives lines of progress.
  FeatureCache(const std::optional<nn::VisionTower>& tower, std::filesystem::path folder,
               std::function<void(const std::string&)> say);
  // Adds a data set as the next index of ImageRef::dataset.
  void add(const data::Dataset& set);
  // The features of these images, end to end: [images*P, C]
  Tensor gather(std::span<const data::ImageRef> images) const;

 private:
  Tensor compute(const data::Dataset& set) const;
  // What the cache has of a set, or an undefined tensor: nothing, or a file that is damaged, which is said.
  Tensor cached(const std::string& path, const data::Dataset& set) const;
  uint64_t hash_images(const data::Dataset& set) const;
  const std::optional<nn::VisionTower>& tower_;
  std::filesystem::path folder_;
  std::function<void(const std::string&)> say_;
  uint64_t tower_hash_ = 0;
  std::vector<Tensor> features_;  // by data set: [images, P*C]
};

// Reads and normalises images: [images, 3, S, S]
Tensor read_pixels(std::span<const data::ImageRef> images, const std::vector<data::MixtureEntry>& sets,
                   const nn::VisionConfig& config);
Tensor pixels_of(const data::Image& image, const nn::VisionConfig& config);  // [3, S, S]

}  // namespace burrow::train
