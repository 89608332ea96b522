#pragma once
// Base64 (RFC 4648, section 4), in which benchmarks keep images in their tables.
#include <optional>
#include <string>
#include <string_view>

namespace burrow::data {

// Bytes as text, with padding and without line breaks.
std::string base64(std::string_view bytes);
// The bytes of text, whose padding may be missing; nothing where a character is none of the alphabet's or
// the length is impossible. White space is skipped.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace burrow::data
