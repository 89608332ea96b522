#pragma once
// Reads the records of a conversation list or of JSON lines one by one, so that a large file is never held in
// memory as parsed JSON.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/chat.h"
#include "tensor/json.h"

namespace burrow::data {

struct Record {
  std::string image, type, language;  // empty when absent
  std::vector<Turn> turns;            // without <image>, trimmed
};

// Thrown by read_record and read_choice: a fault without its place, which the caller knows.
struct RecordError {
  std::string field, reason;
};

// Reads one element of the list. Throws a RecordError.
Record read_record(const nlohmann::json& element);

// The text without white space at both ends.
std::string trimmed(std::string_view text);

// Calls `use(index, element)` for each element of the list in `path`. Throws an Error that names the file,
// and for malformed JSON the line and column, when it is not a readable JSON list; `use` may throw too.
void for_each_record(const std::filesystem::path& path,
                     const std::function<void(int64_t index, const nlohmann::json& element)>& use);
// The same for text in memory; `name` appears in errors.
void for_each_record(std::string_view text, const std::string& name,
                     const std::function<void(int64_t index, const nlohmann::json& element)>& use);

// Reads JSON lines: calls `use(line, element)` for each line that is not blank, counted from 1, and
// `broken(line, reason)` for a line that is not JSON; either may throw. Throws an Error that names the file
// when it is a JSON list.
void for_each_line(std::string_view text, const std::string& name,
                   const std::function<void(int64_t line, const nlohmann::json& element)>& use,
                   const std::function<void(int64_t line, const std::string& reason)>& broken);

}  // namespace burrow::data
