#include "data/text/text_steps.h"

#include <utf8proc.h>

#include <array>
#include <cstdlib>
#include <map>

#include "data/json.h"
#include "tensor/utf8.h"

namespace burrow::data {
namespace {

using nlohmann::json;

constexpr const char* kReplacement = "\uFFFD";
// GPT-2's pattern, which ByteLevel uses with use_regex.
constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const bool hit = text.substr(i).starts_with(from);
    out += hit ? to : text.substr(i, 1);
    i += hit ? from.size() : 1;
  }
  return out;
}

std::string utf8_of(unsigned c) {  // c < 0x800
  if (c < 0x80) return std::string(1, static_cast<char>(c));
  return {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
}

// GPT-2's characters for bytes: printable Latin-1 bytes map to themselves, the others to 256, 257, ...
const std::array<std::string, 256>& byte_characters() {
  static const auto table = [] {
    std::array<std::string, 256> t;
    unsigned next = 256;
    for (unsigned b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      t[b] = utf8_of(printable ? b : next++);
    }
    return t;
  }();
  return table;
}

std::string to_characters(std::string_view bytes) {
  std::string out;
  for (const char b : bytes) out += byte_characters()[static_cast<uint8_t>(b)];
  return out;
}

// The bytes of a token of such characters; a token with any other character is returned unchanged.
std::string to_bytes(const std::string& token) {
  static const auto bytes = [] {
    std::map<std::string, char, std::less<>> m;
    for (unsigned b = 0; b < 256; ++b) m[byte_characters()[b]] = static_cast<char>(b);
    return m;
  }();
  std::string out;
  for (size_t i = 0; i < token.size();) {
    const size_t length = utf8_step(token, i).bytes;
    const auto it = bytes.find(std::string_view(token).substr(i, length));
    if (it == bytes.end()) return token;
    out += it->second;
    i += length;
  }
  return out;
}

std::string repaired(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    const Utf8Step step = utf8_step(bytes, i);
    out += step.valid ? bytes.substr(i, step.bytes) : kReplacement;
    i += step.bytes;
  }
  return out;
}

std::string unicode_form(const std::string& text, int options) {
  utf8proc_uint8_t* made = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                 static_cast<utf8proc_ssize_t>(text.size()), &made,
                                 static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
  BURROW_CHECK(size >= 0, "[tokenizer] utf8proc: {}", utf8proc_errmsg(size));
  std::string out(reinterpret_cast<const char*>(made), static_cast<size_t>(size));
  std::free(made);
  return out;
}

// The byte of a token <0xHH>; -1 for any other token.
int byte_of(const std::string& token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  if (!std::isxdigit(static_cast<uint8_t>(token[3])) || !std::isxdigit(static_cast<uint8_t>(token[4])))
    return -1;
  return std::stoi(token.substr(3, 2), nullptr, 16);
}

// Decodes each run of byte tokens as UTF-8; an invalid run becomes one U+FFFD per byte.
Pieces join_bytes(const Pieces& tokens) {
  Pieces out;
  std::string run;
  const auto flush = [&] {
    if (is_utf8(run)) {
      if (!run.empty()) out.push_back(run);
    } else {
      for (size_t i = 0; i < run.size(); ++i) out.emplace_back(kReplacement);
    }
    run.clear();
  };
  for (const std::string& token : tokens) {
    if (const int byte = byte_of(token); byte >= 0) {
      run += static_cast<char>(byte);
      continue;
    }
    flush();
    out.push_back(token);
  }
  flush();
  return out;
}

std::string fused(const Pieces& tokens) {
  std::string text;
  for (const std::string& token : tokens) text += token;
  return text;
}

std::string stripped(std::string token, const std::string& content, int64_t start, int64_t stop) {
  for (int64_t i = 0; i < start && token.starts_with(content); ++i) token.erase(0, content.size());
  for (int64_t i = 0; i < stop && token.ends_with(content); ++i) token.erase(token.size() - content.size());
  return token;
}

// Limits growth: steps repeated in a file must not expand a short text until it fills memory.
void check_size(const Pieces& pieces, size_t given) {
  size_t size = 0;
  for (const std::string& p : pieces) size += p.size();
  BURROW_CHECK(size <= 64 * given + 65536, "[tokenizer] the file's steps expand {} bytes to {}", given, size);
}

}  // namespace

// Reads one part of a file; `part` is its name in errors.
struct StepReader {
  TextSteps& steps;
  const std::string& where;
  std::string part;

