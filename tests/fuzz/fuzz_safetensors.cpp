// libFuzzer target: any bytes either become tensors or are rejected with an Error.
//   scripts/fuzz safetensors
#include "tensor/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file = burrow::parse_safetensors(std::as_bytes(std::span(data, size)), "fuzz");
    // Reads every byte of each tensor, so that the sanitizer detects a size that is too large.
    volatile unsigned sum = 0;
    for (const auto& [name, t] : file.tensors) {
      for (size_t i = 0; i < t.nbytes(); ++i) sum = sum + static_cast<unsigned>(t.bytes()[i]);
    }
  } catch (const burrow::Error&) {
  }
  return 0;
}
