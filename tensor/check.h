#pragma once
// How this library fails: it throws an Error whose message names the op and the values.
//   BURROW_CHECK(n == m, "[matmul_nt] x {} and w {}: inner sizes {} and {} differ", ...)
// Nothing here is compiled out in release builds.
#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace burrow {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws an Error with the formatted text.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) {
  throw Error(fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace burrow

#define BURROW_CHECK(condition, ...)               \
  do {                                             \
    if (!(condition)) ::burrow::fail(__VA_ARGS__); \
  } while (0)