  [[noreturn]] void unsupported(const std::string& what, const std::string& supported) const {
    fail("{}: {} {} is not supported, only {}", where, part, what, supported);
  }
  // A boolean option; `otherwise` when it is missing.
  bool flag(const json& step, const char* key, bool otherwise) const {
    const auto it = step.find(key);
    if (it == step.end()) return otherwise;
    BURROW_CHECK(it->is_boolean(), "{}: {}.{} must be true or false, not {}", where, part, key,
                 it->type_name());
    return it->get<bool>();
  }
  int64_t count(const json& step, const char* key) const {
    const json& value = member(step, key, where + " " + part);
    BURROW_CHECK(value.is_number_unsigned() && value.get<uint64_t>() < 1000,
                 "{}: {}.{} must be an integer from 0 to 999", where, part, key);
    return value.get<int64_t>();
  }
  std::string text(const json& step, const char* key) const {
    const std::string& value = string_member(step, key, where + " " + part);
    BURROW_CHECK(!value.empty(), "{}: {}.{} is empty", where, part, key);
    return value;
  }
  // {"String": s}
  std::string string_pattern(const json& step) const {
    const json& pattern = member(step, "pattern", where + " " + part);
    if (!pattern.is_object() || !pattern.contains("String")) unsupported("pattern", "a String");
    return text(pattern, "String");
  }

  // Calls f for each step of a part: one step, a Sequence of steps under the key `list`, or null.
  template <class F>
  void each(const json& step, const char* list, F&& f, int depth = 0) const {
    if (step.is_null()) return;
    const std::string& type = string_member(step, "type", where + " " + part);
    if (type != "Sequence") return f(step, type);
    BURROW_CHECK(depth < 8, "{}: {} has sequences nested more than 8 deep", where, part);
    const json& steps_of = member(step, list, where + " " + part);
    BURROW_CHECK(steps_of.is_array(), "{}: {}.{} must be an array, not {}", where, part, list,
                 steps_of.type_name());
    for (const json& s : steps_of) each(s, list, f, depth + 1);
  }

  void normalizer(const json& step, const std::string& type) const {
    static const std::map<std::string, int> forms = {{"NFC", UTF8PROC_COMPOSE},
                                                     {"NFD", UTF8PROC_DECOMPOSE},
                                                     {"NFKC", UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                                                     {"NFKD", UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};
    if (const auto form = forms.find(type); form != forms.end()) {
      steps.normalizers_.emplace_back(
          [options = form->second](std::string& s, Place) { s = unicode_form(s, options); });
    } else if (type == "Prepend") {
      steps.normalizers_.emplace_back([prefix = text(step, "prepend")](std::string& s, Place place) {
        if (place != Place::inside && !s.empty()) s.insert(0, prefix);
      });
    } else if (type == "Replace") {
      const std::string& to = string_member(step, "content", where + " " + part);
      steps.normalizers_.emplace_back(
          [from = string_pattern(step), to](std::string& s, Place) { s = replaced(s, from, to); });
    } else {
      unsupported("'" + type + "'", "NFC, NFD, NFKC, NFKD, Prepend, Replace and Sequence");
    }
  }

  void cut(const json& step, const std::string& type) const {
    if (type == "Split") {
      const json& given = member(step, "pattern", where + " " + part);
      const bool literal = given.is_object() && given.contains("String");
      const std::string& behavior = string_member(step, "behavior", where + " " + part);
      const bool invert = flag(step, "invert", false);
      if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert))
        unsupported(fmt::format("Split with behavior '{}' and invert {}", behavior, invert),
                    "Isolated with false and Removed with true");
      split(Pattern(text(given, literal ? "String" : "Regex"), literal, where), !invert);
    } else if (type == "Digits") {
      split(Pattern(flag(step, "individual_digits", false) ? "\\p{N}" : "\\p{N}+", false, where), true);
    } else if (type == "ByteLevel") {
      if (flag(step, "add_prefix_space", true)) prefix(" ", true);
      if (flag(step, "use_regex", true)) split(Pattern(kGpt2, false, where), true);
      steps.cuts_.emplace_back([](Pieces pieces, Place) {
        for (std::string& p : pieces) p = to_characters(p);
        return pieces;
      });
    } else if (type == "Metaspace") {
      metaspace(step);
    } else {
      unsupported("'" + type + "'", "Split, Digits, ByteLevel, Metaspace and Sequence");
    }
  }

  void split(const Pattern& pattern, bool keep_rest) const {
    steps.cuts_.emplace_back([pattern, keep_rest](const Pieces& pieces, Place) {
      Pieces out;
      for (const std::string& p : pieces)
        pattern.each(p, [&](std::string_view s, bool match) {
          if (match || keep_rest) out.emplace_back(s);
        });
      return out;
    });
  }

