#pragma once
// TOML allows letters beyond ASCII in strings and comments alone. toml++ 3.3 runs into undefined behaviour on
// most of them elsewhere, so they are looked for before it reads a text.
#include <cstdint>
#include <optional>
#include <string_view>

namespace burrow::train {

// The line of the first letter beyond ASCII that toml++ must not see: outside of strings and comments, behind
// a backslash, or first behind the end of a line that a backslash continues.
std::optional<int64_t> line_of_stray_letter(std::string_view text);

}  // namespace burrow::train
