#include "data/json.h"

#include "tensor/files.h"

namespace burrow::data {

nlohmann::json parse_json(const std::filesystem::path& path) {
  return parse_json(read_file(path.string()), path.string());
}

nlohmann::json parse_json(std::string_view text, const std::string& name) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& e) {
    fail("[json] {}: {}", name, e.what());
  }
}

}  // namespace burrow::data
