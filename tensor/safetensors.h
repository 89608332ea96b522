#pragma once
// safetensors, in and out. Every rule of the format is enforced on reading: header size, UTF-8, JSON
// without duplicate keys, known dtypes, offsets that tile the file exactly. NaN is not checked.
// Source of the rules: the format's README and its reference implementation's tests. One rule is our own:
// a tensor has at most 64 dimensions.
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace burrow {

struct SafetensorsFile {
  // Views into the mapped file, which lives as long as they do; a tensor whose address there is not a
  // multiple of its element's size is a copy. The mapping is read-only: clone() before writing.
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

// Maps the file and checks it whole; errors name the file and the tensor. F64, F32, BF16 and I32 become
// tensors; any other legal dtype is an error that names the tensor.
SafetensorsFile read_safetensors(const std::string& path);
// The same checks on bytes in memory (the fuzz target's entry); tensors own copies. `name` is for errors.
SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& name);

// Writes through write_file_atomically: a reader never sees half a file. The data starts at a multiple of
// 64 bytes and holds the tensors in the order given, so tensors of wide dtypes are best put first. Throws
// on a name that is given twice, reserved or not UTF-8, on an undefined tensor, and when the disk refuses.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace burrow
