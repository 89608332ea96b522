#include "train/table/table.h"

#include <unistd.h>

#include <algorithm>
#include <thread>

#include "tensor/files.h"
#include "train/commands/commands.h"
#include "train/table/jobs.h"
#include "train/table/table_report.h"

namespace burrow::train {
namespace {

namespace fs = std::filesystem;
constexpr int kInterrupted = 130;  // exit code of shells after SIGINT
constexpr size_t kLogLines = 15;

std::string cell_name(const TablePlan& plan, const Cell& cell) {
  return fmt::format("{}/seed-{}", plan.config.rows[cell.row].name, cell.seed);
}

// The mean over sets, or for a partial row the scores of the sets it is trained on.
std::string scores_of(const TablePlan& plan, const Cell& cell) {
  const auto result = read_cell(cell, plan.sets);
  if (!result) return "";
  if (!plan.partial(cell.row)) {
    std::vector<double> scores;
    for (const auto& score : result->scores) scores.push_back(score.value());
    return fmt::format("mean {:.2f} %", mean(scores));
  }
  std::string text;
  for (const std::string& set : plan.trained_on[cell.row]) {
    const auto at = std::find(plan.sets.begin(), plan.sets.end(), set);
    if (at == plan.sets.end()) continue;
    const double score = result->scores[static_cast<size_t>(at - plan.sets.begin())].value();
    text += fmt::format("{}{} {:.2f} %", text.empty() ? "" : ", ", set, score);
  }
  return text;
}

std::string time_text(double seconds) {
  if (seconds < 100) return fmt::format("{:.0f} s", seconds);
  if (seconds < 6000) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

// Progress on stderr: a line for each finished cell, and on a terminal a status line that is rewritten.
class TableProgress {
 public:
  // `cells`: those to run, in the order of the jobs.
  TableProgress(const TablePlan& plan, const std::vector<const Cell*>& cells, int64_t at_once)
      : plan_(plan), cells_(cells), at_once_(at_once), terminal_(isatty(2) == 1) {
    done_ = plan.cells.size() - cells.size();
    for (const Cell* cell : cells) longest_ = std::max(longest_, static_cast<double>(cell->samples));
    for (const Cell* cell : cells) work_left_ += work(*cell);
  }
  ~TableProgress() { clear(); }
  TableProgress(const TableProgress&) = delete;
  TableProgress& operator=(const TableProgress&) = delete;

  void ended(const Cell& cell, int code, double seconds) {
    work_left_ -= work(cell);
    if (code == 0 && state_of(cell) == CellState::finished) {
      ++done_;
      seconds_ += seconds;
      work_done_ += work(cell);
      say(fmt::format("[{}/{}] {}: {}, {}; {}", done_, plan_.cells.size(), cell_name(plan_, cell),
                      scores_of(plan_, cell), time_text(seconds), time_left(0)));
      return;
    }
    failed.push_back(&cell);
    const std::string log = (cell.path / "log.txt").string();
    say(fmt::format("{} failed with code {}; the end of {}:\n{}", cell_name(plan_, cell), code, log,
                    last_lines(log, kLogLines)));
  }

  void tick(std::span<const RunningJob> running) {
    if (!terminal_) return;
    std::string names;
    double spent = 0;
    for (const RunningJob& job : running) {
      names += fmt::format(" {}", cell_name(plan_, *cells_[job.job]));
      spent += job.seconds();
    }
    clear();
    fmt::print(stderr, "\r{}/{} cells; running{}; {}", done_, plan_.cells.size(), names, time_left(spent));
    std::fflush(stderr);
    open_ = true;
  }

  void interrupted() {
    say(fmt::format("interrupted with {} of {} cells finished; the same command continues from here", done_,
                    plan_.cells.size()));
  }

  std::vector<const Cell*> failed;

 private:
  double work(const Cell& cell) const {
    if (cell.samples > 0) return static_cast<double>(cell.samples);
    return longest_ > 0 ? longest_ : 1;
  }
  // `spent`: total seconds so far of the cells that are running.
  std::string time_left(double spent) const {
    if (work_done_ == 0) return "time left unknown";
    const double all = seconds_ / work_done_ * work_left_ - spent;
    return fmt::format("about {} left", time_text(std::max(0.0, all) / static_cast<double>(at_once_)));
  }
  // Not fmt::print, which throws when stderr is closed or full.
  void say(const std::string& line) {
    clear();
    std::fputs((line + "\n").c_str(), stderr);
  }
  void clear() {
    if (open_) std::fputs("\r\x1b[K", stderr);
    open_ = false;
  }

  const TablePlan& plan_;
  const std::vector<const Cell*>& cells_;
  int64_t at_once_;
  bool terminal_, open_ = false;
  size_t done_ = 0;
  double longest_ = 0, work_left_ = 0, work_done_ = 0, seconds_ = 0;
};

int64_t cores() { return std::max<int64_t>(1, std::thread::hardware_concurrency()); }

// On the CPU many cells of one thread are faster than one cell with many threads: the matrices are small. On
// a GPU the cells would share its memory.
int64_t default_jobs(const TableCommand& command) { return command.device.name == "cpu" ? cores() : 1; }

std::string program_of(const TableCommand& command) {
  return command.program.empty() ? fs::read_symlink("/proc/self/exe").string() : command.program;
}

std::vector<std::string> with_overrides(std::vector<std::string> command,
                                        const std::vector<std::string>& overrides) {
  for (const std::string& o : overrides) command.insert(command.end(), {"--set", o});
  return command;
}

std::vector<std::string> on_device(std::vector<std::string> command, const DeviceChoice& device) {
  if (device.name != "cpu") command.insert(command.end(), {"--device", device.name});
  if (device.fast) command.emplace_back("--fast");
  return command;
}

Job job_of(const TablePlan& plan, const Cell& cell, const std::string& program, const DeviceChoice& device) {
  Job job{cell_name(plan, cell), with_overrides({program, "train", plan.config.run}, cell.overrides),
          cell.path / "log.txt"};
  job.command.insert(job.command.end(), {"--out", cell.path.string(), "--resume"});
  job.command = on_device(std::move(job.command), device);
  return job;
}

// Computes the features once, so that concurrent cells do not repeat it. False: interrupted.
bool compute_features(const TablePlan& plan, const std::string& program, const DeviceChoice& device) {
  if (plan.run.data.feature_cache.empty() || !plan.run.model.sizes.vision.present()) return true;
  const fs::path log = plan.out / "features.log";
  fmt::print(stderr, "visual features of {}\n", plan.config.run);
  int code = 0;
  const Job job{"features",
                on_device(with_overrides({program, "features", plan.config.run}, plan.overrides), device),
                log};
  JobEvents events;
  events.ended = [&](size_t, int c, double) { code = c; };
  if (!run_jobs({job}, 1, cores(), events)) return false;
  BURROW_CHECK(code == 0, "computing the features failed with code {}; the end of {}:\n{}", code,
               log.string(), last_lines(log, kLogLines));
  return true;
}

// The cells to run: long ones first, then by seed, so that all rows progress together.
std::vector<const Cell*> unfinished(const TablePlan& plan) {
  std::vector<const Cell*> cells;
  for (const Cell& cell : plan.cells) {
    if (state_of(cell) != CellState::finished) cells.push_back(&cell);
  }
  const auto order = [&](const Cell* c) {
    const auto at = std::find(plan.seeds.begin(), plan.seeds.end(), c->seed) - plan.seeds.begin();
    return std::pair(c->samples == 0 ? INT64_MIN : -c->samples, at);
  };
  std::stable_sort(cells.begin(), cells.end(),
                   [&](const Cell* a, const Cell* b) { return order(a) < order(b); });
  return cells;
}

int run_cells(const TablePlan& plan, const TableCommand& command) {
  const std::vector<const Cell*> cells = unfinished(plan);
  if (cells.empty()) return 0;
  const std::string program = program_of(command);
  if (!compute_features(plan, program, command.device)) return kInterrupted;
  const int64_t at_once = command.jobs > 0 ? command.jobs : default_jobs(command);
  std::vector<Job> jobs;
  for (const Cell* cell : cells) {
    fs::create_directories(cell->path);
    jobs.push_back(job_of(plan, *cell, program, command.device));
  }
  TableProgress progress(plan, cells, at_once);
  JobEvents events;
  events.ended = [&](size_t job, int code, double seconds) { progress.ended(*cells[job], code, seconds); };
  events.tick = [&](std::span<const RunningJob> running) { progress.tick(running); };
  // The number of threads depends on --jobs alone, not on how many cells are left: results are equal to the
  // bit only for equal numbers of threads.
  if (!run_jobs(jobs, at_once, std::max<int64_t>(1, cores() / at_once), events)) {
    progress.interrupted();
    return kInterrupted;
  }
  if (progress.failed.empty()) return 0;
  std::string names;
  for (const Cell* cell : progress.failed) names += fmt::format(" {}", cell_name(plan, *cell));
  fmt::print(stderr, "missing:{}\n", names);
  return 1;
}

void print_list(const TablePlan& plan) {
  for (const Cell& cell : plan.cells) {
    const CellState state = state_of(cell);
    const std::string is = state == CellState::finished  ? fmt::format("finished, {}", scores_of(plan, cell))
                           : state == CellState::started ? "started"
                                                         : "missing";
    fmt::print("{:<48} {}\n", cell.path.string(), is);
  }
}

void write_report(const TablePlan& plan) {
  fs::create_directories(plan.out);
  const TableReport report = make_report(plan);
  const std::string markdown = to_markdown(report);
  write_file_atomically((plan.out / "table.md").string(), markdown);
  write_file_atomically((plan.out / "table.csv").string(), to_csv(report));
  write_file_atomically((plan.out / "table.json").string(), to_json(report));
  fmt::print("{}", markdown);
}

}  // namespace

int run_table(const TableCommand& command) {
  BURROW_CHECK(command.jobs >= 0, "--jobs {}: must not be negative", command.jobs);
  const TablePlan plan = plan_table(command);
  if (command.list) {
    print_list(plan);
    return 0;
  }
  if (command.report_only) {
    write_report(plan);
    return 0;
  }
  choose_device(command.device, say);
  fs::create_directories(plan.out);
  const FileLock lock((plan.out / "table.lock").string());
  remove_abandoned_temporaries(plan.out.string(), 0);
  const int code = run_cells(plan, command);
  if (code == kInterrupted) return code;
  write_report(plan);
  return code;
}

void add_table(Command& app) {
  auto [table, c] =
      app.command("table",
                  "Train the cells of a table that are not finished yet, and print it. "
                  "Paths in its config are relative to the current directory; docs/tables.md has more.",
                  run_table);
  table.option("config", c.config, "TOML file of the table");
  table.option("--out", c.out, "folder of the cells and the table (default: runs/<name of the config>)");
  table.option("--jobs", c.jobs,
               "cells at once, the threads shared between them (default: the faster on this machine; "
               "1 on a GPU)",
               {.range = kPositive});
  table.option("--set", c.overrides, "key=value over every cell's config (repeatable)");
  table.option("--seeds", c.seeds, "only the first so many seeds", {.range = kPositive});
  table.flag("--list", c.list, "print the cells and whether they are finished, and stop");
  table.flag("--report", c.report_only, "print the table from the finished cells, train nothing");
  add_device_options(table, c.device);
}

}  // namespace burrow::train
