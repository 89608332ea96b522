#include "data/worlds/make_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <vector>

#include "data/json.h"
#include "tensor/files.h"

namespace burrow::data {
namespace fs = std::filesystem;
namespace {

constexpr int generator_version = 1;  // to be raised by any change of the data of a seed

void make_directories(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  BURROW_CHECK(!error, "[make] cannot create {}: {}", path.string(), error.message());
}

// The text before, between and after the records of a file.
struct Layout {
  const char *open, *between, *close;
};

std::string join(const std::vector<std::string>& lines, const char* between) {
  std::string text;
  for (const std::string& line : lines) {
    if (!text.empty() && !line.empty()) text += between;
    text += line;
  }
  return text;
}

// Makes the lines of items [begin, begin + lines.size()) in several threads; rethrows their first exception.
void make_block(int64_t begin, int threads, const std::function<std::string(int64_t)>& make,
                std::vector<std::string>& lines) {
  std::exception_ptr error;
  const auto count = static_cast<int64_t>(lines.size());
#pragma omp parallel for num_threads(threads) schedule(dynamic, 32)
  for (int64_t i = 0; i < count; ++i) {
    try {
      lines[static_cast<size_t>(i)] = make(begin + i);
    } catch (...) {
#pragma omp critical(burrow_make_error)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

void write_records(const fs::path& path, const Layout& layout, int64_t count, int threads,
                   const std::string& what, const std::function<std::string(int64_t)>& make,
                   const Progress& progress) {
  constexpr int64_t block = 4096;
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "wb"), std::fclose);
  BURROW_CHECK(file != nullptr, "[make] cannot create {}: {}", path.string(), std::strerror(errno));
  const auto write = [&](const std::string& text) {
    BURROW_CHECK(std::fwrite(text.data(), 1, text.size(), file.get()) == text.size(),
                 "[make] cannot write {}: {}", path.string(), std::strerror(errno));
  };
  write(layout.open);
  bool first = true;
  for (int64_t begin = 0; begin < count; begin += block) {
    std::vector<std::string> lines(static_cast<size_t>(std::min(block, count - begin)));
    make_block(begin, threads, make, lines);
    const std::string text = join(lines, layout.between);
    if (!first && !text.empty()) write(layout.between);
    first = first && text.empty();
    write(text);
    if (progress) progress(what, std::min(begin + block, count), count);
  }
  write(layout.close);
  BURROW_CHECK(
      std::fflush(file.get()) == 0 && fsync(fileno(file.get())) == 0 && std::fclose(file.release()) == 0,
      "[make] cannot write {}: {}", path.string(), std::strerror(errno));
}

}  // namespace

MakeLock::MakeLock(const fs::path& dir) {
  make_directories(dir);
  const fs::path path = dir / ".lock";
  file_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  BURROW_CHECK(file_ >= 0, "[make] cannot create {}: {}", path.string(), std::strerror(errno));
  int status = 0;
  do status = flock(file_, LOCK_EX);
  while (status != 0 && errno == EINTR);
  if (status == 0) return;
  const int error = errno;
  close(file_);
  fail("[make] cannot lock {}: {}", path.string(), std::strerror(error));
}

MakeLock::~MakeLock() { close(file_); }  // keeps the file: removing it would race with waiting processes

nlohmann::json make_manifest(const std::string& name, nlohmann::json options) {
  return {{"generator_version", generator_version}, {"name", name}, {"options", std::move(options)}};
}

bool is_finished(const fs::path& folder, const nlohmann::json& manifest) {
  if (!fs::exists(folder)) return false;
  const fs::path path = folder / "manifest.json";
  BURROW_CHECK(fs::exists(path),
               "[make] {} exists and has no manifest.json: remove it or choose another folder",
               folder.string());
  const nlohmann::json found = parse_json(path);
  BURROW_CHECK(found == manifest,
               "[make] {} holds {}, but {} was requested: remove it or choose another folder",
               folder.string(), found.dump(), manifest.dump());
  return true;
}

bool make_folder(const fs::path& dir, const std::string& name, const nlohmann::json& manifest,
                 const std::function<void(const fs::path&)>& fill) {
  if (is_finished(dir / name, manifest)) return false;
  const fs::path work = dir / ("." + name + ".incomplete");
  std::error_code error;
  fs::remove_all(work, error);  // left by a killed run
  BURROW_CHECK(!error, "[make] cannot remove {}: {}", work.string(), error.message());
  make_directories(work);
  try {
    fill(work);
    write_file_atomically((work / "manifest.json").string(), manifest.dump(1) + "\n");
    fs::rename(work, dir / name, error);
    BURROW_CHECK(!error, "[make] cannot rename {} to {}: {}", work.string(), name, error.message());
  } catch (...) {
    fs::remove_all(work, error);  // frees the space, for the disk may be full
    throw;
  }
  return true;
}

void make_tokenizer(const fs::path& dir, const Tokenizer& tokenizer) {
  const fs::path path = dir / "tokenizer.json";
  if (!fs::exists(path)) return tokenizer.save(path);
  BURROW_CHECK(read_file(path.string()) == tokenizer.json(),
               "[make] {} differs from the tokenizer of the generated data", path.string());
}

bool sound(std::initializer_list<int64_t> counts) {
  return std::all_of(counts.begin(), counts.end(), [](int64_t n) { return n >= 0 && n <= kMostRecords; });
}

Random random_of(uint64_t seed, const std::string& path, int64_t index) {
  return Random(random_key(seed, 0, path), static_cast<uint64_t>(index));
}

bool make_all(const fs::path& dir, const nlohmann::json& manifest, const Tokenizer& tokenizer,
              const std::function<bool()>& fill) {
  const fs::path path = dir / "manifest.json";
  const bool before = fs::exists(path);
  if (before) is_finished(dir, manifest);  // throws for other options
  make_tokenizer(dir, tokenizer);
  const bool made = fill() || !before;
  if (made) write_file_atomically(path.string(), manifest.dump(1) + "\n");
  return made;
}

std::string record_line(const std::string& id, const std::string& image, const Question& q,
                        const std::string& language) {
  // Generated words need no JSON escapes.
  const bool has_image = !image.empty();
  return fmt::format(R"({{"id": "{}", {}{}"type": "{}", "conversations": [)"
                     R"({{"from": "human", "value": "{}{}"}}, {{"from": "gpt", "value": "{}"}}]}})",
                     id, has_image ? fmt::format(R"("image": "{}", )", image) : "",
                     language.empty() ? "" : fmt::format(R"("language": "{}", )", language), q.type,
                     has_image ? R"(<image>\n)" : "", q.question, q.answer);
}

void write_list(const fs::path& path, int64_t count, int threads, const std::string& what,
                const std::function<std::string(int64_t)>& make, const Progress& progress) {
  write_records(path, {"[\n", ",\n", "\n]\n"}, count, threads, what, make, progress);
}

void write_lines(const fs::path& path, int64_t count, int threads, const std::string& what,
                 const std::function<std::string(int64_t)>& make, const Progress& progress) {
  write_records(path, {"", "\n", count > 0 ? "\n" : ""}, count, threads, what, make, progress);
}

}  // namespace burrow::data
