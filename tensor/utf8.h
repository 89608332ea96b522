#pragma once
// Decoding the lengths of UTF-8 characters (Unicode 15, table 3-7): no overlong forms, no surrogates.
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace burrow {

// The first character of text[at..]; if invalid, the bytes that one U+FFFD replaces: the longest prefix of a
// character (Unicode 15, section 3.9).
struct Utf8Step {
  size_t bytes = 1;
  bool valid = false;
};
// The step at text[at], at < text.size().
inline Utf8Step utf8_step(std::string_view text, size_t at) {
  const auto byte = [&](size_t j) -> unsigned { return j < text.size() ? static_cast<uint8_t>(text[j]) : 0; };
  const unsigned lead = byte(at);
  if (lead < 0x80) return {1, true};
  size_t length = 0;
  unsigned low = 0x80, high = 0xbf;  // of the second byte
  if (0xc2 <= lead && lead <= 0xdf) length = 2;
  if (0xe0 <= lead && lead <= 0xef) length = 3;
  if (0xf0 <= lead && lead <= 0xf4) length = 4;
  if (lead == 0xe0) low = 0xa0;
  if (lead == 0xed) high = 0x9f;
  if (lead == 0xf0) low = 0x90;
  if (lead == 0xf4) high = 0x8f;
  for (size_t j = 1; j < length; ++j) {
    if (const unsigned next = byte(at + j); next < low || next > high) return {j, false};
    low = 0x80, high = 0xbf;
  }
  return length == 0 ? Utf8Step{} : Utf8Step{length, true};
}

// Whether the whole text is valid UTF-8.
inline bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = utf8_step(text, i);
    if (!step.valid) return false;
    i += step.bytes;
  }
  return true;
}

}  // namespace burrow
