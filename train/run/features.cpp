#include "train/run/features.h"

#include <charconv>
#include <cstring>

#include "tensor/files.h"

namespace burrow::train {
namespace {

constexpr int64_t kImagesAtOnce = 256;
constexpr double kAbandonedAfter = 60;  // seconds; another process may still write younger temporary files

std::string checksum(const Tensor& features) {
  return hash_hex(hash_bytes({features.bytes(), features.nbytes()}));
}

uint64_t hash_tower(const nn::VisionTower& tower) {
  const nn::VisionConfig& c = tower.config;
  uint64_t h = hash_bytes(bytes_of(fmt::format("{} {} {} {} {} {} {}", c.image_size, c.patch_size,
                                               c.feature_layer, c.feature_norm, c.norm_eps,
                                               fmt::join(c.pixel_mean, ","), fmt::join(c.pixel_std, ","))));
  if (c.class_token) h = hash_bytes(bytes_of("class_token"), h);
  const_cast<nn::VisionTower&>(tower).parameters([&](const nn::Parameter& p) {
    h = hash_bytes(bytes_of(p.name), h);
    const Tensor host = p.var->value().to(Device::cpu);
    h = hash_bytes({host.bytes(), host.nbytes()}, h);
  });
  return h;
}

}  // namespace

Tensor pixels_of(const data::Image& image, const nn::VisionConfig& c) {
  data::ImageSettings settings;
  settings.size = static_cast<int>(c.image_size);
  for (size_t i = 0; i < 3; ++i) {
    settings.mean[i] = static_cast<float>(c.pixel_mean[i]);
    settings.std[i] = static_cast<float>(c.pixel_std[i]);
  }
  return data::preprocess(image, settings);
}

Tensor read_pixels(std::span<const data::ImageRef> images, const std::vector<data::MixtureEntry>& sets,
                   const nn::VisionConfig& c) {
  const int64_t S = c.image_size;
  Tensor pixels =
      Tensor::empty({static_cast<int64_t>(images.size()), 3, S, S}, DType::f32, Device::cpu, "pixels");
  for (size_t i = 0; i < images.size(); ++i) {
    const data::Dataset& set = *sets.at(static_cast<size_t>(images[i].dataset)).dataset;
    const auto at = static_cast<int64_t>(i);
    pixels.slice_rows(at, at + 1).reshape({3, S, S}).copy_from(pixels_of(set.read_image(images[i].image), c));
  }
  return pixels;
}

FeatureCache::FeatureCache(const std::optional<nn::VisionTower>& tower, std::filesystem::path folder,
                           std::function<void(const std::string&)> say)
    : tower_(tower),
      folder_(std::move(folder)),
      say_(std::move(say)),
      tower_hash_(tower ? hash_tower(*tower) : 0) {
  if (!tower || folder_.empty()) return;
  std::filesystem::create_directories(folder_);
  remove_abandoned_temporaries(folder_.string(), kAbandonedAfter);
}

uint64_t FeatureCache::hash_images(const data::Dataset& set) const {
  uint64_t listing = 0;
  for (const std::string& name : set.images()) {
    const auto path = set.settings().images / name;
    const auto changed = std::filesystem::last_write_time(path).time_since_epoch().count();
    listing = hash_bytes(bytes_of(fmt::format("{}\n{}\n{}", std::filesystem::absolute(path).string(),
                                              std::filesystem::file_size(path), changed)),
                         listing);
  }
  const auto known = folder_ / fmt::format("images-{}.hash", hash_hex(listing));
  if (!folder_.empty() && std::filesystem::exists(known)) {
    const std::string text = read_file(known.string());
    uint64_t hash = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), hash, 16);
    if (error == std::errc{} && stop == text.data() + text.size() && text.size() == 16) return hash;
    say_(fmt::format("{}: not a hash: the file is damaged; reading the images again", known.string()));
  }
  const auto count = static_cast<int64_t>(set.images().size());
  std::vector<uint64_t> hashes(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) hashes[static_cast<size_t>(i)] = data::content_hash(set.read_image(i));
  const uint64_t pixels = hash_bytes(std::as_bytes(std::span(hashes)));
  if (!folder_.empty()) write_file_atomically(known.string(), hash_hex(pixels));
  return pixels;
}

