#include <png.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>

#include "data/images/image.h"
#include "tensor/files.h"
#include "tensor/rng.h"
#include "tests/support/data_testing.h"

using namespace burrow;
using namespace burrow::data;
using doctest::Approx;
namespace fs = std::filesystem;

namespace {

Image noise(int width, int height) {
  Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(width) * height * 3)};
  Random random(7);
  for (uint8_t& v : image.rgb) v = static_cast<uint8_t>(random.below(256));
  return image;
}

rusage usage() {
  rusage u{};
  REQUIRE(::getrusage(RUSAGE_SELF, &u) == 0);
  return u;
}

// Writes a 2 x 1 image in one of libpng's formats.
void write_format(const std::string& path, uint32_t format, const void* pixels, const void* palette = nullptr,
                  uint32_t colors = 0) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = 2;
  image.height = 1;
  image.format = format;
  image.colormap_entries = colors;
  REQUIRE(png_image_write_to_file(&image, path.c_str(), 0, pixels, 0, palette));
}

}  // namespace

TEST_CASE("an image is read as it was written") {
  const Folder folder;
  for (const auto& [width, height] : {std::pair{1, 1}, {3, 5}, {32, 32}, {257, 2}}) {
    const Image image = noise(width, height);
    const std::string path = folder / "i.png";
    write_png(path, image);
    const Image again = read_png(path);
    CHECK(again.width == width);
    CHECK(again.height == height);
    CHECK(again.rgb == image.rgb);
    CHECK(content_hash(again) == content_hash(image));
  }
  Image other = noise(3, 5);
  other.rgb[14] ^= 1;
  CHECK(content_hash(other) != content_hash(noise(3, 5)));
  CHECK(content_hash({5, 3, other.rgb}) != content_hash(other));
}

TEST_CASE("a file cut short at any length is an error that names it") {
  const Folder folder;
  const std::string path = folder / "i.png", cut = folder / "cut.png";
  write_png(path, noise(6, 5));
  const std::string whole = read_file(path);
  for (size_t size = 0; size < whole.size(); ++size) {
    write_bytes(cut, whole.substr(0, size));
    const std::string error = error_of([&] { read_png(cut); });
    CHECK_MESSAGE(contains(error, "[image] " + cut), size, ": ", error);
  }
}

TEST_CASE("invalid and damaged PNG files are rejected") {
  const Folder folder;
  const std::string path = folder / "i.png";
  const auto error = [&] { return error_of([&] { read_png(path); }); };
  CHECK(error() == "[image] cannot open " + path + ": No such file or directory");
  write_png(path, noise(6, 5));
  const std::string whole = read_file(path);
  write_bytes(path, "GIF89a" + whole);
  CHECK(error() == "[image] " + path + " is not a PNG file: wrong signature");
  // Any damaged byte of header or pixels is detected, because each chunk has a checksum.
  for (size_t at = 8; at < whole.size(); at += 3) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 16);
    write_bytes(path, damaged);
    CHECK_MESSAGE(contains(error(), "[image] " + path + ": "), at);
  }
}

TEST_CASE("a header over the limit is rejected before pixels are allocated") {
  const Folder folder;
  const std::string path = folder / "i.png";
  write_png(path, noise(6, 5));
  const std::string whole = read_file(path);
  // No memory could hold the pixels of this size.
  write_bytes(path, with_size(whole, 0x7fffffff, 0x7fffffff));
  CHECK(error_of([&] { read_png(path); }) ==
        "[image] " + path +
            ": 2147483647 x 2147483647 pixels are over the limit of 16384 a side and 67108864 in all");
  write_bytes(path, with_size(whole, 16384, 16384));
  CHECK(contains(error_of([&] { read_png(path); }), "16384 x 16384 pixels are over the limit"));
  write_bytes(path, with_size(whole, 0, 5));
  CHECK(contains(error_of([&] { read_png(path); }), "[image] " + path));
  write_bytes(path, whole);
  CHECK(contains(error_of([&] { read_png(path, {5, 100}); }), "6 x 5 pixels are over the limit of 5"));
  CHECK(contains(error_of([&] { read_png(path, {6, 29}); }), "over the limit of 6 a side and 29 in all"));
  CHECK(read_png(path, {6, 30}).width == 6);
}

