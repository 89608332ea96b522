#pragma once
// Reads files and the fields of JSON values, with errors that name the place.
#include <filesystem>
#include <string>
#include <string_view>

#include "tensor/check.h"
#include "tensor/json.h"

namespace burrow::data {

// Throws an Error with the path and the parser's line, column and reason.
nlohmann::json parse_json(const std::filesystem::path& path);
// The same for text in memory; `name` appears in errors.
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
