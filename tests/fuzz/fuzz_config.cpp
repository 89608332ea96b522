// libFuzzer target: any bytes either become a run's configuration or are rejected with an Error. The bytes
// are a TOML file; lines that begin with "--set " are overrides. A configuration is written as TOML and read
// back equal.
#include <algorithm>

#include "tensor/files.h"
#include "tests/fuzz/fuzzing.h"
#include "train/config/options.h"

using namespace burrow;
using train::Document;

namespace {

// The path for a file with a base, which is read from the same folder.
const std::string& config_path() {
  static const FuzzFolder folder;
  static const std::string path = folder.path / "config.toml";
  static const bool once = [] {
    write_file_atomically((folder.path / "base.toml").string(),
                          std::string_view("[data]\ntokenizer = \"t\"\n[[data.sets]]\nname = \"a\"\n"));
    return true;
  }();
  require(once, "the base is written once");
  return path;
}

Document document_of(const std::string& toml) {
  Document document = Document::parse(toml, "fuzz");
  if (!document.string_at("base")) return document;
  FILE* file = std::fopen(config_path().c_str(), "wb");
  require(file && std::fwrite(toml.data(), 1, toml.size(), file) == toml.size() && std::fclose(file) == 0,
          "the file can be written");
  return Document::load(config_path());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr std::string_view set = "--set ";
  std::string toml;
  std::vector<std::string> overrides;
  for (std::string_view rest = text_of(data, size); !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size() - 1) + 1;
    const std::string_view line = rest.substr(0, end);
    if (line.starts_with(set))
      overrides.emplace_back(line.substr(set.size(), line.find('\n') - set.size()));
    else
      toml += line;
    rest.remove_prefix(end);
  }
  try {
    const auto config = train::read_run_config(document_of(toml), overrides);
    const std::string written = train::write_run_config(config);
    const auto again = train::read_run_config(Document::parse(written, "written"), {});
    require(train::write_run_config(again) == written, "a written configuration reads back the same");
  } catch (const Error&) {
  }
  return 0;
}
