#pragma once
// Helpers of the fuzz targets. A property that fails stops the target, as a crash does.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "tensor/check.h"

namespace burrow {

inline void require(bool holds, const char* property) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", property);
  std::abort();
}

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// A temporary folder, removed at exit; a target that is stopped leaves it behind.
struct FuzzFolder {
  std::filesystem::path path;
  FuzzFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "burrow_fuzz_XXXXXX").string();
    require(::mkdtemp(name.data()) != nullptr, "a temporary folder can be made");
    path = name;
  }
  ~FuzzFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  FuzzFolder(const FuzzFolder&) = delete;
  FuzzFolder& operator=(const FuzzFolder&) = delete;
};

}  // namespace burrow
