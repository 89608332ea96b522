#include "train/commands/command_line.h"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

namespace burrow::train {

Command Command::group(std::string_view name, std::string_view help) {
  return {*app_->add_subcommand(std::string(name), std::string(help))->require_subcommand(1), *chosen_};
}

Command Command::command(std::string_view name, std::string_view help, std::function<int()> run) {
  CLI::App* added = app_->add_subcommand(std::string(name), std::string(help));
  added->callback([run = std::move(run), chosen = chosen_] { *chosen = run; });
  return {*added, *chosen_};
}

template <class T>
void Command::option(std::string_view name, T& value, std::string_view help, OptionRules rules) {
  CLI::Option* option = app_->add_option(std::string(name), value, std::string(help));
  option->required(rules.required || !name.starts_with('-'));
  if (rules.show_default) option->capture_default_str();
  if (rules.by_commas) option->delimiter(',');
  if (rules.range != OptionRules{}.range) option->check(CLI::Range(rules.range.first, rules.range.second));
  if (!rules.needs.empty()) option->needs(app_->get_option(std::string(rules.needs)));
}
template void Command::option(std::string_view, int64_t&, std::string_view, OptionRules);
template void Command::option(std::string_view, double&, std::string_view, OptionRules);
template void Command::option(std::string_view, std::string&, std::string_view, OptionRules);
template void Command::option(std::string_view, std::filesystem::path&, std::string_view, OptionRules);
template void Command::option(std::string_view, std::vector<std::string>&, std::string_view, OptionRules);

void Command::flag(std::string_view name, bool& value, std::string_view help) {
  app_->add_flag(std::string(name), value, std::string(help));
}

int run_command_line(int argc, char** argv, std::string_view about,
                     std::initializer_list<void (*)(Command&)> add) {
  CLI::App app{std::string(about)};
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "Help of every subcommand");
  std::function<int()> chosen;
  Command program(app, chosen);
  for (const auto add_one : add) add_one(program);
  try {
    app.parse(argc, argv);
    const int code = chosen();
    // A full disk or a closed pipe shows only when the buffer of stdout is written.
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
      throw std::system_error(errno, std::generic_category(), "standard output");
    return code;
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  } catch (const std::exception& e) {
    // Not fmt::print, which throws when stderr is a file on a disk that is full.
    std::fprintf(stderr, "burrow: %s\n", e.what());
    return 1;
  }
}

}  // namespace burrow::train
