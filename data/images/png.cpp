// PNG through libpng. libpng reports errors by longjmp, which must not skip a destructor: every object that
// owns something lives in the caller of the function that calls setjmp, and those functions hold plain
// values only.
#include <png.h>

#include <cerrno>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>

#include "data/images/image.h"
#include "tensor/check.h"

namespace burrow::data {
namespace {

using File = std::unique_ptr<FILE, int (*)(FILE*)>;

struct Message {
  char text[256] = "";
};

[[noreturn]] void on_error(png_structp png, png_const_charp text) {
  auto* message = static_cast<Message*>(png_get_error_ptr(png));
  std::snprintf(message->text, sizeof(message->text), "%s", text);
  longjmp(png_jmpbuf(png), 1);
}
void on_warning(png_structp, png_const_charp) {}

struct Reader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  Message message;

  Reader() {
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &message, on_error, on_warning);
    if (png != nullptr) info = png_create_info_struct(png);
  }
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
};

bool read_header(Reader& r, FILE* file) {
  if (setjmp(png_jmpbuf(r.png))) return false;
  png_init_io(r.png, file);
  // The caller checks the limit, to name both numbers in its error; libpng's own is a million per side.
  png_set_user_limits(r.png, 0x7fffffff, 0x7fffffff);
  // Skips text and profile chunks: they are not used, and a thousand of them may unpack to 8 MB each.
  png_set_keep_unknown_chunks(r.png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_read_info(r.png, r.info);
  return true;
}

bool read_rows(Reader& r, png_bytep* rows, size_t expected_row_bytes) {
  if (setjmp(png_jmpbuf(r.png))) return false;
  png_set_scale_16(r.png);
  png_set_expand(r.png);  // palette to RGB, short greys to 8 bits, transparency chunk to alpha
  png_set_gray_to_rgb(r.png);
  png_set_strip_alpha(r.png);
  png_set_interlace_handling(r.png);
  png_read_update_info(r.png, r.info);
  if (png_get_rowbytes(r.png, r.info) != expected_row_bytes) png_error(r.png, "unexpected size of a row");
  png_read_image(r.png, rows);
  png_read_end(r.png, nullptr);
  return true;
}

struct Writer {
  png_structp png = nullptr;
  png_infop info = nullptr;
  Message message;
  std::vector<uint8_t> bytes;

  Writer() {
    png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &message, on_error, on_warning);
    if (png != nullptr) info = png_create_info_struct(png);
  }
  ~Writer() { png_destroy_write_struct(&png, &info); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
};

void append(png_structp png, png_bytep data, size_t size) {
  auto* bytes = static_cast<std::vector<uint8_t>*>(png_get_io_ptr(png));
  bool full = false;
  try {
    bytes->insert(bytes->end(), data, data + size);
  } catch (const std::bad_alloc&) {
    full = true;  // an exception must not cross libpng, and longjmp must not leave a handler
  }
  if (full) png_error(png, "out of memory");
}

bool encode(Writer& w, const Image& image) {
  if (setjmp(png_jmpbuf(w.png))) return false;
  png_set_write_fn(w.png, &w.bytes, append, nullptr);
  png_set_compression_level(w.png, 1);
  png_set_filter(w.png, PNG_FILTER_TYPE_BASE, PNG_FILTER_NONE);
  png_set_IHDR(w.png, w.info, static_cast<png_uint_32>(image.width), static_cast<png_uint_32>(image.height),
               8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  png_write_info(w.png, w.info);
  for (int y = 0; y < image.height; ++y)
    png_write_row(w.png, image.rgb.data() + static_cast<size_t>(y) * image.width * 3);
  png_write_end(w.png, w.info);
  return true;
}

Image decode(FILE* file, const std::string& name, const ImageLimit& limit) {
  uint8_t signature[8] = {};
  const size_t got = std::fread(signature, 1, sizeof(signature), file);
  BURROW_CHECK(got == sizeof(signature) && png_sig_cmp(signature, 0, sizeof(signature)) == 0,
               "[image] {} is not a PNG file: wrong signature", name);
  std::rewind(file);

  Reader reader;
  BURROW_CHECK(reader.png != nullptr && reader.info != nullptr, "[image] {}: cannot initialise libpng", name);
  BURROW_CHECK(read_header(reader, file), "[image] {}: {}", name, reader.message.text);
  const int64_t width = png_get_image_width(reader.png, reader.info);
  const int64_t height = png_get_image_height(reader.png, reader.info);
  BURROW_CHECK(width <= limit.side && height <= limit.side && width * height <= limit.pixels,
               "[image] {}: {} x {} pixels are over the limit of {} a side and {} in all", name, width,
               height, limit.side, limit.pixels);

  Image image{static_cast<int>(width), static_cast<int>(height), {}};
  image.rgb.resize(static_cast<size_t>(width * height * 3));
  std::vector<png_bytep> rows(static_cast<size_t>(height));
  for (size_t y = 0; y < rows.size(); ++y) rows[y] = image.rgb.data() + y * static_cast<size_t>(width) * 3;
  BURROW_CHECK(read_rows(reader, rows.data(), static_cast<size_t>(width) * 3), "[image] {}: {}", name,
               reader.message.text);
  return image;
}

}  // namespace

Image read_png(const std::filesystem::path& path, const ImageLimit& limit) {
  const File file(std::fopen(path.c_str(), "rb"), std::fclose);
  BURROW_CHECK(file != nullptr, "[image] cannot open {}: {}", path.string(), std::strerror(errno));
  return decode(file.get(), path.string(), limit);
}

Image parse_png(std::span<const std::byte> bytes, const std::string& name, const ImageLimit& limit) {
  // The const_cast is safe: a stream opened for reading writes nothing.
  const File file(fmemopen(const_cast<std::byte*>(bytes.data()), bytes.size(), "rb"), std::fclose);
  BURROW_CHECK(file != nullptr, "[image] {}: {}", name, std::strerror(errno));
  return decode(file.get(), name, limit);
}

namespace {

void encode_checked(Writer& writer, const Image& image, const std::string& name) {
  BURROW_CHECK(image.width > 0 && image.height > 0 &&
                   image.rgb.size() == static_cast<size_t>(image.width) * image.height * 3,
               "[image] {}: {} x {} pixels need {} bytes, not {}", name, image.width, image.height,
               static_cast<int64_t>(image.width) * image.height * 3, image.rgb.size());
  BURROW_CHECK(writer.png != nullptr && writer.info != nullptr, "[image] {}: cannot initialise libpng", name);
  BURROW_CHECK(encode(writer, image), "[image] {}: {}", name, writer.message.text);
}

}  // namespace

std::string encode_png(const Image& image) {
  Writer writer;
  encode_checked(writer, image, "an image in memory");
  return {writer.bytes.begin(), writer.bytes.end()};
}

void write_png(const std::filesystem::path& path, const Image& image) {
  Writer writer;
  encode_checked(writer, image, path.string());
  FILE* file = std::fopen(path.c_str(), "wb");
  BURROW_CHECK(file != nullptr, "[image] cannot create {}: {}", path.string(), std::strerror(errno));
  errno = 0;
  const bool written = std::fwrite(writer.bytes.data(), 1, writer.bytes.size(), file) == writer.bytes.size();
  int error = errno;
  const bool closed = std::fclose(file) == 0;  // a full disk may be reported only here
  if (written && closed) return;
  if (written) error = errno;
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  fail("[image] cannot write {}: {}", path.string(), std::strerror(error));
}

}  // namespace burrow::data
