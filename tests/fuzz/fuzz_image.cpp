// libFuzzer target: any bytes either become an image, which is preprocessed, or are rejected with an Error.
// The same bytes as an image path either lead into the image folder or are rejected.
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "data/images/image.h"
#include "tests/fuzz/fuzzing.h"

using namespace burrow;
using namespace burrow::data;
namespace fs = std::filesystem;

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

const fs::path& image_folder() {
  static const FuzzFolder folder;
  static const fs::path images = folder.path / "images";
  static const bool once = [] {
    fs::create_directories(images / "a/b");
    for (const char* file : {"outside", "images/i", "images/a/i", "images/a/b/i"})
      std::ofstream(folder.path / file) << "x";
    fs::create_symlink("../outside", images / "o");
    fs::create_symlink("..", images / "u");
    fs::create_symlink("../../..", images / "a/u");
    fs::create_symlink("a/i", images / "l");
    fs::create_symlink("loop", images / "loop");
    return true;
  }();
  require(once, "the folder is filled once");
  return images;
}

void resolve(const std::string& relative) {
  try {
    const fs::path real = fs::canonical(resolve_image(image_folder(), relative));
    const fs::path root = fs::canonical(image_folder());
    require(std::mismatch(root.begin(), root.end(), real.begin(), real.end()).first == root.end(),
            "a resolved path lies in the image folder");
    require(fs::is_regular_file(real), "a resolved path is a file");
  } catch (const Error&) {
  }
}

// Corrects the checksum of each chunk: libpng does not read a mutated chunk with a wrong one.
void repair_checksums(uint8_t* data, size_t size) {
  const auto word = [&](size_t at) {
    return uint32_t{data[at]} << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3];
  };
  for (size_t at = 8; at + 12 <= size;) {
    const size_t length = word(at);
    if (length > size - at - 12) return;
    const uint32_t crc = static_cast<uint32_t>(crc32(0, data + at + 4, static_cast<uInt>(length + 4)));
    for (size_t i = 0; i < 4; ++i) data[at + 8 + length + i] = static_cast<uint8_t>(crc >> (24 - 8 * i));
    at += 12 + length;
  }
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 8) repair_checksums(data, size);
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 8192) resolve(std::string(text_of(data, size)));
  try {
    // A small limit, so that many images are read per second.
    const Image image = parse_png(std::as_bytes(std::span(data, size)), "fuzz", {512, 1 << 16});
    require(image.rgb.size() == static_cast<size_t>(image.width) * image.height * 3, "every pixel is there");
    ImageSettings settings;
    settings.size = 16;
    const Tensor x = preprocess(image, settings);
    for (int64_t i = 0; i < x.numel(); ++i)
      require(std::isfinite(x.data<float>()[i]), "every value is finite");
  } catch (const Error&) {
  }
  return 0;
}
