#pragma once
// Configuration: structs that declare their keys once, TOML files, overrides, reference tables.
//
// A struct names its keys in a free function beside it, which needs nothing from this header:
//
//   struct TrainConfig {
//     double learning_rate = 1e-3;
//     Gate gate = Gate::none;
//     std::vector<DataSet> sets;
//   };
//   template <class V> void visit_fields(V& v, TrainConfig& c) {
//     v.field("learning_rate", c.learning_rate, "1/step", "peak of the schedule");
//     v.section("moe", [&] { v.field("gate", c.gate, "", "what multiplies an expert's output"); });
//     v.list("sets", c.sets, "what is trained on");  // [[sets]] tables; DataSet has its visit_fields
//   }
//
// The struct's initialisers are the defaults. A key may be dotted: "moe.gate" is the same key as above.
// The keys must not depend on the values. Field types: bool, int64_t, double, std::string, enums with
// enum_names (tensor/enum_names.h), and vectors of double, int64_t or std::string.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "tensor/check.h"
#include "tensor/enum_names.h"

namespace burrow::train {

struct Field;

// An enum with its type erased: the names, and the index of the value.
struct EnumField {
  std::vector<std::string> names;
  std::function<size_t()> get;
  std::function<void(size_t)> set;
};

// A vector of structs. `element` holds the keys of a struct in its default state.
struct ListField {
  std::function<size_t()> size;
  std::function<void(size_t)> resize;  // to this many elements, all with default values
  std::function<std::vector<Field>(size_t)> at;
  std::vector<Field> element;
  std::shared_ptr<void> element_values;  // what the pointers in `element` point to
};

// One key: its path from the root of the struct, its unit and help text, and a pointer to its value.
struct Field {
  std::string path, unit, help;
  std::variant<bool*, int64_t*, double*, std::string*, std::vector<double>*, std::vector<int64_t>*,
               std::vector<std::string>*, EnumField, ListField>
      value;
};

// The visitor that turns a struct into its list of fields, in order of declaration. The pointers are valid
// as long as the struct is.
class FieldCollector {
 public:
  // One key. `value` holds the default; its type is one of Field::value's, or an enum with enum_names.
  template <class T>
  void field(std::string_view key, T& value, std::string_view unit, std::string_view help);
  // The keys that `body` declares, under `name`.
  template <class Body>
  void section(std::string_view name, Body&& body);
  // An array of tables, each with T's keys.
  template <class T>
  void list(std::string_view key, std::vector<T>& items, std::string_view help);
  std::vector<Field> take() { return std::move(fields_); }

 private:
  void add(std::string_view key, Field field);  // throws on a key that is declared twice
  std::string prefix_;
  std::vector<Field> fields_;
};

// The fields of a struct through its visit_fields; they point into `config`.
template <class Config>
std::vector<Field> fields_of(Config& config) {
  FieldCollector collector;
  visit_fields(collector, config);
  return collector.take();
}

// A TOML file with its bases merged in and overrides applied; not yet read into a struct.
class Document {
 public:
  // `base = "other.toml"` at the top level names a file, relative to this one, that gives the values of keys
  // missing here. Tables merge key by key; arrays, also arrays of tables, are replaced as a whole.
  // Throws, with file and line, on bad TOML, a missing base and a cycle of bases.
  static Document load(const std::string& path);
  static Document parse(std::string_view text, const std::string& name);  // `name` is for messages
  Document(Document&&) noexcept;
  Document& operator=(Document&&) noexcept;
  ~Document();

  // "train.lr=1e-2", "data.sets[0].weight=2": the value is TOML, or bare text where the key is a string or
  // one of an enum's names. Throws on an unknown key, naming the nearest, and on text that is not a value.
  void apply_override(const std::string& assignment, const std::vector<Field>& known);

  // Writes the values that are present to the fields. Throws, with file, line and key, on an unknown key
  // (with the nearest) and on a value of another type; an integer is accepted as a number.
  void read(const std::vector<Field>& fields) const;

  // The string at a dotted path, for a key that decides the defaults of others before they are read.
  std::optional<std::string> string_at(std::string_view path) const;
  // "configs/x.toml:12", "--set train.lr=1" or "the defaults": for messages of later checks.
  std::string where(std::string_view path) const;

 private:
  struct Tables;
  Document();
  std::unique_ptr<Tables> tables_;
};

// Overwrites `config` with the values of the document; other keys keep theirs. On an error `config` is
// unchanged.
template <class Config>
void read_config(const Document& document, Config& config) {
  Config copy = config;
  document.read(fields_of(copy));
  config = std::move(copy);
}

// Every key as TOML, in order of declaration; reading it gives equal values, doubles to the bit. With
// comments: the unit and the meaning of each key above it.
std::string fields_to_toml(const std::vector<Field>& fields, bool comments = false);
// A table of key, type, unit, default (the current value) and meaning for each section.
std::string fields_to_markdown(const std::vector<Field>& fields);
// The same for a terminal.
std::string fields_to_help(const std::vector<Field>& fields);

// The struct as TOML; with comments, each key's meaning above it.
template <class Config>
std::string to_toml(const Config& config, bool comments = false) {
  Config copy = config;  // visit_fields takes non-const references
  return fields_to_toml(fields_of(copy), comments);
}

// "number", "array of strings", "none | scaled", ...
std::string type_of(const Field& field);
// The member of `known` nearest to a mistyped `key`, or "" when none is near.
std::string nearest_key(std::string_view key, const std::vector<std::string>& known);

namespace detail {
std::string toml_string(std::string_view text);  // quoted and escaped
}

// Implementation.

template <class T>
void FieldCollector::field(std::string_view key, T& value, std::string_view unit, std::string_view help) {
  Field f{{}, std::string(unit), std::string(help), static_cast<bool*>(nullptr)};
  if constexpr (std::is_enum_v<T>) {
    EnumField e;
    std::vector<T> values;
    for (const auto& [name, v] : enum_names(T{})) {
      e.names.emplace_back(name);
      values.push_back(v);
    }
    e.get = [&value, values] {
      for (size_t i = 0; i < values.size(); ++i) {
        if (values[i] == value) return i;
      }
      fail("[config] an enum holds a value that enum_names does not list");
    };
    e.set = [&value, values](size_t i) { value = values.at(i); };
    f.value = std::move(e);
  } else {
    f.value = &value;  // fails to compile for a type that is not listed at the top
  }
  add(key, std::move(f));
}

template <class Body>
void FieldCollector::section(std::string_view name, Body&& body) {
  const std::string outer = prefix_;
  prefix_ += std::string(name) + ".";
  body();
  prefix_ = outer;
}

template <class T>
void FieldCollector::list(std::string_view key, std::vector<T>& items, std::string_view help) {
  ListField l;
  l.size = [&items] { return items.size(); };
  l.resize = [&items](size_t n) { items = std::vector<T>(n); };
  l.at = [&items](size_t i) { return fields_of(items.at(i)); };
  auto element = std::make_shared<T>();
  l.element = fields_of(*element);
  l.element_values = std::move(element);
  add(key, Field{{}, {}, std::string(help), std::move(l)});
}

}  // namespace burrow::train
