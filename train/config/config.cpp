#include "train/config/config.h"

namespace burrow::train {
namespace {
struct ParserStopped {};
[[noreturn]] void parser_stopped() { throw ParserStopped(); }
}  // namespace
}  // namespace burrow::train
// The header-only toml++ fails an assertion on some malformed input, such as "[[[a]]]".
#define TOML_ASSERT(condition) ((condition) ? void() : ::burrow::train::parser_stopped())
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "tensor/files.h"
#include "train/config/toml_letters.h"

namespace burrow::train {
namespace {

constexpr std::string_view kOverride = "--set ";

// Where a value was written. A copy of a node loses this, a move keeps it: nodes are never copied here.
std::string place(const toml::node& node) {
  const toml::source_region& source = node.source();
  if (!source.path) return "?";
  if (source.path->starts_with(kOverride)) return *source.path;
  return fmt::format("{}:{}", *source.path, source.begin.line);
}

std::string found(const toml::node& node) {
  if (node.is_table()) return "a table";
  if (node.is_array()) return "an array";
  if (node.is_string()) return "a string";
  if (node.is_integer()) return "an integer";
  if (node.is_floating_point()) return "a number with a fraction";
  return node.is_boolean() ? "a boolean" : "a date or time";
}

toml::table parse_table(std::string_view text, const std::string& name) {
  if (const auto line = line_of_stray_letter(text))
    fail("{}:{}: a letter beyond ASCII outside of quotes", name, *line);
  try {
    return toml::parse(text, name);
  } catch (const toml::parse_error& e) {
    fail("{}:{}: {}", name, e.source().begin.line, e.description());
  } catch (const ParserStopped&) {
    fail("{}: malformed TOML that the parser cannot place: look for stray brackets", name);
  }
}

// Moves the values of `over` into `base`.
void merge(toml::table& base, toml::table&& over) {
  for (auto&& item : over) {
    const toml::key& key = item.first;
    toml::node& node = item.second;
    toml::table* below = base[key.str()].as_table();
    if (below && node.is_table()) {
      merge(*below, std::move(*node.as_table()));
    } else {
      node.visit([&](auto& concrete) { base.insert_or_assign(key, std::move(concrete)); });
    }
  }
}

// `chain` holds the files on the way here, to detect a cycle.
toml::table load_table(const std::string& path, std::vector<std::string>& chain) {
  toml::table table = parse_table(read_file(path), path);
  const toml::node* base = table.get("base");
  if (!base) return table;
  const std::string at = place(*base);
  BURROW_CHECK(base->is_string(), "{}: base: expected a string, found {}", at, found(*base));
  namespace fs = std::filesystem;
  const std::string base_path = (fs::path(path).parent_path() / base->as_string()->get()).lexically_normal();
  // Reading a device or a pipe might not end.
  std::error_code error;
  BURROW_CHECK(base_path.find('\0') == std::string::npos && fs::is_regular_file(base_path, error),
               "{}: base: there is no file {}", at, base_path);
  chain.push_back(fs::canonical(path));
  const std::string canonical = fs::canonical(base_path);
  BURROW_CHECK(std::find(chain.begin(), chain.end(), canonical) == chain.end(),
               "{}: base: {} leads back to {}", at, fmt::join(chain, " -> "), canonical);
  toml::table below = load_table(base_path, chain);
  table.erase("base");
  merge(below, std::move(table));
  return below;
}

// "a.b[2].c" as {"a", "b", "[2]", "c"}.
std::vector<std::string> steps_of(std::string_view path) {
  std::vector<std::string> steps;
  std::string step;
  for (char c : path) {
    if (c == '.' || c == '[') {
      steps.push_back(std::exchange(step, ""));
      if (c == '[') step = c;
    } else {
      step += c;
    }
  }
  steps.push_back(step);
  std::erase(steps, "");  // between a bracket and a dot
  return steps;
}

std::optional<size_t> index_of(std::string_view step) {
  size_t index = 0;
  if (!step.starts_with('[') || !step.ends_with(']')) return {};
  const char* end = step.data() + step.size() - 1;
  const auto result = std::from_chars(step.data() + 1, end, index);
  if (result.ec != std::errc() || result.ptr != end) return {};
  return index;
}

const toml::node* node_at(const toml::table& root, std::string_view path) {
  const toml::node* node = &root;
  for (const std::string& step : steps_of(path)) {
    if (const auto index = index_of(step)) {
      node = node && node->is_array() ? node->as_array()->get(*index) : nullptr;
    } else {
      node = node && node->is_table() ? node->as_table()->get(step) : nullptr;
    }
  }
  return node;
}

// The field of a key: "sets[3].name" is the field "name" of the list "sets".
const Field* find_field(const std::vector<Field>& fields, std::string_view path) {
  for (const Field& f : fields) {
    if (f.path == path) return &f;
    const ListField* list = std::get_if<ListField>(&f.value);
    if (!list || !path.starts_with(f.path + "[")) continue;
    const std::string_view rest = path.substr(f.path.size());
    const size_t close = rest.find("].");
    if (close == rest.npos || !index_of(rest.substr(0, close + 1))) continue;
    return find_field(list->element, rest.substr(close + 2));
  }
  return nullptr;
}

// Every valid path: keys, the sections that contain them, keys of list elements.
void add_paths(const std::vector<Field>& fields, const std::string& prefix, std::vector<std::string>& paths) {
  for (const Field& f : fields) {
    for (size_t dot = f.path.find('.'); dot != f.path.npos; dot = f.path.find('.', dot + 1)) {
      const std::string section = prefix + f.path.substr(0, dot);
      if (std::find(paths.begin(), paths.end(), section) == paths.end()) paths.push_back(section);
    }
    paths.push_back(prefix + f.path);
    if (auto* list = std::get_if<ListField>(&f.value))
      add_paths(list->element, prefix + f.path + "[].", paths);
  }
}

[[noreturn]] void unknown_key(const std::string& at, const std::string& path,
                              const std::vector<Field>& fields) {
  std::vector<std::string> paths, indices;
  add_paths(fields, "", paths);
  // Compared without the indices of list elements, which are put back into the suggestion.
  std::string bare;
  for (const std::string& step : steps_of(path)) {
    const bool index = index_of(step).has_value();
    if (index) indices.push_back(step);
    bare += index ? "[]" : (bare.empty() ? "" : ".") + step;
  }
  std::string nearest = nearest_key(bare, paths);
  BURROW_CHECK(nearest != bare || bare.empty(),
               "{}: unknown key '{}': it is a section; one of its keys is expected", at, path);
  for (size_t i = 0, from = 0; i < indices.size() && (from = nearest.find("[]", from)) != nearest.npos; ++i) {
    nearest.replace(from, 2, indices[i]);
    from += indices[i].size();
  }
  fail("{}: unknown key '{}'{}", at, path,
       nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
}

[[noreturn]] void wrong_type(const toml::node& node, const std::string& path, std::string_view expected,
                             std::string_view detail = "") {
  fail("{}: {}: expected {}, found {}{}", place(node), path, expected, found(node), detail);
}

// The value, if the node has this type.
template <class T>
std::optional<T> value_of(const toml::node& node) {
  if constexpr (std::is_same_v<T, double>) {
    constexpr int64_t kExact = int64_t{1} << 53;  // larger integers have no exact double
    if (const auto* i = node.as_integer(); i && -kExact <= i->get() && i->get() <= kExact) {
      return static_cast<double>(i->get());
    }
  }
  return node.value_exact<T>();
}

template <class T>
constexpr std::string_view kName = "";
template <>
constexpr std::string_view kName<bool> = "boolean";
template <>
constexpr std::string_view kName<int64_t> = "integer";
template <>
constexpr std::string_view kName<double> = "number";
template <>
constexpr std::string_view kName<std::string> = "string";

// Reads nodes into fields. `root` is the whole declaration, to find the nearest key.
struct Reader {
  const std::vector<Field>& root;

  void read_table(const toml::table& table, const std::vector<Field>& fields,
                  const std::string& prefix) const {
    refuse_unknown(table, fields, prefix, "");
    for (const Field& f : fields) {
      if (const toml::node* node = node_at(table, f.path)) read_field(*node, f, prefix + f.path);
    }
  }

  // `prefix` is the path from the root to `fields`, `inner` the path from there to `table`.
  void refuse_unknown(const toml::table& table, const std::vector<Field>& fields, const std::string& prefix,
                      const std::string& inner) const {
    for (auto&& [key, node] : table) {
      const std::string path = inner + std::string(key.str());
      const auto is = [&](const Field& f) { return f.path == path; };
      if (std::any_of(fields.begin(), fields.end(), is)) continue;
      const auto within = [&](const Field& f) { return f.path.starts_with(path + "."); };
      const bool section = std::any_of(fields.begin(), fields.end(), within);
      if (!section) unknown_key(place(node), prefix + path, root);
      if (!node.is_table()) wrong_type(node, prefix + path, "a table");
      refuse_unknown(*node.as_table(), fields, prefix, path + ".");
    }
  }

  void read_field(const toml::node& node, const Field& f, const std::string& path) const {
    std::visit([&](const auto& target) { read_value(node, path, target); }, f.value);
  }

  template <class T>
  void read_value(const toml::node& node, const std::string& path, T* target) const {
    const auto value = value_of<T>(node);
    const bool vowel = kName<T> == "integer";
    if (!value) wrong_type(node, path, fmt::format("{} {}", vowel ? "an" : "a", kName<T>));
    *target = *value;
  }

  template <class T>
  void read_value(const toml::node& node, const std::string& path, std::vector<T>* target) const {
    const std::string expected = fmt::format("an array of {}s", kName<T>);
    const toml::array* array = node.as_array();
    if (!array) wrong_type(node, path, expected);
    target->clear();
    for (const toml::node& item : *array) {
      const auto value = value_of<T>(item);
      if (!value) wrong_type(item, path, expected, fmt::format(" as element {}", target->size() + 1));
      target->push_back(*value);
    }
  }

  void read_value(const toml::node& node, const std::string& path, const EnumField& e) const {
    const std::string expected = fmt::format("one of {}", fmt::join(e.names, ", "));
    const auto name = node.value_exact<std::string>();
    if (!name) wrong_type(node, path, expected);
    const auto at = std::find(e.names.begin(), e.names.end(), *name);
    if (at == e.names.end()) {
      const std::string nearest = nearest_key(*name, e.names);
      fail("{}: {}: expected {}, found '{}'{}", place(node), path, expected, *name,
           nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
    }
    e.set(static_cast<size_t>(at - e.names.begin()));
  }

  void read_value(const toml::node& node, const std::string& path, const ListField& list) const {
    const toml::array* array = node.as_array();
    if (!array) wrong_type(node, path, "an array of tables");
    list.resize(array->size());
    for (size_t i = 0; i < array->size(); ++i) {
      const toml::node& item = *array->get(i);
      if (!item.is_table())
        wrong_type(item, path, "an array of tables", fmt::format(" as element {}", i + 1));
      read_table(*item.as_table(), list.at(i), fmt::format("{}[{}].", path, i));
    }
  }
};

// The table at the path `steps`, created where it is missing.
toml::table& table_for(toml::table& root, const std::vector<std::string>& steps, const std::string& at) {
  toml::node* node = &root;
  for (const std::string& step : steps) {
    if (const auto index = index_of(step)) {
      const size_t size = node->is_array() ? node->as_array()->size() : 0;
      BURROW_CHECK(*index < size, "{}: there is no {}; the files give {} entries", at, step, size);
      node = node->as_array()->get(*index);
    } else {
      toml::table* table = node->as_table();
      BURROW_CHECK(table, "{}: {} holds {}, not a table", at, place(*node), found(*node));
      toml::node* next = table->get(step);
      node = next ? next : &table->insert(step, toml::table{}).first->second;
    }
  }
  BURROW_CHECK(node->is_table(), "{}: {} holds {}, not a table", at, place(*node), found(*node));
  return *node->as_table();
}

}  // namespace

struct Document::Tables {
  toml::table root;
};

Document::Document() : tables_(std::make_unique<Tables>()) {}
Document::Document(Document&&) noexcept = default;
Document& Document::operator=(Document&&) noexcept = default;
Document::~Document() = default;

Document Document::load(const std::string& path) {
  Document document;
  std::vector<std::string> chain;
  document.tables_->root = load_table(path, chain);
  return document;
}

Document Document::parse(std::string_view text, const std::string& name) {
  Document document;
  document.tables_->root = parse_table(text, name);
  return document;
}

void Document::apply_override(const std::string& assignment, const std::vector<Field>& known) {
  const std::string at = std::string(kOverride) + assignment;
  const size_t equals = assignment.find('=');
  BURROW_CHECK(equals != assignment.npos, "{}: expected key=value", at);
  const auto trimmed = [](std::string_view text) {
    const size_t begin = std::min(text.find_first_not_of(" \t"), text.size());
    return std::string(text.substr(begin, text.find_last_not_of(" \t") + 1 - begin));
  };
  const std::string path = trimmed(std::string_view(assignment).substr(0, equals));
  std::string text = trimmed(std::string_view(assignment).substr(equals + 1));
  const Field* field = find_field(known, path);
  if (!field) unknown_key(std::string(kOverride.substr(0, 5)), path, known);
  const bool textual =
      std::holds_alternative<std::string*>(field->value) || std::holds_alternative<EnumField>(field->value);
  if (textual && !text.starts_with('"') && !text.starts_with('\'')) text = detail::toml_string(text);
  toml::table parsed;
  try {
    parsed = parse_table("value = " + text, at);
  } catch (const Error&) {
    // The message would name a file that does not exist; the check below has a better one.
  }
  toml::node* value = parsed.get("value");
  BURROW_CHECK(value && parsed.size() == 1, "{}: '{}' is not a TOML value ({})", at, text, type_of(*field));
  std::vector<std::string> steps = steps_of(path);
  const std::string last = steps.back();
  steps.pop_back();
  toml::table& table = table_for(tables_->root, steps, at);
  value->visit([&](auto& concrete) { table.insert_or_assign(last, std::move(concrete)); });
}

void Document::read(const std::vector<Field>& fields) const {
  Reader{fields}.read_table(tables_->root, fields, "");
}

std::optional<std::string> Document::string_at(std::string_view path) const {
  const toml::node* node = node_at(tables_->root, path);
  return node ? node->value_exact<std::string>() : std::nullopt;
}

std::string Document::where(std::string_view path) const {
  const toml::node* node = node_at(tables_->root, path);
  return node ? place(*node) : "the defaults";
}

}  // namespace burrow::train