TEST_CASE("every kind of PNG is converted to 8-bit RGB") {
  using Bytes = std::vector<uint8_t>;
  const Folder folder;
  const std::string path = folder / "i.png";
  const Bytes colors{10, 20, 30, 200, 210, 220}, index{1, 0}, grey{7, 250}, grey_alpha{7, 0, 250, 128};
  const Bytes rgba{10, 20, 30, 0, 200, 210, 220, 9}, palette_alpha{10, 20, 30, 40, 1, 2, 3, 255};
  std::vector<uint16_t> rgb16, grey16{7 * 257, 250 * 257};
  for (const uint8_t v : colors) rgb16.push_back(static_cast<uint16_t>(v * 257));
  const Bytes greys{7, 7, 7, 250, 250, 250};
  write_format(path, PNG_FORMAT_RGB_COLORMAP, index.data(), colors.data(), 2);
  CHECK(read_png(path).rgb == Bytes{200, 210, 220, 10, 20, 30});
  write_format(path, PNG_FORMAT_RGBA_COLORMAP, index.data(), palette_alpha.data(), 2);
  CHECK(read_png(path).rgb == Bytes{1, 2, 3, 10, 20, 30});
  write_format(path, PNG_FORMAT_GRAY, grey.data());
  CHECK(read_png(path).rgb == greys);
  write_format(path, PNG_FORMAT_GA, grey_alpha.data());
  CHECK(read_png(path).rgb == greys);
  write_format(path, PNG_FORMAT_RGBA, rgba.data());
  CHECK(read_png(path).rgb == colors);
  write_format(path, PNG_FORMAT_LINEAR_RGB, rgb16.data());
  CHECK(read_png(path).rgb == colors);
  write_format(path, PNG_FORMAT_LINEAR_Y, grey16.data());
  CHECK(read_png(path).rgb == greys);
}

