#pragma once
// The report on the finished cells of a table: means over seeds, differences paired by seed, the paper's
// claims. Scores are in percent.
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

// left - right over the seeds that both rows have.
struct Comparison {
  int64_t pairs = 0;
  double difference = 0;           // mean, with at least 1 pair
  std::optional<PairedTest> test;  // with at least 2 pairs
};
Comparison compare(const BySeed& left, const BySeed& right);

// The rule was fixed before any table was run. Greater and less: paired t test at level kAlpha,
// Holm-corrected over these claims of the table (a claim without a test yet counts with p = 1). Equal:
// reproduced when the 95 % interval lies within +-margin, contradicted when it lies outside.
BURROW_ENUM(Verdict, reproduced, contradicted, undecided)
inline constexpr double kAlpha = 0.05;

// A claim and its measured difference.
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
  int64_t seeds = 0;                    // finished; for an assembled row, in all its parts
  std::vector<BySeed> scores;           // by TableReport::scores; without a mean where TablePlan::partial
  std::vector<Comparison> differences;  // from the reference, by score; empty for the reference itself
  // Over the finished cells; an assembled row's parameters and steps are sums over its parts.
  int64_t trainable = 0, active = 0, total = 0, fewest_steps = 0, most_steps = 0;
  double active_experts = 0;                      // mean; 0: no routers, or unknown
  double tokens_per_second = 0, peak_memory = 0;  // median, maximum; 0: unknown
};

// The best row of a group, among those with every seed.
struct GroupReport {
  std::string group, best;  // empty while no row is complete
  Summary score;
  size_t complete = 0, rows = 0;
};

// The contents of all three formats.
struct TableReport {
  const TablePlan* plan = nullptr;
  std::vector<std::string> scores;  // the sets, the table's averages, then "mean"
  size_t cells = 0, finished = 0;
  std::vector<RowReport> rows;
  std::vector<Baselines> baselines;  // by score, in percent; empty when the data cannot be read
  std::string no_baselines;          // the reason why there are none
  std::vector<ClaimReport> claims;
  std::vector<GroupReport> groups;
  std::vector<std::string> commits, cpus, threads, devices;  // distinct values over the cells
};

// Reads the results of the finished cells; other cells are missing values.
TableReport make_report(const TablePlan& plan);

// The kind of the scores: "Exact match", or each kind with its sets: "Accuracy by label logits, the item's
// labels (boolq, piqa); exact match (general)".
std::string scores_are(const TablePlan& plan);

// The printed report: rows, baselines, groups, claims and provenance.
std::string to_markdown(const TableReport& report);
std::string to_csv(const TableReport& report);   // one line per row and score
std::string to_json(const TableReport& report);  // all values, also by seed

}  // namespace burrow::train
