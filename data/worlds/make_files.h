#pragma once
// How generated folders come to be whole or not at all.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "data/worlds/make.h"
#include "data/worlds/scenes.h"
#include "tensor/json.h"

namespace burrow::data {

// Keeps other processes from making data in `dir` while it lives; waits for them. Creates `dir`.
class MakeLock {
 public:
  explicit MakeLock(const std::filesystem::path& dir);
  ~MakeLock();
  MakeLock(const MakeLock&) = delete;
  MakeLock& operator=(const MakeLock&) = delete;

 private:
  int file_ = -1;
};

// The manifest of a generated folder: version of the generators, name and options.
nlohmann::json make_manifest(const std::string& name, nlohmann::json options);

// True when `folder` holds this manifest; false when it does not exist. Throws when it exists otherwise.
bool is_finished(const std::filesystem::path& folder, const nlohmann::json& manifest);

// Has `fill(work)` write into a fresh folder beside DIR/name, adds the manifest and renames it into place.
// Does nothing and returns false when DIR/name is finished.
bool make_folder(const std::filesystem::path& dir, const std::string& name, const nlohmann::json& manifest,
                 const std::function<void(const std::filesystem::path& work)>& fill);

// DIR/tokenizer.json. Throws when another tokenizer is there.
void make_tokenizer(const std::filesystem::path& dir, const Tokenizer& tokenizer);

// One record of a conversation list. `image` may be empty: text alone; and `language`: untold.
std::string record_line(const std::string& id, const std::string& image, const Question& question,
                        const std::string& language = "");

// Writes `path`, a JSON list, of the lines that make(i) returns for i in [0, count): each returns records
// joined by ",\n", or nothing. `threads` work on make; the order in the file is that of i.
void write_list(const std::filesystem::path& path, int64_t count, int threads, const std::string& what,
                const std::function<std::string(int64_t)>& make, const Progress& progress);
// The same as JSON lines: each make(i) returns one record without a line break.
void write_lines(const std::filesystem::path& path, int64_t count, int threads, const std::string& what,
                 const std::function<std::string(int64_t)>& make, const Progress& progress);

}  // namespace burrow::data
