#include "data/images/image.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/check.h"
#include "tensor/rng.h"

namespace burrow::data {
namespace fs = std::filesystem;

uint64_t content_hash(const Image& image) {
  uint64_t h = mix_bits((static_cast<uint64_t>(image.width) << 32) ^ static_cast<uint64_t>(image.height));
  for (size_t i = 0; i < image.rgb.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, image.rgb.data() + i, std::min<size_t>(8, image.rgb.size() - i));
    h = mix_bits(h ^ word);
  }
  return h;
}

namespace {

uint8_t padding_byte(const std::array<float, 3>& mean, size_t at) {
  return static_cast<uint8_t>(std::clamp(mean[at % 3] * 255.0f, 0.0f, 255.0f));
}

}  // namespace

Image pad_to_square(const Image& image, const std::array<float, 3>& mean) {
  if (image.width == image.height) return image;
  const int side = std::max(image.width, image.height);
  const int left = (side - image.width) / 2, top = (side - image.height) / 2;
  Image square{side, side, std::vector<uint8_t>(static_cast<size_t>(side) * side * 3)};
  for (size_t i = 0; i < square.rgb.size(); ++i) square.rgb[i] = padding_byte(mean, i);
  for (int y = 0; y < image.height; ++y)
    std::memcpy(square.rgb.data() + (static_cast<size_t>(y + top) * side + left) * 3,
                image.rgb.data() + static_cast<size_t>(y) * image.width * 3,
                static_cast<size_t>(image.width) * 3);
  return square;
}

namespace {

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

struct Taps {
  int first;
  std::vector<float> weight;
};

// The input pixels and weights of each output pixel, along one direction.
std::vector<Taps> taps(int in, int out) {
  const double scale = static_cast<double>(in) / out, widen = std::max(scale, 1.0), support = 2 * widen;
  std::vector<Taps> all(static_cast<size_t>(out));
  for (int i = 0; i < out; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(std::floor(centre - support + 0.5)));
    const int end = std::min(in, static_cast<int>(std::floor(centre + support + 0.5)));
    std::vector<double> w;
    double sum = 0;
    for (int x = first; x < end; ++x) {
      w.push_back(bicubic((x - centre + 0.5) / widen));
      sum += w.back();
    }
    all[static_cast<size_t>(i)].first = first;
    for (const double v : w) all[static_cast<size_t>(i)].weight.push_back(static_cast<float>(v / sum));
  }
  return all;
}

uint8_t to_byte(float x) { return static_cast<uint8_t>(std::clamp(std::floor(x + 0.5f), 0.0f, 255.0f)); }

// Resizes each line. Distances in bytes: `stride` between neighbours of a line, `line` between lines.
void resize_lines(const uint8_t* in, uint8_t* out, const std::vector<Taps>& taps, int lines, size_t in_line,
                  size_t in_stride, size_t out_line, size_t out_stride) {
  for (int y = 0; y < lines; ++y)
    for (size_t i = 0; i < taps.size(); ++i)
      for (size_t c = 0; c < 3; ++c) {
        const uint8_t* p = in + y * in_line + static_cast<size_t>(taps[i].first) * in_stride + c;
        float sum = 0;
        for (const float w : taps[i].weight) {
          sum += w * static_cast<float>(*p);
          p += in_stride;
        }
        out[y * out_line + i * out_stride + c] = to_byte(sum);
      }
}

}  // namespace

Image resize_bicubic(const Image& image, int width, int height) {
  BURROW_CHECK(image.width > 0 && image.height > 0 && width > 0 && height > 0,
               "[resize] from {} x {} to {} x {}: every size must be positive", image.width, image.height,
               width, height);
  const size_t wide = static_cast<size_t>(width) * 3;
  const Image* from = &image;
  Image across{width, image.height, {}};
  if (width != image.width) {
    across.rgb.resize(wide * static_cast<size_t>(image.height));
    resize_lines(image.rgb.data(), across.rgb.data(), taps(image.width, width), image.height,
                 static_cast<size_t>(image.width) * 3, 3, wide, 3);
    from = &across;
  }
  if (height == image.height) return *from;
  Image both{width, height, std::vector<uint8_t>(wide * static_cast<size_t>(height))};
  resize_lines(from->rgb.data(), both.rgb.data(), taps(image.height, height), width, 3, wide, 3, wide);
  return both;
}

