#include "data/json.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace burrow::data {
namespace fs = std::filesystem;

std::string read_text(const fs::path& path) {
  std::error_code ignored;
  BURROW_CHECK(!fs::is_directory(path, ignored), "[file] {} is a directory", path.string());
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  BURROW_CHECK(file != nullptr, "[file] cannot open {}: {}", path.string(), std::strerror(errno));
  std::string text;
  const uintmax_t size = fs::file_size(path, ignored);
  if (!ignored) text.reserve(size);
  char block[1 << 16];
  for (size_t got; (got = std::fread(block, 1, sizeof(block), file.get())) > 0;) text.append(block, got);
  BURROW_CHECK(std::ferror(file.get()) == 0, "[file] cannot read {}: {}", path.string(),
               std::strerror(errno));
  return text;
}

void write_text(const fs::path& path, const std::string& text) {
  const fs::path part = path.string() + ".tmp";
  FILE* file = std::fopen(part.c_str(), "wb");
  BURROW_CHECK(file != nullptr, "[file] cannot create {}: {}", part.string(), std::strerror(errno));
  bool good = std::fwrite(text.data(), 1, text.size(), file) == text.size() && std::fflush(file) == 0 &&
              fsync(fileno(file)) == 0;
  int error = errno;
  if (std::fclose(file) != 0 && good) {
    good = false;
    error = errno;
  }
  if (good && std::rename(part.c_str(), path.c_str()) != 0) {
    good = false;
    error = errno;
  }
  if (good) return;
  std::error_code ignored;
  fs::remove(part, ignored);
  fail("[file] cannot write {}: {}", path.string(), std::strerror(error));
}

nlohmann::json parse_json(const fs::path& path) { return parse_json(read_text(path), path.string()); }

nlohmann::json parse_json(std::string_view text, const std::string& name) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& e) {
    fail("[json] {}: {}", name, e.what());
  }
}

}  // namespace burrow::data
