// Lists of fields as text: TOML, Markdown and help.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "train/config/config.h"

namespace burrow::train {
namespace detail {

// A TOML basic string.
std::string toml_string(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const size_t escaped = std::string_view("\"\\\n\t").find(c);
    if (escaped != std::string_view::npos)
      quoted += {'\\', "\"\\nt"[escaped]};
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      quoted += fmt::format("\\u{:04x}", c);
    else
      quoted += c;
  }
  return quoted + "\"";
}

}  // namespace detail
namespace {

std::string toml_value(bool v) { return v ? "true" : "false"; }
std::string toml_value(int64_t v) { return fmt::format("{}", v); }
std::string toml_value(double v) {
  if (std::isnan(v)) return "nan";
  std::string text = fmt::format("{}", v);  // the shortest text that reads back to the same bits
  if (text.find_first_of(".en") == text.npos)
    text += ".0";  // else it would read as an integer; "inf" contains an n
  return text;
}
std::string toml_value(const std::string& v) { return detail::toml_string(v); }
template <class T>
std::string toml_value(const std::vector<T>& items) {
  std::vector<std::string> texts;
  for (const T& item : items) texts.push_back(toml_value(item));
  return fmt::format("[{}]", fmt::join(texts, ", "));
}

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

// For a list of tables only its length, to fit on a line.
std::string value_text(const Field& f) {
  return std::visit(
      Overloaded{[](const auto* v) { return toml_value(*v); },
                 [](const EnumField& e) { return detail::toml_string(e.names[e.get()]); },
                 [](const ListField& l) { return l.size() ? fmt::format("{} entries", l.size()) : "[]"; }},
      f.value);
}

std::string section_of(const std::string& path) {
  const size_t dot = path.rfind('.');
  return dot == path.npos ? "" : path.substr(0, dot);
}
std::string key_of(const std::string& path) { return path.substr(path.rfind('.') + 1); }

// The sections in order of declaration, each once, the root first.
std::vector<std::string> sections_of(const std::vector<Field>& fields) {
  std::vector<std::string> sections{""};
  for (const Field& f : fields) {
    const std::string section = section_of(f.path);
    if (std::find(sections.begin(), sections.end(), section) == sections.end()) sections.push_back(section);
  }
  return sections;
}

const ListField* full_list(const Field& f) {
  const ListField* list = std::get_if<ListField>(&f.value);
  return list && list->size() ? list : nullptr;
}

void comment_on(const Field& f, std::string& text) {
  text += fmt::format("# {}{}{}\n", f.help, f.unit.empty() ? "" : fmt::format(" [{}]", f.unit),
                      std::holds_alternative<EnumField>(f.value) ? fmt::format(": {}", type_of(f)) : "");
}

// TOML requires a table's own keys before the tables below it, so a section is written as keys, then lists.
void write_fields(const std::vector<Field>& fields, const std::string& prefix, bool comments,
                  std::string& text) {
  for (const std::string& section : sections_of(fields)) {
    const auto here = [&](const Field& f) { return section_of(f.path) == section; };
    const auto is_line = [&](const Field& f) { return here(f) && !full_list(f); };
    const bool lines = std::any_of(fields.begin(), fields.end(), is_line);
    if (!section.empty() && lines) text += fmt::format("\n[{}{}]\n", prefix, section);
    for (const Field& f : fields) {
      if (!is_line(f)) continue;
      if (comments) comment_on(f, text);
      text += fmt::format("{} = {}\n", key_of(f.path), value_text(f));
    }
    for (const Field& f : fields) {
      const ListField* list = here(f) ? full_list(f) : nullptr;
      for (size_t i = 0; list && i < list->size(); ++i) {
        text += '\n';
        if (comments && i == 0) comment_on(f, text);
        text += fmt::format("[[{}{}]]\n", prefix, f.path);
        write_fields(list->at(i), prefix + f.path + ".", comments && i == 0, text);
      }
    }
  }
}

struct Row {
  std::string section, key, type, unit, value, help;
};

void add_rows(const std::vector<Field>& fields, const std::string& prefix, std::vector<Row>& rows) {
  for (const std::string& section : sections_of(fields)) {
    for (const Field& f : fields) {
      if (section_of(f.path) != section) continue;
      const std::string where = prefix + section;
      rows.push_back({where.ends_with('.') ? where.substr(0, where.size() - 1) : where, prefix + f.path,
                      type_of(f), f.unit, value_text(f), f.help});
      if (auto* list = std::get_if<ListField>(&f.value))
        add_rows(list->element, prefix + f.path + "[].", rows);
    }
  }
}

std::vector<Row> rows_of(const std::vector<Field>& fields) {
  std::vector<Row> rows;
  add_rows(fields, "", rows);
  // List elements form a section of their own, after the rest of the section that contains the list.
  std::vector<std::string> order;
  for (const Row& r : rows) {
    if (std::find(order.begin(), order.end(), r.section) == order.end()) order.push_back(r.section);
  }
  const auto rank = [&](const Row& r) {
    return std::find(order.begin(), order.end(), r.section) - order.begin();
  };
  std::stable_sort(rows.begin(), rows.end(), [&](const Row& a, const Row& b) { return rank(a) < rank(b); });
  return rows;
}

// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours count 1 each.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  std::iota(d[0].begin(), d[0].end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string nearest_key(std::string_view key, const std::vector<std::string>& known) {
  const std::string bare = key_of(std::string(key));
  std::string best;
  size_t best_distance = std::max<size_t>(2, key.size() / 4) + 1;
  for (const std::string& k : known) {
    // The right key in the wrong section counts as one typing error.
    const std::string last = key_of(k);
    const size_t moved = bare.size() > 1 && last.size() > 1 && bare == last ? 1 : best_distance;
    const size_t distance = std::min(edit_distance(key, k), moved);
    // A candidate that shares no letter with the key is not suggested, however short both are.
    if (distance < best_distance && distance < std::max(bare.size(), last.size())) {
      best = k;
      best_distance = distance;
    }
  }
  return best;
}

