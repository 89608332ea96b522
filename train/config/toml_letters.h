#pragma once
// TOML allows non-ASCII letters only in strings and comments. toml++ 3.3 has undefined behaviour for most of
// them elsewhere, so the text is checked before it is parsed.
#include <cstdint>
#include <optional>
#include <string_view>

namespace burrow::train {

// The line of the first non-ASCII letter on which toml++ has undefined behaviour: one outside of strings and
// comments, after a backslash, or first on a line that a backslash continues. None: the text is safe to
// parse.
std::optional<int64_t> line_of_stray_letter(std::string_view text);

}  // namespace burrow::train
