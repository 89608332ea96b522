#pragma once
// A temporary folder for a test case, removed by the destructor.
#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <iterator>
#include <string>

#include "tensor/files.h"

namespace burrow {

struct Folder {
  std::string path = (std::filesystem::temp_directory_path() / "burrow_XXXXXX").string();
  Folder() { REQUIRE(::mkdtemp(path.data())); }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return path + "/" + name; }
  // Writes `text` to the file of this name and returns its path.
  std::string put(const std::string& name, const std::string& text) const {
    const std::string file = *this / name;
    std::filesystem::create_directories(std::filesystem::path(file).parent_path());
    write_file_atomically(file, text);
    return file;
  }
  size_t count() const {  // number of entries
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path), {}));
  }
};

}  // namespace burrow
