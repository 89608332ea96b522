#pragma once
// Base64 (RFC 4648, section 4), the encoding of images in benchmark tables.
#include <optional>
#include <string>
#include <string_view>

namespace burrow::data {

// Encodes bytes, with padding and without line breaks.
std::string base64(std::string_view bytes);
// Decodes text. White space is skipped and padding may be missing. Returns nothing for a character outside
// the alphabet or an impossible length.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace burrow::data
