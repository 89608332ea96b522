#pragma once
// Names of an enum's values. An enum that has them lists them in a function beside it, which name lookup
// finds:
//   enum class Gate { none, scaled };
//   inline std::vector<std::pair<const char*, Gate>> enum_names(Gate) {
//     return {{"none", Gate::none}, {"scaled", Gate::scaled}};
//   }
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tensor/check.h"

namespace burrow {

// An enum with such a function.
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
