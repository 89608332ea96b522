#include "train/config/toml_letters.h"

#include <algorithm>

namespace burrow::train {
namespace {

bool is_letter(char c) { return (static_cast<unsigned char>(c) & 0x80) != 0; }

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {
    if (text.starts_with("\xEF\xBB\xBF")) at_ = 3;  // a byte order mark
  }

  std::optional<int64_t> stray() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      bool fine = true;
      if (c == '#')
        at_ = std::min(text_.find('\n', at_), text_.size());
      else if ((c == '"' || c == '\'') && may_begin_string())
        fine = skip_string(c);
      else
        fine = !is_letter(text_[at_++]);
      if (!fine) return 1 + std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(at_), '\n');
    }
    return {};
  }

 private:
  // A quote within a bare word, as in 1"2, does not begin a string: the parser reads to the end of the word.
  bool may_begin_string() const {
    return at_ == 0 || std::string_view(" \t\r\n=[,{\xBF").find(text_[at_ - 1]) != std::string_view::npos;
  }
  size_t quotes(char quote) const {
    return std::min(text_.find_first_not_of(quote, at_), text_.size()) - at_;
  }

  // Expects at_ at the opening quote and moves it past the string. False when the string has a stray letter.
  bool skip_string(char quote) {
    const bool multi_line = quotes(quote) >= 3;
    at_ += multi_line ? 3 : 1;
    while (at_ < text_.size()) {
      const size_t closing = quotes(quote);
      if (!multi_line && (closing > 0 || text_[at_] == '\n')) {
        ++at_;
        return true;
      }
      if (closing >= 3) {
        at_ += std::min<size_t>(closing, 5);  // two quotes may be the string's last characters
        return true;
      }
      if (closing > 0) {
        at_ += closing;
      } else if (quote == '"' && text_[at_] == '\\') {
        if (!skip_escape()) return false;
      } else {
        ++at_;
      }
    }
    return true;
  }

  bool skip_escape() {
    ++at_;
    const size_t next = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size());
    const bool continues = next > at_;
    at_ = next;
    if (at_ < text_.size() && is_letter(text_[at_])) return false;
    at_ += !continues && at_ < text_.size();
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

std::optional<int64_t> line_of_stray_letter(std::string_view text) { return Scanner(text).stray(); }

}  // namespace burrow::train
