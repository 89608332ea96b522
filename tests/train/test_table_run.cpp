// Running tables: child processes, and which cells are trained again.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/stderr_of.h"
#include "tests/support/table_testing.h"
#include "train/run/progress.h"
#include "train/table/jobs.h"

using namespace burrow;
using namespace burrow::train;
using namespace burrow::train::testing;

TEST_CASE("jobs run several at once, and end on a signal") {
  const Folder folder;
  const auto shell = [&](const std::string& name, const std::string& script) {
    return Job{name, {"/bin/sh", "-c", script}, folder / (name + ".txt")};
  };
  std::vector<int> codes(4, -1);
  JobEvents events;
  events.ended = [&](size_t job, int code, double) { codes[job] = code; };
  size_t most = 0;
  events.tick = [&](std::span<const RunningJob> running) { most = std::max(most, running.size()); };
  const std::vector<Job> jobs{shell("a", "echo out; echo err >&2; echo threads $OMP_NUM_THREADS"),
                              shell("b", "exit 3"), shell("c", "kill -9 $$"), shell("d", "sleep 0.05")};
  CHECK(run_jobs(jobs, 2, 5, events));
  CHECK(codes == std::vector<int>{0, 3, 137, 0});
  CHECK(most <= 2);
  CHECK(last_lines(folder / "a.txt", 2) == "err\nthreads 5");
  CHECK(last_lines(folder / "nothing", 2).empty());

  const auto begin = std::chrono::steady_clock::now();
  codes.assign(4, -1);
  CHECK(
      !run_jobs({shell("e", "echo $$; exec sleep 100"), shell("f", "sleep 0.1; kill -TERM $PPID; sleep 100")},
                2, 1, events));
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(3));
  const int pid = std::stoi(last_lines(folder / "e.txt", 1));
  CHECK(::kill(pid, 0) == -1);  // gone
  CHECK(codes == std::vector<int>(4, -1));

  CHECK(error_of([&] {
          run_jobs({Job{"g", {folder / "no_program"}, folder / "g.txt"}}, 1, 1, {});
        }).find("cannot start") == 0);
}

TEST_CASE("children die with a parent that is killed") {
  const Folder folder;
  const pid_t parent = fork();
  if (parent == 0) {
    run_jobs({Job{"a", {"/bin/sh", "-c", "echo $$; exec sleep 100"}, folder / "a.txt"}}, 1, 1, {});
    _exit(0);
  }
  const auto eventually = [](auto&& condition) {
    for (int i = 0; i < 500 && !condition(); ++i) usleep(10'000);
    return condition();
  };
  REQUIRE(eventually([&] { return !last_lines(folder / "a.txt", 1).empty(); }));
  const int child = std::stoi(last_lines(folder / "a.txt", 1));
  CHECK(::kill(child, 0) == 0);
  ::kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  // The process that adopts it may reap it late.
  CHECK(eventually([&] {
    const std::string path = fmt::format("/proc/{}/stat", child);
    return ::kill(child, 0) != 0 || contains(last_lines(path, 1), ") Z");
  }));
}

TEST_CASE("progress is one rewritten line on a terminal, and occasional plain lines in a pipe") {
  const auto work = [] {
    {
      ProgressLine line("train", 2);
      line.update(1, "soon");  // too early for another line
      line.update(2, "9 tokens/s");
    }
    fmt::print(stderr, "end\n");
  };
  const std::string terminal = burrow::testing::stderr_of(true, work);
  CHECK_MESSAGE(terminal.starts_with("\rtrain 2/2  9 tokens/s"), terminal);
  CHECK(!contains(terminal, "soon"));
  CHECK(burrow::testing::stderr_of(false, work) == "end\n");  // done within 20 s: no line
}

TEST_CASE("a table trains the unfinished cells") {
  const Folder folder;
  put_run(folder);
  const std::string file = folder.put("table.toml", table_text(folder, kRows));
  // A stand-in for `burrow train CONFIG --set ... --out DIR --resume`: it finds every file of the run except
  // the result. Seed 3 of a row fails.
  const std::string program =
      folder.put("program", fmt::format(R"(#!/bin/sh
echo "$*" >> {}
while [ "$1" != --out ]; do shift; done
case "$2" in *mole/seed-2) echo diverged; exit 1;; esac
echo '{}' > "$2/result.json"
)",
                                        folder / "calls.txt", result_text(0.5, 0.25)));
  fs::permissions(program, fs::perms::owner_all);
  TableCommand command{
      file, folder / "out", {}, 1, 2};  // one at a time: two jobs would log their calls in any order
  command.program = program;
  const TablePlan plan = plan_table(command);
  for (const Cell& cell : plan.cells) {
    fs::create_directories(cell.path);
    write_file_atomically((cell.path / "config.toml").string(), cell.config);
  }
  finish(cell_of(plan, "mix", 1), result_text(0.5, 0.25));
  command.device = {"gpu", false};  // refused before any job starts
  CHECK(error_of([&] { run_table(command); }) == "--device gpu: must be cpu or cuda");
  command.device = {"cpu", true};
  CHECK(error_of([&] { run_table(command); }).find("--fast needs --device cuda") == 0);
  CHECK(!fs::exists(folder / "calls.txt"));
  command.device = {};
  CHECK(run_table(command) == 1);
  const std::string calls = read_file(folder / "calls.txt");
  CHECK(std::count(calls.begin(), calls.end(), '\n') == 7);
  CHECK(
      calls.starts_with(fmt::format("train {} --set method.name=mole --set train.seed=1 --out {} --resume\n",
                                    folder / "run.toml", folder / "out/mole/seed-1")));
  CHECK(!contains(calls, "mix/seed-1 "));
  CHECK(calls.rfind("--out " + (folder / "out/mole")) < calls.find("cats/seed"));  // long ones first
  CHECK(last_lines(folder / "out/mole/seed-2/log.txt", 1) == "diverged");
  CHECK(contains(read_file(folder / "out/table.md"), "7 of 8 cells are finished"));
  CHECK(fs::exists(folder / "out/table.csv"));
  CHECK(fs::exists(folder / "out/table.json"));
  command.list = true;
  CHECK(run_table(command) == 0);
  // Only the failed cell is run again.
  command.list = false;
  CHECK(run_table(command) == 1);
  const std::string again = read_file(folder / "calls.txt");
  CHECK(std::count(again.begin(), again.end(), '\n') == 8);
  const FileLock lock(folder / "out/table.lock");
  CHECK(contains(error_of([&] { run_table(command); }), "is locked by"));
  command.report_only = true;
  CHECK(run_table(command) == 0);
}
