// Decodes JPEG files in memory; published tables hold images in this form.
#include <csetjmp>
#include <cstdio>  // before jpeglib.h, which needs size_t and FILE

#include <jpeglib.h>

#include "data/images/image.h"
#include "tensor/check.h"

namespace burrow::data {
namespace {

// Error state. libjpeg's error_exit must not return: on_error stores the message and jumps out of decode.
struct Failure {
  jpeg_error_mgr manager;
  std::jmp_buf out;
  char message[JMSG_LENGTH_MAX];
};

void on_error(j_common_ptr info) {
  auto* failure = reinterpret_cast<Failure*>(info->err);
  failure->manager.format_message(info, failure->message);
  std::longjmp(failure->out, 1);
}

// Constructs no object with a destructor, which longjmp would skip: `image` and `limit` are the caller's.
bool decode(jpeg_decompress_struct& info, Failure& failure, std::span<const std::byte> bytes,
            const ImageLimit& limit, Image& image) {
  if (setjmp(failure.out)) return false;
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&info, TRUE);
  const int64_t width = info.image_width, height = info.image_height;
  if (width > limit.side || height > limit.side || width * height > limit.pixels) {
    std::snprintf(failure.message, sizeof failure.message, "%lld x %lld pixels are over the limit",
                  static_cast<long long>(width), static_cast<long long>(height));
    return false;
  }
  info.out_color_space = JCS_RGB;
  jpeg_start_decompress(&info);
  image.width = static_cast<int>(width);
  image.height = static_cast<int>(height);
  image.rgb.resize(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = image.rgb.data() + static_cast<size_t>(info.output_scanline) * info.output_width * 3;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  return true;
}

}  // namespace

Image parse_jpeg(std::span<const std::byte> bytes, const std::string& name, const ImageLimit& limit) {
  jpeg_decompress_struct info{};
  Failure failure{};
  info.err = jpeg_std_error(&failure.manager);
  failure.manager.error_exit = on_error;
  failure.manager.output_message = [](j_common_ptr) {};  // silent: warnings are counted and checked below
  Image image;
  const bool sound = decode(info, failure, bytes, limit, image);
  const bool damaged = failure.manager.num_warnings > 0;
  jpeg_destroy_decompress(&info);
  BURROW_CHECK(sound, "[image] {}: {}", name, failure.message);
  BURROW_CHECK(!damaged, "[image] {}: corrupt JPEG file", name);
  return image;
}

}  // namespace burrow::data
