#pragma once
// Writes generated folders completely or not at all.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "data/worlds/make.h"
#include "data/worlds/scenes.h"
#include "tensor/json.h"

namespace burrow::data {

// An exclusive lock against other processes that generate data in `dir`; waits for it. Creates `dir`.
class MakeLock {
 public:
  explicit MakeLock(const std::filesystem::path& dir);
  ~MakeLock();
  MakeLock(const MakeLock&) = delete;
  MakeLock& operator=(const MakeLock&) = delete;

 private:
  int file_ = -1;
};

// A split by its name, and how many items it has.
struct Split {
  const char* name;
  int64_t samples;
};
// The three splits of options that have them.
template <class Options>
std::array<Split, 3> splits_of(const Options& o) {
  return {{{"train", o.train}, {"validation", o.validation}, {"test", o.test}}};
}

// The manifest of a generated folder: version of the generators, name and options.
nlohmann::json make_manifest(const std::string& name, nlohmann::json options);

// True when `folder` holds this manifest; false when it does not exist. Throws when it exists with another
// manifest or none.
bool is_finished(const std::filesystem::path& folder, const nlohmann::json& manifest);

// Calls `fill(work)` to write into a new temporary folder in DIR, adds the manifest and renames it to
// DIR/name. Does nothing and returns false when DIR/name is finished.
bool make_folder(const std::filesystem::path& dir, const std::string& name, const nlohmann::json& manifest,
                 const std::function<void(const std::filesystem::path& work)>& fill);

// Writes DIR/tokenizer.json. Throws when it exists and differs.
void make_tokenizer(const std::filesystem::path& dir, const Tokenizer& tokenizer);

// Whether each is a number of records that a split may have.
bool sound(std::initializer_list<int64_t> counts);
// The stream of item `index` of what `path` names.
Random random_of(uint64_t seed, const std::string& path, int64_t index);

// Makes what `fill` writes below DIR (it returns whether it wrote anything), then DIR/manifest.json. Throws
// where DIR has the manifest of other options. Returns false where everything was made before.
bool make_all(const std::filesystem::path& dir, const nlohmann::json& manifest, const Tokenizer& tokenizer,
              const std::function<bool()>& fill);

// One record of a conversation list. An empty `image` or `language` leaves out the field.
std::string record_line(const std::string& id, const std::string& image, const Question& question,
                        const std::string& language = "");

// Writes `path` as a JSON list of the records that make(i) returns for i in [0, count), in order of i.
// make(i) returns records joined by ",\n", or an empty string; it is called from `threads` threads.
void write_list(const std::filesystem::path& path, int64_t count, int threads, const std::string& what,
                const std::function<std::string(int64_t)>& make, const Progress& progress);
// The same as JSON lines: each make(i) returns one record without a line break.
void write_lines(const std::filesystem::path& path, int64_t count, int threads, const std::string& what,
                 const std::function<std::string(int64_t)>& make, const Progress& progress);

}  // namespace burrow::data
