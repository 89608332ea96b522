#pragma once
// Enums whose values have names, in configs and on the command line.
#include <algorithm>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tensor/check.h"

// enum class Name { values }, and its enum_names, which name lookup finds beside it. A value that is named
// otherwise, such as "auto", needs an enum_names written out.
#define BURROW_ENUM(Name, ...)                                        \
  enum class Name { __VA_ARGS__ };                                    \
  inline std::vector<std::pair<std::string, Name>> enum_names(Name) { \
    return ::burrow::named_values<Name>(#__VA_ARGS__);                \
  }

namespace burrow {

// The values 0, 1, ... of an enum by their names in `listed`, "a, b, c".
template <class E>
std::vector<std::pair<std::string, E>> named_values(std::string_view listed) {
  std::vector<std::pair<std::string, E>> values;
  while (!listed.empty()) {
    const size_t end = std::min(listed.find(", "), listed.size());
    values.emplace_back(listed.substr(0, end), static_cast<E>(values.size()));
    listed.remove_prefix(std::min(end + 2, listed.size()));
  }
  return values;
}

// An enum with enum_names.
template <class E>
concept NamedEnum = std::is_enum_v<E> && requires(E e) {
  enum_names(e);
};

// Throws for a value that enum_names does not list.
template <NamedEnum E>
std::string name_of(E value) {
  for (const auto& [name, v] : enum_names(value)) {
    if (v == value) return name;
  }
  fail("[name_of] {} is not in enum_names", static_cast<int>(value));
}

// The value that `text` names. The error lists the names, after `what`: "--split even: one of ...".
template <NamedEnum E>
E value_named(std::string_view what, std::string_view text) {
  std::vector<std::string> names;
  for (const auto& [name, value] : enum_names(E{})) {
    if (text == name) return value;
    names.emplace_back(name);
  }
  fail("{} {}: one of {}", what, text, fmt::join(names, ", "));
}

}  // namespace burrow
