#pragma once
// The message of an error, and whether a text contains another.
#include <string>

#include "tensor/check.h"

namespace burrow {

// The message of the Error that f() throws, or "no error".
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace burrow
