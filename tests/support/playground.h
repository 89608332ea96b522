#pragma once
// Runs the program as a user would, in a temporary folder.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tensor/files.h"

namespace burrow::testing {

struct Outcome {
  int code = 0;  // exit status; -signal when killed
  std::string text;
};

// A folder with generated data of a small experiment and the configs of tests.
struct Playground {
  std::filesystem::path folder;
  explicit Playground(bool with_data = true) {
    folder = std::filesystem::temp_directory_path() / fmt::format("burrow-test-train-{}", getpid());
    std::filesystem::create_directories(folder);
    if (!with_data) return;
    REQUIRE(run({"data", "make", "data", "--train", "240", "--validation", "20", "--test", "30"}).code == 0);
    write("run.toml", config());
  }
  ~Playground() { std::filesystem::remove_all(folder); }

  static std::string config() {
    std::string text =
        "[model.decoder]\nlayers = 2\nwidth = 32\nmlp_width = 48\n[model.vision]\nlayers = 1\nwidth = "
        "32\nmlp_width = 32\n"
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
  void write(const std::string& name, const std::string& text) const { std::ofstream(folder / name) << text; }
  std::string read(const std::string& name) const { return burrow::read_file((folder / name).string()); }

  // Runs burrow in the folder, with its output in out.txt.
  pid_t start(const std::vector<std::string>& arguments, const std::string& output = "out.txt") const {
    const pid_t child = fork();
    if (child == 0) {
      if (chdir(folder.c_str()) != 0) _exit(99);
      const int out = open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      dup2(out, 1);
      dup2(out, 2);
      setenv("OMP_NUM_THREADS", "1", 1);
      std::vector<char*> argv{const_cast<char*>(BURROW_PROGRAM)};
      for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
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
  Outcome run(const std::vector<std::string>& arguments) const {
    const int code = wait(start(arguments));
    return {code, read("out.txt")};
  }
};

inline const Playground& playground() {
  static const Playground p;
  return p;
}

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace burrow::testing
