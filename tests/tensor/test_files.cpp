#include "tensor/files.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "tests/support/errors.h"
#include "tests/support/folder.h"

using namespace burrow;
using doctest::Contains;

namespace {

// While this lives, no file of the process can grow beyond `bytes`, as on a full disk.
struct FileSizeLimit {
  rlimit before{};
  void (*handler)(int) = ::signal(SIGXFSZ, SIG_IGN);
  explicit FileSizeLimit(rlim_t bytes) {
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    const rlimit limit{bytes, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before);
    ::signal(SIGXFSZ, handler);
  }
};

}  // namespace

TEST_CASE("reading and mapping") {
  const Folder folder;
  const std::string path = folder / "f", missing = folder / "missing";
  std::string text(200'000, 'x');
  text[100'000] = '\0';
  write_file_atomically(path, text);
  CHECK(read_file(path) == text);
  const auto mapped = MappedFile::open(path);
  CHECK(mapped->path() == path);
  CHECK(mapped->bytes().size() == text.size());
  CHECK(mapped->bytes()[100'000] == std::byte{0});
  write_file_atomically(path, "");
  CHECK(mapped->bytes()[199'999] == std::byte{'x'});
  CHECK(MappedFile::open(path)->bytes().empty());
  CHECK(read_file(path).empty());
  const std::string absent = "[files] cannot open " + missing + ": No such file or directory";
  CHECK(error_of([&] { MappedFile::open(missing); }) == absent);
  CHECK(error_of([&] { read_file(missing); }) == absent);
  CHECK(error_of([&] { read_file(folder.path); }) ==
        "[files] cannot read " + folder.path + ": Is a directory");
  CHECK(error_of([&] { MappedFile::open(folder.path); }) ==
        "[files] cannot map " + folder.path + ": not a regular file");
  const std::string pipe = folder / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(error_of([&] { MappedFile::open(pipe); }) == "[files] cannot map " + pipe + ": not a regular file");
}

TEST_CASE("a failed write leaves the old file and no temporary") {
  const Folder folder;
  const std::string path = folder / "f", large(1 << 20, 'n');
  write_file_atomically(path, "old");
  SUBCASE("the disk is full") {
    const FileSizeLimit limit(100'000);
    CHECK(error_of([&] { write_file_atomically(path, large); }) ==
          "[files] cannot write " + path + ": File too large");
  }
  SUBCASE("the writer throws half way") {
    const auto writer = [](const ByteSink& sink) {
      sink(bytes_of("half"));
      fail("no more");
    };
    CHECK(error_of([&] { write_file_atomically(path, writer); }) == "no more");
  }
  CHECK(read_file(path) == "old");
  CHECK(folder.count() == 1);
}

TEST_CASE("writing where nothing can be written") {
  const Folder folder;
  const std::string path = folder / "f", nowhere = folder / "no/such/f";
  write_file_atomically(path, "old");
  REQUIRE(::chmod(folder.path.c_str(), 0555) == 0);
  const bool root = ::geteuid() == 0;  // root ignores permissions
  if (root) REQUIRE(::seteuid(65534) == 0);
  const std::string error = error_of([&] { write_file_atomically(path, "new"); });
  if (root) REQUIRE(::seteuid(0) == 0);
  REQUIRE(::chmod(folder.path.c_str(), 0755) == 0);
  CHECK(error == "[files] cannot write " + path + ": Permission denied");
  CHECK(read_file(path) == "old");
  CHECK(folder.count() == 1);
  CHECK(error_of([&] { write_file_atomically(nowhere, "x"); }) ==
        "[files] cannot write " + nowhere + ": No such file or directory");
  // The rename fails because the target is a folder.
  std::filesystem::create_directories(folder / "folder/full");
  CHECK_THROWS_WITH(write_file_atomically(folder / "folder", "x"), Contains("Is a directory"));
  CHECK(folder.count() == 2);
}

TEST_CASE("a leftover of a dead process with the same pid does not prevent writing") {
  const Folder folder;
  const std::string path = folder / "f", leftover = path + ".tmp." + std::to_string(::getpid());
  write_file_atomically(leftover, "left over and longer");
  write_file_atomically(path, "new");
  CHECK(read_file(path) == "new");
  CHECK(folder.count() == 1);
}

TEST_CASE("hashes are XXH64") {  // values from the xxhash Python package 3.x
  CHECK(hash_hex(hash_bytes({})) == "ef46db3751d8e999");
  CHECK(hash_hex(hash_bytes(bytes_of("a"))) == "d24ec4f1a98c6e5b");
  CHECK(hash_hex(hash_bytes(bytes_of("abc"))) == "44bc2cf5ad770999");
  CHECK(hash_hex(hash_bytes(bytes_of("abc"), 7)) == "9e755206156676d7");
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 7 % 256);
  CHECK(hash_hex(hash_bytes(bytes_of(text))) == "25275608a9cfc168");
  CHECK(hash_hex(hash_bytes(bytes_of(text).first(63))) == "219110bf13e2fa26");
}

TEST_CASE("a lock excludes, names its holder, and dies with it") {
  const Folder folder;
  const std::string path = folder / "lock";
  {
    const FileLock lock(path);
    CHECK(lock.abandoned_by().empty());
    const std::string me = fmt::format("process {} on host ", ::getpid());
    CHECK_THROWS_WITH(FileLock{path}, Contains((path + " is locked by " + me).c_str()));
  }
  CHECK(FileLock(path).abandoned_by().empty());

  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const FileLock lock(path);
    if (::write(ready[1], "x", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char c = 0;
  REQUIRE(::read(ready[0], &c, 1) == 1);
  const std::string holder = fmt::format("process {} on host ", child);
  CHECK_THROWS_WITH(FileLock{path}, Contains((path + " is locked by " + holder).c_str()));
  ::kill(child, SIGKILL);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK(FileLock(path).abandoned_by().starts_with(holder));
  CHECK(FileLock(path).abandoned_by().empty());
}
