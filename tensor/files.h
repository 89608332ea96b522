#pragma once
// Memory-mapped reading, atomic writing, hashing and locking of files. Every error is a burrow::Error with
// the path and the system's reason. POSIX only.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "tensor/check.h"

namespace burrow {

// The bytes of `text`, which must outlive the span.
inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// A regular file, mapped read-only while the pointer lives. Writing to the mapping faults. If another process
// truncates the file in place, later reads fault (SIGBUS); a file that is replaced by rename, as below, stays
// intact for those that have mapped it.
class MappedFile {
 public:
  // Throws when the file is missing, unreadable or not a regular file. An empty file gives an empty span.
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  MappedFile() = default;
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The whole file as a string of bytes.
std::string read_file(const std::string& path);

// Appends bytes to the file that is being written; throws if the disk is full.
using ByteSink = std::function<void(std::span<const std::byte>)>;

// Writes `path`.tmp.<pid>, syncs it, renames it to `path` and syncs the folder, so that readers see the old
// file or the new one, never a part, even after a power failure. On any failure (a full disk, an exception
// from `writer`) the temporary file is removed and the old file is unchanged, with one exception: if only the
// last step, the sync of the folder, fails, the new file is in place and the Error says so.
void write_file_atomically(const std::string& path, const std::function<void(const ByteSink&)>& writer);
void write_file_atomically(const std::string& path, std::span<const std::byte> bytes);
void write_file_atomically(const std::string& path, std::string_view text);

// Removes the temporary files that killed processes left in a folder, if older than `seconds_old`. The file
// of a living writer is locked, except for a moment after its creation: hence the age.
void remove_abandoned_temporaries(const std::string& folder, double seconds_old);

// XXH64, to detect damage and to identify contents; not cryptographic. Equal to `xxhsum -H64`.
uint64_t hash_bytes(std::span<const std::byte> bytes, uint64_t seed = 0);
std::string hash_hex(uint64_t hash);  // 16 hexadecimal digits, lower case

// Exclusive use of a folder by a lock file in it. The operating system releases the lock when the process
// ends, however it ends, so that no lock is ever stale; the text in the file (pid and host) is only for the
// message.
class FileLock {
 public:
  // Throws if the lock is held, by this process or another, naming pid and host of the holder. Waits up to
  // `patience` seconds first, because a killed process keeps its locks until it has exited.
  explicit FileLock(std::string path, double patience = 0);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  // "process 12 on host a" if the last holder ended without releasing the lock, else "".
  const std::string& abandoned_by() const { return abandoned_by_; }

 private:
  std::string path_, abandoned_by_;
  int fd_ = -1;
};

}  // namespace burrow
