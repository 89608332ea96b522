#pragma once
// The program's commands and their options. CLI11, which parses them, adds seconds to the compilation of each
// file that includes it: only command_line.cpp does.
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string_view>
#include <utility>

namespace CLI {
class App;
}  // namespace CLI

namespace burrow::train {

// Settings of an option. `show_default` prints the initial value in --help.
struct OptionRules {
  bool required = false, show_default = false, by_commas = false;
  std::pair<int64_t, int64_t> range = {INT64_MIN, INT64_MAX};  // inclusive
  std::string_view needs = {};  // name of the option without which this one is an error
};
constexpr std::pair<int64_t, int64_t> kPositive{1, INT32_MAX};

// The program or one of its commands; copies refer to the same one.
class Command {
 public:
  Command(CLI::App& app, std::function<int()>& chosen) : app_(&app), chosen_(&chosen) {}
  // A command that only groups others, as `data` groups `data make`.
  Command group(std::string_view name, std::string_view help);
  // `run` returns the exit code, or throws an Error, whose text is printed.
  Command command(std::string_view name, std::string_view help, std::function<int()> run);
  // A command and the values that its options write and `run` receives.
  template <class Values>
  std::pair<Command, Values&> command(std::string_view name, std::string_view help, int (*run)(const Values&),
                                      Values initial = {}) {
    const auto values = std::make_shared<Values>(std::move(initial));
    return {command(name, help, [=] { return run(*values); }), *values};
  }
  // A name without dashes is positional, and required. T is int64_t, double, std::string,
  // std::filesystem::path or std::vector<std::string>.
  template <class T>
  void option(std::string_view name, T& value, std::string_view help, OptionRules rules = {});
  void flag(std::string_view name, bool& value, std::string_view help);

 private:
  CLI::App* app_;
  std::function<int()>* chosen_;
};

// Parses the arguments and runs the command that they name, one of those that `add` adds in the order of
// --help. Prints help and errors. Returns the exit code of the program.
int run_command_line(int argc, char** argv, std::string_view about,
                     std::initializer_list<void (*)(Command&)> add);

}  // namespace burrow::train
