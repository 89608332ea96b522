#pragma once
// Files: mapped for reading, written whole or not at all, hashed, locked. Every error is a
// burrow::Error that names the path and the system's reason. POSIX only.
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

// A regular file mapped read-only for as long as somebody holds the pointer. Writing through the mapping
// faults. Another process that truncates the file in place would make later reads fault (SIGBUS); a file
// that is replaced by rename, as below, stays whole for those who have mapped it.
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

// Hands bytes to the file that is being written; throws when they do not fit.
using ByteSink = std::function<void(std::span<const std::byte>)>;

// Writes `path`.tmp.<pid>, syncs it, renames it over `path` and syncs the folder: a reader, or a machine
// that loses power, sees the old file or the new one, never a part. On any failure (a full disk, an
// exception out of `writer`) the temporary is removed and the old file is as it was. One exception: when
// only the last step, the sync of the folder, fails, the new file is in place and the Error says so.
void write_file_atomically(const std::string& path, const std::function<void(const ByteSink&)>& writer);
void write_file_atomically(const std::string& path, std::span<const std::byte> bytes);
void write_file_atomically(const std::string& path, std::string_view text);

// Removes what killed processes have left of the above in a folder, where it is older than that. The file of
// a living writer is locked; only a younger one may be about to be.
void remove_abandoned_temporaries(const std::string& folder, double seconds_old);

// XXH64: not against forgery, only to notice damage and to name contents. Equal to `xxhsum -H64`.
uint64_t hash_bytes(std::span<const std::byte> bytes, uint64_t seed = 0);
std::string hash_hex(uint64_t hash);  // 16 hexadecimal digits, lower case

// Exclusive use of a folder through a lock file in it. The kernel drops the lock with the process, however
// it ends, so that no lock is ever stale; the file's text (pid and host) is only for the message.
class FileLock {
 public:
  // Throws when the lock is held, by this process or another, naming the pid and host of the holder. With
  // patience (in seconds) a holder may be on its way out: a killed process has its locks until it is gone.
  explicit FileLock(std::string path, double patience = 0);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  // "process 12 on host a" when the last holder ended without releasing the lock, else "".
  const std::string& abandoned_by() const { return abandoned_by_; }

 private:
  std::string path_, abandoned_by_;
  int fd_ = -1;
};

}  // namespace burrow