  // Puts `text` before pieces that do not begin with it: all of them if `always`, else only the first.
  void prefix(const std::string& text, bool always) const {
    steps.cuts_.emplace_back([text, always](Pieces pieces, Place place) {
      for (size_t i = 0; i < pieces.size(); ++i) {
        const bool here = i > 0 ? always : place == Place::start || (always && place == Place::after_token);
        if (here && !pieces[i].starts_with(text)) pieces[i].insert(0, text);
      }
      return pieces;
    });
  }

  // Whether Metaspace puts its mark before a text: "always", "first" or "never".
  std::string scheme(const json& step) const {
    if (!step.contains("prepend_scheme")) return flag(step, "add_prefix_space", true) ? "always" : "never";
    std::string given = text(step, "prepend_scheme");
    if (given != "always" && given != "first" && given != "never")
      unsupported("prepend_scheme '" + given + "'", "always, first and never");
    return given;
  }
  void metaspace(const json& step) const {
    const std::string mark = text(step, "replacement");
    steps.cuts_.emplace_back([mark](Pieces pieces, Place) {
      for (std::string& p : pieces) p = replaced(p, " ", mark);
      return pieces;
    });
    if (const std::string when = scheme(step); when != "never") prefix(mark, when == "always");
    if (!flag(step, "split", true)) return;
    steps.cuts_.emplace_back([mark](const Pieces& pieces, Place) {
      Pieces out;
      for (const std::string& p : pieces) {
        for (size_t begin = 0; begin < p.size();) {
          const size_t end = std::min(p.find(mark, begin + 1), p.size());
          out.push_back(p.substr(begin, end - begin));
          begin = end;
        }
      }
      return out;
    });
  }

  void decoder(const json& step, const std::string& type) const {
    if (type == "ByteLevel") {
      steps.decoders_.emplace_back([](Pieces tokens) {
        for (std::string& t : tokens) t = to_bytes(t);
        return Pieces{repaired(fused(tokens))};
      });
    } else if (type == "ByteFallback") {
      steps.decoders_.emplace_back(join_bytes);
    } else if (type == "Fuse") {
      steps.decoders_.emplace_back([](const Pieces& tokens) { return Pieces{fused(tokens)}; });
    } else if (type == "Replace") {
      const std::string& to = string_member(step, "content", where + " " + part);
      steps.decoders_.emplace_back([from = string_pattern(step), to](Pieces tokens) {
        for (std::string& t : tokens) t = replaced(t, from, to);
        return tokens;
      });
    } else if (type == "Strip") {
      steps.decoders_.emplace_back([content = text(step, "content"), start = count(step, "start"),
                                    stop = count(step, "stop")](Pieces tokens) {
        for (std::string& t : tokens) t = stripped(t, content, start, stop);
        return tokens;
      });
    } else if (type == "Metaspace") {
      steps.decoders_.emplace_back(
          [mark = text(step, "replacement"), drop = scheme(step) != "never"](Pieces tokens) {
            for (size_t i = 0; i < tokens.size(); ++i)
              tokens[i] = replaced(tokens[i], mark, i == 0 && drop ? "" : " ");
            return tokens;
          });
    } else {
      unsupported("'" + type + "'", "ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace and Sequence");
    }
  }
};

TextSteps::TextSteps(const json& file, const std::string& where) {
  const auto part = [&](const char* name) { return file.contains(name) ? file[name] : json(nullptr); };
  const StepReader normalizer{*this, where, "normalizer"}, cut{*this, where, "pre_tokenizer"},
      decoder{*this, where, "decoder"};
  normalizer.each(part("normalizer"), "normalizers",
                  [&](const json& s, const std::string& t) { normalizer.normalizer(s, t); });
  cut.each(part("pre_tokenizer"), "pretokenizers",
           [&](const json& s, const std::string& t) { cut.cut(s, t); });
  decoder.each(part("decoder"), "decoders",
               [&](const json& s, const std::string& t) { decoder.decoder(s, t); });
}

Pieces TextSteps::pieces(std::string_view text, Place place) const {
  BURROW_CHECK(is_utf8(text), "[tokenizer] a text is not UTF-8");
  Pieces pieces{std::string(text)};
  for (const auto& step : normalizers_) {
    step(pieces[0], place);
    check_size(pieces, text.size());
  }
  if (pieces[0].empty()) return {};
  for (const auto& step : cuts_) {
    pieces = step(std::move(pieces), place);
    check_size(pieces, text.size());
  }
  return pieces;
}

std::string TextSteps::join(Pieces tokens) const {
  if (decoders_.empty()) {  // as Hugging Face does
    std::string text;
    for (const std::string& t : tokens) text += (text.empty() ? "" : " ") + t;
    return text;
  }
  const size_t given = fused(tokens).size();
  for (const auto& step : decoders_) {
    tokens = step(std::move(tokens));
    check_size(tokens, given);
  }
  return fused(tokens);
}

}  // namespace burrow::data
