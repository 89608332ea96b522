#pragma once
// Image files and what the vision tower reads of them. Pixels are RGB, 8 bits a channel.
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

// Checked from the header, before any pixel is allocated.
struct ImageLimit {
  int64_t side = 16384;        // pixels, of width and of height
  int64_t pixels = 1ll << 26;  // width * height
};

// Palette, grey and 16-bit files become RGB8; an alpha channel is dropped (as PIL's convert("RGB") does),
// and a gamma chunk is ignored. Errors name the path: not a PNG, truncated, corrupt, over the limit.
Image read_png(const std::filesystem::path& path, const ImageLimit& limit = {});
// The same of bytes in memory; `name` is for errors.
Image parse_png(std::span<const std::byte> bytes, const std::string& name, const ImageLimit& limit = {});

// A JPEG file in memory, grey or YCbCr, as RGB; a damaged one is an error.
Image parse_jpeg(std::span<const std::byte> bytes, const std::string& name, const ImageLimit& limit = {});
// The file's bytes. Lightly compressed.
std::string encode_png(const Image& image);
// Lightly compressed: these files are written by the hundred thousand. Throws when the file cannot be
// written in full, and leaves none behind then.
void write_png(const std::filesystem::path& path, const Image& image);

// A hash of size and pixels: equal pictures in different files have equal hashes.
uint64_t content_hash(const Image& image);

// What preprocess makes of a picture; the defaults are those of CLIP ViT-L/14-336.
struct ImageSettings {
  int size = 336;                                                   // S: side of the square, in pixels
  std::array<float, 3> mean{0.48145466f, 0.4578275f, 0.40821073f};  // CLIP's
  std::array<float, 3> std{0.26862954f, 0.26130258f, 0.27577711f};
};

// The picture padded to a square with the mean colour.
Image pad_to_square(const Image& image, const std::array<float, 3>& mean);
// Bicubic (a = -0.5) with the kernel widened when shrinking, rounded to 8 bits after each direction: PIL's.
Image resize_bicubic(const Image& image, int width, int height);
// Pads, resizes to S x S (the identity at that size), scales to [0, 1] and normalises: f32 [3, S, S].
Tensor preprocess(const Image& image, const ImageSettings& settings);

// Finds the files of a dataset's image folder and refuses paths that lead out of it: absolute ones, ones
// with "..", and symbolic links to elsewhere. Remembers directories already checked.
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
