#pragma once
// What the finished cells of a table say: means over seeds, differences paired by seed, the paper's claims.
// Scores are in percent.
#include <optional>
#include <string>
#include <vector>

#include "train/run/baselines.h"
#include "train/table/statistics.h"
#include "train/table/table_cells.h"

namespace burrow::train {

using BySeed = std::vector<std::optional<double>>;  // in the order of TablePlan::seeds

struct Summary {
  int64_t n = 0;
  double mean = 0;              // with n >= 1
  std::optional<double> error;  // of the mean, with n >= 2
};
Summary summarize(const BySeed& values);

// left - right over the seeds that both have.
struct Comparison {
  int64_t pairs = 0;
  double difference = 0;           // mean, with at least 1 pair
  std::optional<PairedTest> test;  // with at least 2
};
Comparison compare(const BySeed& left, const BySeed& right);

// The rule, fixed before any table was run. Greater and less: the paired t test, Holm-corrected over the
// table's claims of that kind (those without a test yet count with p = 1), at kAlpha. Equal: two one-sided
// tests, which is whether the 95 % interval lies within +-margin (reproduced) or beyond it (contradicted).
enum class Verdict { reproduced, contradicted, undecided };
inline constexpr double kAlpha = 0.05;
inline std::vector<std::pair<const char*, Verdict>> enum_names(Verdict) {
  return {{"reproduced", Verdict::reproduced},
          {"contradicted", Verdict::contradicted},
          {"undecided", Verdict::undecided}};
}

// A claim beside what was measured.
struct ClaimReport {
  TableClaim claim;
  Comparison comparison;
  std::optional<double> corrected_p;  // none for equal
  Verdict verdict = Verdict::undecided;
};
std::vector<ClaimReport> judge(const std::vector<TableClaim>& claims,
                               const std::vector<Comparison>& comparisons);

// A row over its finished seeds.
struct RowReport {
  TableRow row;
  int64_t seeds = 0;                    // finished, all parts of an assembled row
  std::vector<BySeed> scores;           // by TableReport::scores; a mean that says little is left out
  std::vector<Comparison> differences;  // to the reference, by score; empty for the reference itself
  // Of the finished cells; an assembled row's parameters and steps are the sums over its parts.
  int64_t trainable = 0, active = 0, total = 0, fewest_steps = 0, most_steps = 0;
  double active_experts = 0;                      // mean; 0: no routers, or not known
  double tokens_per_second = 0, peak_memory = 0;  // median, largest; 0: not known
};

// Best of the rows of a group that have every seed.
struct GroupReport {
  std::string group, best;  // empty while no row is complete
  Summary score;
  size_t complete = 0, rows = 0;
};

// Everything that the three formats print.
struct TableReport {
  const TablePlan* plan = nullptr;
  std::vector<std::string> scores;  // the sets, the table's averages, then "mean"
  size_t cells = 0, finished = 0;
  std::vector<RowReport> rows;
  std::vector<Baselines> baselines;  // by score, in percent; empty when the data cannot be read
  std::string no_baselines;          // why
  std::vector<ClaimReport> claims;
  std::vector<GroupReport> groups;
  std::vector<std::string> commits, cpus, threads, devices;  // of the cells, each once
};

// Reads the results of the finished cells; the others are missing values.
TableReport make_report(const TablePlan& plan);

// What the scores are: "Exact match", or each kind with its sets: "Accuracy by label logits, the item's
// labels (boolq, piqa); exact match (general)".
std::string scores_are(const TablePlan& plan);

// What is printed: rows, baselines, groups, claims and provenance.
std::string to_markdown(const TableReport& report);
std::string to_csv(const TableReport& report);   // one line for each row and score
std::string to_json(const TableReport& report);  // everything, each seed's values too

}  // namespace burrow::train
