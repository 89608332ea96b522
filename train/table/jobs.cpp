#include "train/table/jobs.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "tensor/check.h"

namespace burrow::train {
namespace {

using Clock = std::chrono::steady_clock;

// While it exists, the signals handled here are blocked and returned by `next`.
class SignalInbox {
 public:
  SignalInbox() {
    sigemptyset(&wanted_);
    sigaddset(&wanted_, SIGCHLD);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
      struct sigaction action {};
      sigaction(signal, nullptr, &action);
      if (action.sa_handler != SIG_IGN)
        sigaddset(&wanted_, signal);  // ignored under nohup and for background jobs of a shell
    }
    pthread_sigmask(SIG_BLOCK, &wanted_, &before_);
  }
  ~SignalInbox() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalInbox(const SignalInbox&) = delete;
  SignalInbox& operator=(const SignalInbox&) = delete;

  // The next signal, or 0 when none came in time.
  int next(double seconds) const {
    timespec wait{static_cast<time_t>(seconds),
                  static_cast<long>((seconds - static_cast<double>(static_cast<time_t>(seconds))) * 1e9)};
    const int signal = sigtimedwait(&wanted_, nullptr, &wait);
    return std::max(signal, 0);
  }
  const sigset_t& wanted() const { return wanted_; }
  const sigset_t& before() const { return before_; }

 private:
  sigset_t wanted_, before_;
};

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> environment_with(int64_t threads) {
  std::vector<std::string> environment{fmt::format("OMP_NUM_THREADS={}", threads)};
  for (char** variable = environ; *variable; ++variable) {
    if (!std::string_view(*variable).starts_with("OMP_NUM_THREADS=")) environment.emplace_back(*variable);
  }
  return environment;
}

// The input of a child. All memory is allocated before the fork: after it only system calls are safe.
struct Start {
  std::vector<std::string> command;
  std::vector<char*> arguments, environment;
  std::string log;
  int report[2];  // a pipe that exec closes; a child that cannot exec writes its errno
  pid_t parent = getpid();
};

// The child's side of the fork.
[[noreturn]] void become(const Start& start, const SignalInbox& inbox) {
  // A process group of its own: its own children end with it, and Ctrl-C reaches only the parent.
  setpgid(0, 0);
  // Children die with the parent: otherwise they would hold the locks of their folders.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != start.parent) _exit(127);  // the parent died before prctl
  for (const int signal : {SIGCHLD, SIGINT, SIGTERM, SIGHUP}) {
    if (sigismember(&inbox.wanted(), signal)) ::signal(signal, SIG_DFL);
  }
  pthread_sigmask(SIG_SETMASK, &inbox.before(), nullptr);
  const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int out = open(start.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (in >= 0 && out >= 0 && dup2(in, 0) == 0 && dup2(out, 1) == 1 && dup2(out, 2) == 2) {
    execve(start.arguments[0], start.arguments.data(), start.environment.data());
  }
  const int error = errno;
  _exit(write(start.report[1], &error, sizeof error) > 0 ? 127 : 126);
}

// Returns the pid after the child's exec has succeeded.
pid_t spawn(Start& start, const SignalInbox& inbox) {
  int error = pipe2(start.report, O_CLOEXEC) == 0 ? 0 : errno;
  pid_t pid = -1;
  if (error == 0) {
    pid = fork();
    if (pid == 0) become(start, inbox);
    if (pid < 0) error = errno;
    close(start.report[1]);
    if (pid > 0 && read(start.report[0], &error, sizeof error) > 0) waitpid(pid, nullptr, 0);
    close(start.report[0]);
  }
  BURROW_CHECK(error == 0, "cannot start {} with its output in {}: {}", start.command[0], start.log,
               std::strerror(error));
  return pid;
}

// The running children. The destructor ends them all.
class Children {
 public:
  ~Children() { end_all(); }

  void start(const Job& job, size_t index, std::vector<std::string>& environment, const SignalInbox& inbox) {
    Start start{job.command, {}, pointers_to(environment), job.log.string(), {-1, -1}};
    start.arguments = pointers_to(start.command);
    const pid_t pid = spawn(start, inbox);
    running_.push_back({index, pid, Clock::now()});
  }

  // Calls ended(job, code, seconds) for each child that has ended since the last call.
  template <class Ended>
  void reap(Ended&& ended) {
    for (size_t i = 0; i < running_.size();) {
      int status = 0;
      if (waitpid(running_[i].pid, &status, WNOHANG) != running_[i].pid) {
        ++i;
        continue;
      }
      const RunningJob child = running_[i];
      running_.erase(running_.begin() + static_cast<ptrdiff_t>(i));
      ended(child.job, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), child.seconds());
    }
  }

  // Checkpoints are written atomically, so SIGKILL loses only steps since the last one. SIGTERM comes first,
  // for programs that handle it.
  void end_all() {
    signal_all(SIGTERM);
    const auto begin = Clock::now();
    while (!running_.empty() && Clock::now() - begin < std::chrono::seconds(5)) {
      reap([](size_t, int, double) {});
      usleep(10'000);
    }
    signal_all(SIGKILL);
    for (const RunningJob& child : running_) waitpid(child.pid, nullptr, 0);
    running_.clear();
  }

  std::span<const RunningJob> running() const { return running_; }

 private:
  void signal_all(int signal) const {
    for (const RunningJob& child : running_) kill(-child.pid, signal);
  }
  std::vector<RunningJob> running_;
};

}  // namespace

double RunningJob::seconds() const { return std::chrono::duration<double>(Clock::now() - begin).count(); }

bool run_jobs(const std::vector<Job>& jobs, int64_t at_once, int64_t threads, const JobEvents& events) {
  BURROW_CHECK(at_once >= 1, "[run_jobs] {} at once", at_once);
  const SignalInbox inbox;
  std::vector<std::string> environment = environment_with(threads);
  Children children;
  for (size_t next = 0; next < jobs.size() || !children.running().empty();) {
    while (next < jobs.size() && children.running().size() < static_cast<size_t>(at_once)) {
      children.start(jobs[next], next, environment, inbox);
      ++next;
    }
    const int signal = inbox.next(1);
    if (signal != 0 && signal != SIGCHLD) return false;
    children.reap([&](size_t job, int code, double seconds) {
      if (events.ended) events.ended(job, code, seconds);
    });
    if (events.tick) events.tick(children.running());
  }
  return true;
}

std::string last_lines(const std::filesystem::path& log, size_t lines) {
  std::ifstream file(log);
  std::vector<std::string> kept;
  for (std::string line; std::getline(file, line);) {
    kept.push_back(line);
    if (kept.size() > lines) kept.erase(kept.begin());
  }
  return fmt::format("{}", fmt::join(kept, "\n"));
}

}  // namespace burrow::train
