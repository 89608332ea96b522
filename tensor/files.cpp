#include "tensor/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

namespace burrow {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, mode_t mode = 0666) {
    do {
      fd_ = ::open(path.c_str(), flags | O_CLOEXEC, mode);
    } while (fd_ < 0 && errno == EINTR);
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

std::string read_all(int fd, const std::string& path) {
  std::string text;
  size_t used = 0;
  for (;;) {
    if (used == text.size()) text.resize(std::max<size_t>(2 * used, 1 << 16));
    const ssize_t n = ::read(fd, text.data() + used, text.size() - used);
    if (n < 0 && errno == EINTR) continue;
    BURROW_CHECK(n >= 0, "[files] cannot read {}: {}", path, reason(errno));
    if (n == 0) break;
    used += static_cast<size_t>(n);
  }
  text.resize(used);
  return text;
}

void write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    // Linux writes at most 2 GiB per call; smaller pieces are as fast.
    const ssize_t n = ::write(fd, bytes.data(), std::min<size_t>(bytes.size(), size_t{1} << 30));
    if (n < 0 && errno == EINTR) continue;
    BURROW_CHECK(n >= 0, "[files] cannot write {}: {}", path, reason(errno));
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

// A rename is durable only after its folder has been synced.
void sync_folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Descriptor fd(folder, O_RDONLY | O_DIRECTORY);
  // Some network file systems cannot sync a folder (EINVAL); nothing more can be done there.
  const bool synced = fd.get() >= 0 && (::fsync(fd.get()) == 0 || errno == EINVAL);
  BURROW_CHECK(synced, "[files] {} was written, but its folder could not be synced: {}", path, reason(errno));
}

// Removes the temporary file unless it was renamed to its final name.
struct Temporary {
  std::string path;
  bool kept = false;
  ~Temporary() {
    if (!kept) ::unlink(path.c_str());
  }
};

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  // O_NONBLOCK, because opening a pipe would wait for a writer before the check below rejects it.
  const Descriptor fd(path, O_RDONLY | O_NONBLOCK);
  BURROW_CHECK(fd.get() >= 0, "[files] cannot open {}: {}", path, reason(errno));
  struct stat status {};
  BURROW_CHECK(::fstat(fd.get(), &status) == 0, "[files] cannot stat {}: {}", path, reason(errno));
  BURROW_CHECK(S_ISREG(status.st_mode), "[files] cannot map {}: not a regular file", path);
  const size_t size = static_cast<size_t>(status.st_size);
  if (size == 0) return file;  // mmap refuses an empty range
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  BURROW_CHECK(data != MAP_FAILED, "[files] cannot map {}: {}", path, reason(errno));
  file->data_ = static_cast<const std::byte*>(data);
  file->size_ = size;
  return file;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::string read_file(const std::string& path) {
  const Descriptor fd(path, O_RDONLY);
  BURROW_CHECK(fd.get() >= 0, "[files] cannot open {}: {}", path, reason(errno));
  return read_all(fd.get(), path);
}

void write_file_atomically(const std::string& path, const std::function<void(const ByteSink&)>& writer) {
  Temporary temporary{path + ".tmp." + std::to_string(::getpid())};
  // An existing file of this name is from a dead process with the same pid, as happens in containers.
  ::unlink(temporary.path.c_str());
  Descriptor fd(temporary.path, O_WRONLY | O_CREAT | O_EXCL);
  BURROW_CHECK(fd.get() >= 0, "[files] cannot write {}: {}", path, reason(errno));
  // Marks the file as that of a living process. Some network file systems have no locks.
  (void)::flock(fd.get(), LOCK_EX | LOCK_NB);
  writer([&](std::span<const std::byte> bytes) { write_all(fd.get(), bytes, path); });
  BURROW_CHECK(::fsync(fd.get()) == 0, "[files] cannot write {}: {}", path, reason(errno));
  // Network file systems report a full disk here. After EINTR the descriptor is closed nevertheless.
  const bool closed = ::close(fd.release()) == 0 || errno == EINTR;
  BURROW_CHECK(closed, "[files] cannot write {}: {}", path, reason(errno));
  const bool renamed = ::rename(temporary.path.c_str(), path.c_str()) == 0;
  BURROW_CHECK(renamed, "[files] cannot write {}: {}", path, reason(errno));
  temporary.kept = true;
  sync_folder_of(path);
}

void write_file_atomically(const std::string& path, std::span<const std::byte> bytes) {
  write_file_atomically(path, [&](const ByteSink& sink) { sink(bytes); });
}

void write_file_atomically(const std::string& path, std::string_view text) {
  write_file_atomically(path, bytes_of(text));
}