namespace {

// Equals resize_bicubic(pad_to_square(image, mean), size, size) bit for bit without allocating the square: a
// file of a thousand bytes may hold 16384 x 1 pixels, whose square takes 800 MB.
Image resize_padded(const Image& image, const std::array<float, 3>& mean, int size) {
  const int side = std::max(image.width, image.height);
  if (side == size) return pad_to_square(image, mean);
  const int left = (side - image.width) / 2, top = (side - image.height) / 2;
  const size_t wide = static_cast<size_t>(size) * 3, row = static_cast<size_t>(image.width) * 3;
  std::vector<uint8_t> padded(static_cast<size_t>(side) * 3), padding(wide);
  for (size_t i = 0; i < padded.size(); ++i) padded[i] = padding_byte(mean, i);
  const std::vector<Taps> across_taps = taps(side, size);
  resize_lines(padded.data(), padding.data(), across_taps, 1, 0, 3, 0, 3);
  Image across{size, side, std::vector<uint8_t>(wide * static_cast<size_t>(side))};
  for (int y = 0; y < side; ++y) {
    uint8_t* to = across.rgb.data() + static_cast<size_t>(y) * wide;
    if (y < top || y >= top + image.height) {
      std::copy(padding.begin(), padding.end(), to);
      continue;
    }
    std::copy_n(image.rgb.data() + static_cast<size_t>(y - top) * row, row,
                padded.data() + static_cast<size_t>(left) * 3);
    resize_lines(padded.data(), to, across_taps, 1, 0, 3, 0, 3);
  }
  return resize_bicubic(across, size, size);
}

}  // namespace

Tensor preprocess(const Image& image, const ImageSettings& settings) {
  BURROW_CHECK(image.width > 0 && image.height > 0 && settings.size > 0,
               "[preprocess] image {} x {}, size {}: every size must be positive", image.width, image.height,
               settings.size);
  const int s = settings.size;
  Image square;
  const Image* pixels = &image;
  if (image.width != s || image.height != s) {
    square = resize_padded(image, settings.mean, s);
    pixels = &square;
  }
  Tensor out = Tensor::empty({3, s, s}, DType::f32, Device::cpu, "image");
  float* to = out.data<float>();
  const size_t plane = static_cast<size_t>(s) * s;
  for (size_t c = 0; c < 3; ++c) {
    const float scale = 1 / (255 * settings.std[c]), shift = settings.mean[c] / settings.std[c];
    for (size_t i = 0; i < plane; ++i)
      to[c * plane + i] = static_cast<float>(pixels->rgb[i * 3 + c]) * scale - shift;
  }
  return out;
}

ImageFolder::ImageFolder(fs::path folder) : folder_(std::move(folder)) {
  std::error_code error;
  canonical_ = fs::canonical(folder_, error);
  BURROW_CHECK(!error && fs::is_directory(canonical_, error), "[image] {} is not a directory",
               folder_.string());
}

void ImageFolder::check_inside(const fs::path& path, const std::string& relative) const {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  BURROW_CHECK(!error, "no such file: {}", path.string());
  const auto [at, ignored] = std::mismatch(canonical_.begin(), canonical_.end(), real.begin(), real.end());
  BURROW_CHECK(at == canonical_.end(), "image path '{}' leads out of its folder through a symbolic link",
               relative);
}

fs::path ImageFolder::resolve(const std::string& relative) {
  const fs::path path(relative);
  BURROW_CHECK(!relative.empty() && relative.find('\0') == std::string::npos,
               "image path is empty or has a NUL");
  BURROW_CHECK(!path.is_absolute(), "image path '{}' is absolute: it must be relative to the image folder",
               relative);
  for (const fs::path& part : path)
    BURROW_CHECK(part != "..", "image path '{}' leads out of its folder", relative);
  fs::path full = folder_ / path;
  const std::string parent = path.parent_path().string();
  if (!parent.empty() && !checked_.contains(parent)) {
    check_inside(folder_ / parent, relative);
    checked_.insert(parent);
  }
  std::error_code error;
  if (fs::symlink_status(full, error).type() == fs::file_type::symlink) check_inside(full, relative);
  BURROW_CHECK(fs::is_regular_file(full, error), "no such image file: {}", full.string());
  return full;
}

fs::path resolve_image(const fs::path& folder, const std::string& relative) {
  return ImageFolder(folder).resolve(relative);
}

}  // namespace burrow::data
