#pragma once
// Image files and their preprocessing for the vision tower. Pixels are RGB, 8 bits per channel.
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace burrow::data {

struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // [height, width, 3]
};

// Limits of an image's size, checked from the header before any pixel is allocated.
struct ImageLimit {
  int64_t side = 16384;        // pixels, of width and of height
  int64_t pixels = 1ll << 26;  // width * height
};

// Palette, grey and 16-bit files become RGB8; an alpha channel is dropped (as PIL's convert("RGB") does),
// and a gamma chunk is ignored. Errors name the path: not a PNG, truncated, corrupt, over the limit.
Image read_png(const std::filesystem::path& path, const ImageLimit& limit = {});
// The same for bytes in memory; `name` appears in errors.
Image parse_png(std::span<const std::byte> bytes, const std::string& name, const ImageLimit& limit = {});

// Decodes a JPEG file in memory, grey or YCbCr, to RGB. Throws for a corrupt file.
Image parse_jpeg(std::span<const std::byte> bytes, const std::string& name, const ImageLimit& limit = {});
// The bytes of a PNG file, compressed at level 1.
std::string encode_png(const Image& image);
// Compresses at level 1, because hundreds of thousands of files are generated. Throws and removes the file
// when it cannot be written in full.
void write_png(const std::filesystem::path& path, const Image& image);

// Hash of size and pixels, so equal pictures in different files have equal hashes.
uint64_t content_hash(const Image& image);

// Settings of preprocess; the defaults are those of CLIP ViT-L/14-336.
struct ImageSettings {
  int size = 336;                                                   // S: side of the square, in pixels
  std::array<float, 3> mean{0.48145466f, 0.4578275f, 0.40821073f};  // CLIP's
  std::array<float, 3> std{0.26862954f, 0.26130258f, 0.27577711f};
};

// Pads to a square with the mean colour.
Image pad_to_square(const Image& image, const std::array<float, 3>& mean);
// Bicubic as in PIL: a = -0.5, kernel widened when shrinking, rounded to 8 bits after each direction.
Image resize_bicubic(const Image& image, int width, int height);
// Pads, resizes to S x S (the identity at that size), scales to [0, 1] and normalises: f32 [3, S, S].
Tensor preprocess(const Image& image, const ImageSettings& settings);

// Resolves the image paths of a dataset. Rejects paths that leave the image folder: absolute paths, "..", and
// symbolic links to outside. Remembers directories already checked.
class ImageFolder {
 public:
  explicit ImageFolder(std::filesystem::path folder);  // throws when it is not a directory
  const std::filesystem::path& path() const { return folder_; }
  // The file's path. Throws an Error with the reason: outside the folder, missing, not a regular file.
  std::filesystem::path resolve(const std::string& relative);

 private:
  void check_inside(const std::filesystem::path& path, const std::string& relative) const;
  std::filesystem::path folder_, canonical_;
  std::set<std::string> checked_;  // directories below the folder, as written in records
};

// ImageFolder::resolve for a single file.
std::filesystem::path resolve_image(const std::filesystem::path& folder, const std::string& relative);

}  // namespace burrow::data
