#pragma once
// JSON files and the fields of a JSON value, with errors that say where.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tensor/check.h"

namespace burrow::data {

// Throws an Error with the path and the parser's line, column and reason.
nlohmann::json parse_json(const std::filesystem::path& path);
// The same of text in memory; `name` is for errors.
nlohmann::json parse_json(std::string_view text, const std::string& name);

// The member `name` of an object, which must exist: `where` names the object in the error.
inline const nlohmann::json& member(const nlohmann::json& object, const char* name,
                                    const std::string& where) {
  BURROW_CHECK(object.is_object(), "{}: an object with '{}' is expected, not {}", where, name,
               object.type_name());
  const auto it = object.find(name);
  BURROW_CHECK(it != object.end(), "{}: field '{}' is missing", where, name);
  return *it;
}

// The member `name`, which must be a string.
inline const std::string& string_member(const nlohmann::json& object, const char* name,
                                        const std::string& where) {
  const nlohmann::json& value = member(object, name, where);
  BURROW_CHECK(value.is_string(), "{}: field '{}' must be a string, not {}", where, name, value.type_name());
  return value.get_ref<const std::string&>();
}

}  // namespace burrow::data
