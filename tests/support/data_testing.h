#pragma once
// Helpers for tests of data/.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "data/sets/dataset.h"
#include "tensor/files.h"
#include "tests/support/errors.h"
#include "tests/support/folder.h"

namespace burrow {

// Every file below a folder with its bytes, but for the lock.
inline std::map<std::string, std::string> tree(const std::string& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(dir))
    if (entry.is_regular_file() && entry.path().filename() != ".lock")
      files[std::filesystem::relative(entry.path(), dir).string()] = read_file(entry.path().string());
  return files;
}

// That two trees have the same names and that only the tokenizer's bytes are equal: of another seed.
inline void check_other_seed(const std::map<std::string, std::string>& files,
                             const std::map<std::string, std::string>& other) {
  REQUIRE(other.size() == files.size());
  for (const auto& [name, bytes] : files)
    CHECK_MESSAGE((other.at(name) == bytes) == (name == "tokenizer.json"), name);
}

inline void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// Replaces the first occurrence of `from` in `text`; there must be one.
inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE_MESSAGE(at != std::string::npos, from);
  return text.replace(at, from.size(), to);
}

inline uint32_t crc(const std::string& bytes) {
  uint32_t c = ~0u;
  for (const char b : bytes) {
    c ^= static_cast<uint8_t>(b);
    for (int k = 0; k < 8; ++k) c = c & 1 ? c >> 1 ^ 0xEDB88320u : c >> 1;
  }
  return ~c;
}

inline std::string big_endian(uint32_t v) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(v >> shift & 255);
  return bytes;
}

// A PNG file with a changed size in its header and a correct checksum.
inline std::string with_size(std::string png, uint32_t width, uint32_t height) {
  png.replace(16, 8, big_endian(width) + big_endian(height));
  return png.replace(29, 4, big_endian(crc(png.substr(12, 17))));
}

namespace data {

inline const std::vector<std::string> words{"p", "q", "r", "what", "is", "yes", "no", "USER:", "ASSISTANT:"};
// A word-level tokenizer: <unk> 0, <bos> 1, <sep> 2, <eos> 3, then the words from id 4.
inline Tokenizer small_tokenizer() { return Tokenizer::of({"<unk>", "<bos>", "<sep>", "<eos>"}, words); }

// A record of 9 tokens, of which 4 are visual and 2 supervised.
inline const std::string with_image =
    R"({"id":"0","image":"i.png","type":"t","conversations":[)"
    R"({"from":"human","value":"<image>\nwhat p"},{"from":"gpt","value":"yes"}]})";
// A record of 9 tokens, of which 5 are supervised.
inline const std::string two_turns =
    R"({"type":"u","conversations":[{"from":"human","value":"p"},{"from":"gpt","value":"q"},)"
    R"({"from":"human","value":"r"},{"from":"gpt","value":"no <eos>"}]})";

// Writes the files of a small data set.
struct Files {
  Folder folder;
  DatasetSettings settings;
  Tokenizer tokenizer = small_tokenizer();

  Files() {
    settings.name = "small";
    settings.file = folder / "d.json";
    settings.images = folder / "images";
    settings.visual_tokens = 4;
    std::filesystem::create_directories(settings.images);
    write_png(settings.images / "i.png", {2, 2, std::vector<uint8_t>(12, 9)});
  }
  void put(const std::string& text) const { write_bytes(settings.file, text); }
  Dataset load() const { return Dataset::load(settings, tokenizer); }
  std::vector<Fault> check() const { return check_dataset(settings, tokenizer); }
  std::string load_error() const {
    return error_of([&] { load(); });
  }
};

}  // namespace data
}  // namespace burrow
