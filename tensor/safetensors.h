#pragma once
// safetensors, in and out. Every rule of the format is enforced on reading: header size, UTF-8, JSON
// without duplicate keys, known dtypes, offsets that tile the file exactly. NaN is not checked.
// Source of the rules: the format's README and its reference implementation's tests.
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace burrow {

struct SafetensorsFile {
  std::map<std::string, Tensor> tensors;        // views into the mapped file, possibly unaligned
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

// Maps the file and checks it whole; errors name the file and the tensor. F64, F32, BF16 and I32 become
// tensors; any other legal dtype is an error that names the tensor.
SafetensorsFile read_safetensors(const std::string& path);
// The same checks on bytes in memory (the fuzz target's entry); tensors own copies. `name` is for errors.
SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& name);

// Writes to `path` + ".tmp", syncs, renames: a reader never sees half a file.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace burrow
