#pragma once
// Runs the program as a user would, in a temporary folder.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <sstream>
#include <string>
#include <vector>

#include "tensor/files.h"
#include "tests/support/errors.h"

namespace burrow::testing {

struct Outcome {
  int code = 0;  // exit status; -signal when killed
  std::string text;
};

// The words of a line; one with spaces stands in double quotes.
inline std::vector<std::string> words_of(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> words;
  for (std::string word; in >> std::quoted(word);) words.push_back(word);
  return words;
}

// A folder with the generated data of a small experiment and the configs of the tests.
struct Playground {
  std::filesystem::path folder;
  explicit Playground(bool with_data = true) {
    folder = std::filesystem::temp_directory_path() / fmt::format("burrow-test-train-{}", getpid());
    std::filesystem::create_directories(folder);
    if (!with_data) return;
    good("data make data --train 240 --validation 20 --test 30");
    write("run.toml", config());
  }
  ~Playground() { std::filesystem::remove_all(folder); }

  static std::string config() {
    std::string text =
        "model.decoder = {layers = 2, width = 32, mlp_width = 48}\n"
        "model.vision = {layers = 1, width = 32, mlp_width = 32}\n"
        "[method]\nname = 'mole'\ndropout = 0.1\nlora_targets = ['q_proj', 'v_proj']\n"
        "[train]\ntokens_per_step = 90\naccumulation = 2\ncheckpoint_every = 7\nlog_every = 3\n"
        "[data]\ntokenizer = 'data/tokenizer.json'\nfeature_cache = 'features'\n[eval]\nlimit = 10\n";
    for (const char* name : {"general", "document", "biomedicine"}) {
      text += fmt::format(
          "[[data.sets]]\nname = '{0}'\ntrain = 'data/{0}/train.json'\nvalidation = "
          "'data/{0}/validation.json'\n"
          "test = 'data/{0}/test.json'\nimages = 'data/{0}/images'\n",
          name);
    }
    return text;
  }
  // The line of a config that lays it over one of configs/models.
  std::string base(const std::string& model) const {
    const auto file = std::filesystem::path(BURROW_TEST_FILES) / "../configs/models" / (model + ".toml");
    return fmt::format("base = '{}'\n", std::filesystem::proximate(file, folder).string());
  }
  void write(const std::string& name, const std::string& text) const { std::ofstream(folder / name) << text; }
  std::string read(const std::string& name) const { return burrow::read_file((folder / name).string()); }

  // Starts burrow with the arguments of a line, in the folder; its output is in out.txt.
  pid_t start(const std::string& line, const std::string& output = "out.txt") const {
    std::vector<std::string> arguments = words_of(line);
    const pid_t child = fork();
    if (child == 0) {
      if (chdir(folder.c_str()) != 0) _exit(99);
      const int out = open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      dup2(out, 1);
      dup2(out, 2);
      setenv("OMP_NUM_THREADS", "1", 1);
      std::vector<char*> argv{const_cast<char*>(BURROW_PROGRAM)};
      for (std::string& a : arguments) argv.push_back(a.data());
      argv.push_back(nullptr);
      execv(BURROW_PROGRAM, argv.data());
      _exit(98);
    }
    return child;
  }
  static int wait(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  Outcome run(const std::string& line) const {
    const int code = wait(start(line));
    return {code, read("out.txt")};
  }
  // The output of a run that must succeed.
  std::string good(const std::string& line) const {
    const Outcome o = run(line);
    REQUIRE_MESSAGE(o.code == 0, o.text);
    return o.text;
  }
  // A run that must fail with each of these parts in its error.
  void refused(const std::string& line, const std::vector<std::string>& parts) const {
    const Outcome o = run(line);
    CHECK_MESSAGE(o.code == 1, line);
    for (const std::string& part : parts) CHECK_MESSAGE(contains(o.text, part), o.text);
  }
  // Flips one bit of a file, `from_end` bytes before its end.
  void flip_bit(const std::filesystem::path& file, size_t from_end) const {
    std::string bytes = read(file);
    bytes[bytes.size() - from_end] ^= 4;
    write_file_atomically((folder / file).string(), bytes);
  }
};

inline const Playground& playground() {
  static const Playground p;
  return p;
}

}  // namespace burrow::testing