namespace {

bool is_temporary(const std::string& name) {
  const size_t dot = name.rfind('.');
  return dot != std::string::npos && dot >= 4 && dot + 1 < name.size() &&
         name.compare(dot - 4, 4, ".tmp") == 0 &&
         name.find_first_not_of("0123456789", dot + 1) == std::string::npos;
}

}  // namespace

void remove_abandoned_temporaries(const std::string& folder, double seconds_old) {
  namespace fs = std::filesystem;
  std::error_code ignored;  // a file that cannot be removed only wastes space
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string path = entry.path().string();
    if (!is_temporary(entry.path().filename().string())) continue;
    const std::chrono::duration<double> age =
        fs::file_time_type::clock::now() - fs::last_write_time(path, ignored);
    const Descriptor fd(path, O_RDONLY);
    if (age.count() >= seconds_old && fd.get() >= 0 && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) {
      ::unlink(path.c_str());
    }
  }
}

namespace {

// XXH64, by the specification doc/xxhash_spec.md of xxHash.
constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87, kPrime2 = 0xC2B2AE3D27D4EB4F, kPrime3 = 0x165667B19E3779F9,
                   kPrime4 = 0x85EBCA77C2B2AE63, kPrime5 = 0x27D4EB2F165667C5;

template <class T>
uint64_t load(const std::byte* p) {
  static_assert(std::endian::native == std::endian::little);
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

uint64_t mix(uint64_t lane, uint64_t input) { return std::rotl(lane + input * kPrime2, 31) * kPrime1; }

}  // namespace

uint64_t hash_bytes(std::span<const std::byte> bytes, uint64_t seed) {
  const std::byte* p = bytes.data();
  size_t left = bytes.size();
  uint64_t hash = seed + kPrime5;
  if (left >= 32) {
    uint64_t lanes[4] = {seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1};
    for (; left >= 32; left -= 32) {
      for (uint64_t& lane : lanes) {
        lane = mix(lane, load<uint64_t>(p));
        p += 8;
      }
    }
    hash =
        std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) + std::rotl(lanes[3], 18);
    for (uint64_t lane : lanes) hash = (hash ^ mix(0, lane)) * kPrime1 + kPrime4;
  }
  hash += bytes.size();
  for (; left >= 8; left -= 8, p += 8) {
    hash = std::rotl(hash ^ mix(0, load<uint64_t>(p)), 27) * kPrime1 + kPrime4;
  }
  for (; left >= 4; left -= 4, p += 4) {
    hash = std::rotl(hash ^ load<uint32_t>(p) * kPrime1, 23) * kPrime2 + kPrime3;
  }
  for (; left > 0; --left, ++p) hash = std::rotl(hash ^ load<uint8_t>(p) * kPrime5, 11) * kPrime1;
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

std::string hash_hex(uint64_t hash) { return fmt::format("{:016x}", hash); }

FileLock::FileLock(std::string path, double patience) : path_(std::move(path)) {
  Descriptor fd(path_, O_RDWR | O_CREAT);
  BURROW_CHECK(fd.get() >= 0, "[files] cannot open the lock {}: {}", path_, reason(errno));
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::duration<double>(patience);
  bool locked = false;
  int error = EWOULDBLOCK;
  for (;;) {
    locked = ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0;
    error = locked ? 0 : errno;
    if (error != EWOULDBLOCK || std::chrono::steady_clock::now() >= give_up) break;
    ::usleep(10'000);
  }
  BURROW_CHECK(locked || error == EWOULDBLOCK, "[files] cannot lock {}: {}", path_, reason(error));
  const std::string record = read_all(fd.get(), path_);
  const std::string holder = record.substr(0, record.find('\n'));
  // The record is empty between the holder's flock and its write.
  BURROW_CHECK(locked, "[files] {} is locked by {}", path_, holder.empty() ? "another process" : holder);
  abandoned_by_ = holder;
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  const std::string mine = fmt::format("process {} on host {}\n", ::getpid(), host);
  const bool emptied = ::ftruncate(fd.get(), 0) == 0 && ::lseek(fd.get(), 0, SEEK_SET) == 0;
  BURROW_CHECK(emptied, "[files] cannot write the lock {}: {}", path_, reason(errno));
  write_all(fd.get(), bytes_of(mine), path_);
  fd_ = fd.release();
}

FileLock::~FileLock() {
  // The file is not unlinked, because another process may just have locked it. Its text is removed to mark an
  // orderly release; if that fails, only abandoned_by() of the next holder is wrong.
  if (::ftruncate(fd_, 0) != 0) std::perror("releasing a lock");
  ::close(fd_);
}

}  // namespace burrow