TEST_CASE("an image that cannot be written leaves no file") {
  const Folder folder;
  const std::string path = folder / "i.png", nowhere = folder / "no/i.png";
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{1000, before.rlim_max};  // acts as a full disk
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  const std::string error = error_of([&] { write_png(path, noise(64, 64)); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  CHECK(error == "[image] cannot write " + path + ": File too large");
  CHECK(!fs::exists(path));
  CHECK(error_of([&] { write_png(nowhere, noise(2, 2)); }) ==
        "[image] cannot create " + nowhere + ": No such file or directory");
  CHECK(error_of([&] {
          write_png(path, {2, 2, {1, 2, 3}});
        }) == "[image] " + path + ": 2 x 2 pixels need 12 bytes, not 3");
  CHECK(contains(error_of([&] { write_png(path, {}); }), "0 x 0 pixels"));
  CHECK(fs::is_empty(folder.path));
}

TEST_CASE("image paths stay within their folder") {
  const Folder folder;
  const std::string images = folder / "images";
  fs::create_directories(images + "/sub");
  write_bytes(folder / "outside.png", "x");
  write_bytes(images + "/in.png", "x");
  write_bytes(images + "/sub/in.png", "x");
  fs::create_symlink(folder / "outside.png", images + "/link.png");
  fs::create_symlink(folder.path, images + "/up");
  fs::create_symlink("in.png", images + "/inner.png");
  fs::create_symlink("nowhere.png", images + "/dangling.png");
  for (const char* good : {"in.png", "sub/in.png", "inner.png", "./sub/in.png"})
    CHECK(resolve_image(images, good) == fs::path(images) / good);

  ImageFolder reused(images);
  const auto refuses = [&](const std::string& path, const std::string& reason) {
    for (int again = 0; again < 2; ++again) {  // the cache does not change the result
      const std::string error = error_of([&] { reused.resolve(path); });
      CHECK_MESSAGE(contains(error, reason), path, ": ", error);
    }
  };
  refuses("/" + images + "/in.png", "is absolute");
  refuses("../outside.png", "'../outside.png' leads out of its folder");
  refuses("sub/../../outside.png", "leads out of its folder");
  refuses("link.png", "'link.png' leads out of its folder through a symbolic link");
  refuses("up/outside.png", "leads out of its folder through a symbolic link");
  refuses("dangling.png", "no such file: " + images + "/dangling.png");
  refuses("missing.png", "no such image file: " + images + "/missing.png");
  refuses("no/missing.png", "no such file: " + images + "/no");
  refuses("sub", "no such image file: " + images + "/sub");
  refuses("", "is empty or has a NUL");
  refuses(std::string("in.png\0x", 8), "is empty or has a NUL");
  refuses(std::string(5000, 'a'), "no such image file");
  CHECK(error_of([&] { ImageFolder(folder / "no"); }) ==
        "[image] " + (folder / "no") + " is not a directory");
  CHECK(contains(error_of([&] { ImageFolder(images + "/in.png"); }), "is not a directory"));
}

TEST_CASE("padding and resizing") {
  const Image tall = noise(1, 4), wide = noise(4, 2);
  const std::array<float, 3> mean{0.48145466f, 0.4578275f, 0.40821073f};
  const uint8_t fill[3] = {122, 116, 104};
  const Image a = pad_to_square(tall, mean), b = pad_to_square(wide, mean);
  for (int y = 0; y < 4; ++y)
    for (int x = 0; x < 4; ++x)
      for (int c = 0; c < 3; ++c) {
        const auto at = static_cast<size_t>((y * 4 + x) * 3 + c);
        CHECK(a.rgb[at] == (x == 1 ? tall.rgb[static_cast<size_t>(y * 3 + c)] : fill[c]));
        CHECK(b.rgb[at] == (y == 1 || y == 2 ? wide.rgb[at - 12] : fill[c]));
      }
  CHECK(pad_to_square(noise(3, 3), mean).rgb == noise(3, 3).rgb);
  const Image flat{5, 3, std::vector<uint8_t>(45, 77)};
  CHECK(resize_bicubic(flat, 9, 2).rgb == std::vector<uint8_t>(54, 77));
  CHECK(resize_bicubic(wide, 4, 2).rgb == wide.rgb);
  CHECK_THROWS_AS(resize_bicubic(flat, 0, 2), Error);
}

TEST_CASE("preprocessing does not resample an image of the target size") {
  ImageSettings settings;
  settings.size = 4;
  const Image image = noise(4, 4), wide = noise(4, 2);
  const Tensor x = preprocess(image, settings);
  CHECK(x.shape() == Shape{3, 4, 4});
  for (size_t c = 0; c < 3; ++c)
    for (size_t i = 0; i < 16; ++i) {
      const double value = image.rgb[i * 3 + c] / 255.0;
      CHECK(x.data<float>()[c * 16 + i] ==
            Approx((value - settings.mean[c]) / settings.std[c]).epsilon(1e-5));
    }
  const Tensor direct = preprocess(wide, settings);
  CHECK(std::abs(direct.data<float>()[0]) < 0.02f);  // the mean colour, truncated to an integer
  CHECK_THROWS_AS(preprocess({}, settings), Error);
}

TEST_CASE("preprocessing pads as pad_to_square does") {
  ImageSettings settings;
  settings.size = 7;
  for (const Image& image : {noise(4, 2), noise(7, 3), noise(3, 7), noise(20, 9), noise(9, 20), noise(61, 1),
                             noise(1, 61), noise(12, 12)}) {
    const Tensor padded = preprocess(pad_to_square(image, settings.mean), settings);
    const Tensor direct = preprocess(image, settings);
    CHECK(std::equal(direct.data<float>(), direct.data<float>() + direct.numel(), padded.data<float>()));
  }
}

TEST_CASE("preprocessing of a long thin image does not allocate its square") {
  const rusage before = usage();
  const Image thin{16384, 1, std::vector<uint8_t>(16384 * 3, 9)};
  CHECK(preprocess(thin, {}).numel() == 3 * 336 * 336);
  CHECK(usage().ru_maxrss - before.ru_maxrss < 200 << 10);  // KiB; the square is 800 MB
}