Tensor FeatureCache::compute(const data::Dataset& set) const {
  NoGrad no_grad;
  const nn::VisionConfig& c = tower_->config;
  const auto count = static_cast<int64_t>(set.images().size());
  const int64_t width = c.visual_tokens() * c.width;
  Tensor all =
      Tensor::empty({count, width}, tower_->class_embedding.value().dtype(), Device::cpu, "features");
  const std::vector<data::MixtureEntry> sets{{&set, 1}};
  for (int64_t begin = 0; begin < count; begin += kImagesAtOnce) {
    const int64_t end = std::min(count, begin + kImagesAtOnce);
    std::vector<data::ImageRef> refs;
    for (int64_t i = begin; i < end; ++i) refs.push_back({0, static_cast<int32_t>(i)});
    const Tensor features = (*tower_)(read_pixels(refs, sets, c)).value();
    all.slice_rows(begin, end).copy_from(features.reshape({end - begin, width}));
  }
  return all;
}

Tensor FeatureCache::cached(const std::string& path, const data::Dataset& set) const {
  if (!std::filesystem::exists(path)) return {};
  const Shape shape{static_cast<int64_t>(set.images().size()),
                    tower_->config.visual_tokens() * tower_->config.width};
  try {
    const SafetensorsFile file = read_safetensors(path);
    const auto features = file.tensors.find("features");
    const auto sum = file.metadata.find("checksum");
    BURROW_CHECK(features != file.tensors.end() && features->second.shape() == shape,
                 "{}: no features of shape {}", path, shape);
    BURROW_CHECK(sum != file.metadata.end() && sum->second == checksum(features->second),
                 "{}: the checksum does not match: the file is damaged", path);
    return features->second;
  } catch (const Error& e) {
    say_(fmt::format("{}; computing the features again", e.what()));
    return {};
  }
}

void FeatureCache::add(const data::Dataset& set) {
  if (set.images().empty()) {
    features_.emplace_back();
    return;
  }
  BURROW_CHECK(tower_, "{}: has images, but the model has no vision tower", set.name());
  if (folder_.empty()) {
    features_.push_back(compute(set));
    return;
  }
  const auto path =
      folder_ / fmt::format("features-{}-{}.safetensors", hash_hex(tower_hash_), hash_hex(hash_images(set)));
  Tensor features = cached(path.string(), set);
  if (!features.defined()) {
    say_(fmt::format("{}: computing the features of {} images", set.name(), set.images().size()));
    const Tensor computed = compute(set);
    write_safetensors(path.string(), {{"features", computed}}, {{"checksum", checksum(computed)}});
    features = read_safetensors(path.string()).tensors.at("features");
  }
  features_.push_back(std::move(features));
}

Tensor FeatureCache::gather(std::span<const data::ImageRef> images) const {
  if (images.empty()) return {};
  const int64_t P = tower_->config.visual_tokens(), C = tower_->config.width;
  Tensor out =
      Tensor::empty({static_cast<int64_t>(images.size()) * P, C},
                    features_.at(static_cast<size_t>(images[0].dataset)).dtype(), Device::cpu, "features");
  for (size_t i = 0; i < images.size(); ++i) {
    const Tensor& from = features_.at(static_cast<size_t>(images[i].dataset));
    const auto at = static_cast<int64_t>(i) * P;
    out.slice_rows(at, at + P)
        .copy_from(from.slice_rows(images[i].image, images[i].image + 1).reshape({P, C}));
  }
  return out;
}

}  // namespace burrow::train
