#pragma once
// Reading and writing safetensors files. Every rule of the format is enforced on reading: header size, UTF-8,
// JSON without duplicate keys, known dtypes, offsets that tile the file exactly. Values are not checked.
// Source of the rules: the format's README and the tests of its reference implementation. One rule is our
// own: at most 64 dimensions.
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace burrow {

struct SafetensorsFile {
  // Views of the mapped file, which lives as long as they do; a tensor that is not aligned to its element
  // size there is a copy. The mapping is read-only: clone() before writing.
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

// Maps the file and checks all of it; errors name the file and the tensor. F64, F32, BF16 and I32 are
// supported; other dtypes of the format are an error.
SafetensorsFile read_safetensors(const std::string& path);
// The same checks on bytes in memory (the fuzz target's entry); tensors own copies. `name` is for errors.
SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& name);

// Writes with write_file_atomically: readers never see a partial file. The data begins at a multiple of 64
// bytes and holds the tensors in the given order; putting wide dtypes first keeps all aligned. Throws if a
// name is duplicate, reserved or not UTF-8, if a tensor is undefined, and on a write error.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace burrow