std::string type_of(const Field& field) {
  return std::visit(
      Overloaded{[](const bool*) -> std::string { return "boolean"; },
                 [](const int64_t*) -> std::string { return "integer"; },
                 [](const double*) -> std::string { return "number"; },
                 [](const std::string*) -> std::string { return "string"; },
                 [](const std::vector<double>*) -> std::string { return "array of numbers"; },
                 [](const std::vector<int64_t>*) -> std::string { return "array of integers"; },
                 [](const std::vector<std::string>*) -> std::string { return "array of strings"; },
                 [](const EnumField& e) { return fmt::format("{}", fmt::join(e.names, " | ")); },
                 [](const ListField&) -> std::string { return "array of tables"; }},
      field.value);
}

void FieldCollector::add(std::string_view key, Field field) {
  field.path = prefix_ + std::string(key);
  BURROW_CHECK(field.path != "base",
               "[config] the top-level key 'base' names a base file and cannot be a field");
  constexpr std::string_view kLegal = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
  const bool legal = !key.empty() && field.path.find_first_not_of(kLegal) == field.path.npos;
  BURROW_CHECK(legal, "[config] '{}' is not a bare TOML key", field.path);
  for (const Field& f : fields_) {
    const bool nested = f.path.starts_with(field.path + ".") || field.path.starts_with(f.path + ".");
    BURROW_CHECK(f.path != field.path && !nested,
                 "[config] the keys '{}' and '{}' conflict: one equals or is a prefix of the other", f.path,
                 field.path);
  }
  fields_.push_back(std::move(field));
}

std::string fields_to_toml(const std::vector<Field>& fields, bool comments) {
  std::string text;
  write_fields(fields, "", comments, text);
  return text.starts_with('\n') ? text.substr(1) : text;
}

std::string fields_to_markdown(const std::vector<Field>& fields) {
  std::string text, section = "\n";      // differs from every section name
  const auto cell = [](std::string s) {  // an unescaped bar would end the cell
    for (size_t i = 0; (i = s.find('|', i)) != s.npos; i += 2) s.insert(i, "\\");
    return s;
  };
  for (const Row& r : rows_of(fields)) {
    if (r.section != section) {
      text += fmt::format("{}{}| key | type | unit | default | meaning |\n|---|---|---|---|---|\n",
                          text.empty() ? "" : "\n",
                          r.section.empty() ? "" : fmt::format("### `{}`\n\n", r.section));
      section = r.section;
    }
    text += fmt::format("| `{}` | {} | {} | `{}` | {} |\n", r.key, cell(r.type), cell(r.unit), cell(r.value),
                        cell(r.help));
  }
  return text;
}

std::string fields_to_help(const std::vector<Field>& fields) {
  const std::vector<Row> rows = rows_of(fields);
  size_t width = 0;
  for (const Row& r : rows) width = std::max(width, r.key.size());
  std::string text, section;
  for (const Row& r : rows) {
    if (r.section != section) text += fmt::format("\n[{}]\n", r.section);
    section = r.section;
    text += fmt::format("  {:{}}  {}{} (default {})\n  {:{}}  {}\n", r.key, width, r.type,
                        r.unit.empty() ? "" : ", " + r.unit, r.value, "", width, r.help);
  }
  return text;
}

}  // namespace burrow::train
