#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "data/text/text_steps.h"
#include "tensor/check.h"

namespace burrow::data {
namespace {

// Limit of match attempts in one search; real patterns need a few hundred for a text of any length.
constexpr uint32_t kMostAttempts = 1'000'000;

std::string message_of(int code) {
  char text[256] = {};
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof text);
  return text;
}

}  // namespace

Pattern::Pattern(const std::string& pattern, bool literal, const std::string& where) {
  for (const char* token : {"\\b", "\\B", "\\h", "\\H", "\\w", "\\W", "&&"})
    BURROW_CHECK(literal || pattern.find(token) == pattern.npos,
                 "{}: pattern '{}' is not supported: it uses {}", where, pattern, token);
  int error = 0;
  PCRE2_SIZE at = 0;
  auto* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    literal ? PCRE2_UTF | PCRE2_LITERAL : PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C,
                    &error, &at, nullptr);
  BURROW_CHECK(code, "{}: pattern '{}', character {}: {}", where, pattern, at, message_of(error));
  code_ = {code, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); }};
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without a JIT the pattern is interpreted
}

void Pattern::each(std::string_view text, const std::function<void(std::string_view, bool)>& f) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
      pcre2_match_data_create_from_pattern(code, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> limits(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  BURROW_CHECK(data && limits, "[tokenizer] no memory for a pattern");
  pcre2_set_match_limit(limits.get(), kMostAttempts);
  const auto search = [&](size_t from, uint32_t options) {
    return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       options | PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, data.get(), limits.get());
  };
  size_t done = 0;
  while (done < text.size()) {
    int found = search(done, 0);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = search(done, PCRE2_NO_JIT);
    if (found == PCRE2_ERROR_NOMATCH) break;
    BURROW_CHECK(found >= 0, "[tokenizer] a pattern of the file fails on a text of {} bytes: {}", text.size(),
                 message_of(found));
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
    const size_t begin = range[0], end = range[1];
    BURROW_CHECK(done <= begin && begin < end, "[tokenizer] a pattern of the file matches backwards");  // \K
    if (begin > done) f(text.substr(done, begin - done), false);
    f(text.substr(begin, end - begin), true);
    done = end;
  }
  if (done < text.size()) f(text.substr(done), false);
}

}  // namespace burrow::data
