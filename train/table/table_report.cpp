#include "train/table/table_report.h"

#include <algorithm>

namespace burrow::train {
namespace {

using Results = std::vector<std::optional<CellResult>>;  // by seed

void add_once(std::vector<std::string>& values, const std::string& value) {
  if (!value.empty() && std::find(values.begin(), values.end(), value) == values.end()) {
    values.push_back(value);
  }
}

std::optional<double> mean_of(const std::vector<std::optional<double>>& values) {
  double sum = 0;
  for (const auto& v : values) {
    if (!v) return std::nullopt;
    sum += *v;
  }
  return sum / static_cast<double>(values.size());
}

// The median of the cells whose speed is known; 0 where none is.
double median_speed(std::vector<double> speeds) {
  std::erase(speeds, 0.0);
  return speeds.empty() ? 0 : median(speeds);
}

// The rows that a row takes its cells from: itself, or its parts.
std::vector<size_t> parts_of(const TablePlan& plan, size_t r) {
  const TableRow& row = plan.config.rows[r];
  if (row.assemble.empty()) return {r};
  std::vector<size_t> parts;
  for (const std::string& name : row.assemble) parts.push_back(plan.row_named(name));
  return parts;
}

// The part that a set's score is taken from.
size_t part_for(const TablePlan& plan, const std::vector<size_t>& parts, const std::string& set) {
  if (parts.size() == 1) return parts[0];
  return *std::find_if(parts.begin(), parts.end(), [&](size_t p) { return plan.trained_on[p][0] == set; });
}

void add_facts(RowReport& row, const std::vector<Results>& results, const std::vector<size_t>& parts) {
  std::vector<double> speeds;
  double experts = 0;
  for (const size_t part : parts) {
    int64_t fewest = 0, most = 0;
    const CellResult* last = nullptr;
    for (const auto& cell : results[part]) {
      if (!cell) continue;
      fewest = last ? std::min(fewest, cell->steps) : cell->steps;
      most = std::max(most, cell->steps);
      last = &*cell;
      speeds.push_back(cell->tokens_per_second);
      experts += cell->active_experts;
      row.peak_memory = std::max(row.peak_memory, cell->peak_memory);
    }
    if (!last) continue;
    // Parts of a row with `alone` are adapters of equal size, one per set: count the parameters of one.
    row.trainable = row.row.alone ? last->trainable : row.trainable + last->trainable;
    row.active = row.row.alone ? last->active : row.active + last->active;
    row.total = std::max(row.total, last->total);
    row.fewest_steps += fewest;
    row.most_steps += most;
  }
  row.tokens_per_second = median_speed(speeds);
  if (!speeds.empty()) row.active_experts = experts / static_cast<double>(speeds.size());
}

// The values of some sets, from the values of all.
template <class T>
std::vector<T> named(const TablePlan& plan, const std::vector<std::string>& sets,
                     const std::vector<T>& values) {
  std::vector<T> found;
  for (const std::string& set : sets) {
    const auto at = std::find(plan.sets.begin(), plan.sets.end(), set) - plan.sets.begin();
    found.push_back(values[static_cast<size_t>(at)]);
  }
  return found;
}

RowReport make_row(const TablePlan& plan, size_t r, const std::vector<Results>& results) {
  RowReport row;
  row.row = plan.config.rows[r];
  const std::vector<size_t> parts = parts_of(plan, r);
  const std::vector<TableAverage>& averages = plan.config.averages;
  row.scores.assign(plan.sets.size() + averages.size() + 1, BySeed(plan.seeds.size()));
  for (size_t k = 0; k < plan.seeds.size(); ++k) {
    std::vector<std::optional<double>> of_sets;
    for (size_t s = 0; s < plan.sets.size(); ++s) {
      const auto& cell = results[part_for(plan, parts, plan.sets[s])][k];
      of_sets.push_back(cell ? cell->scores[s] : std::nullopt);
      row.scores[s][k] = of_sets.back();
    }
    for (size_t a = 0; a < averages.size(); ++a)
      row.scores[plan.sets.size() + a][k] = mean_of(named(plan, averages[a].sets, of_sets));
    const auto mean = mean_of(of_sets);
    row.seeds += mean.has_value();
    if (!plan.partial(r)) row.scores.back()[k] = mean;
  }
  add_facts(row, results, parts);
  return row;
}

void add_baselines(TableReport& report) {
  const RunConfig& run = report.plan->run;
  const auto average = [](const std::vector<Baselines>& of) {
    Baselines sum;
    for (const Baselines& b : of) {
      sum.chance += b.chance;
      sum.majority += b.majority;
      sum.blind += b.blind;
    }
    const auto n = static_cast<double>(of.size());
    return Baselines{sum.chance / n, sum.majority / n, sum.blind / n};
  };
  try {
    for (const std::string& set : report.plan->sets) {
      const DataSet& d = *std::find_if(run.data.sets.begin(), run.data.sets.end(),
                                       [&](const DataSet& x) { return x.name == set; });
      BURROW_CHECK(!d.train.empty(), "set '{}' has no training file", set);
      const auto b = baselines(d.format, d.train, run.eval.split == "test" ? d.test : d.validation,
                               run.eval.limit, d.circular);
      report.baselines.push_back({100 * b.chance, 100 * b.majority, 100 * b.blind});
    }
    const std::vector<Baselines> of_sets = report.baselines;
    for (const TableAverage& a : report.plan->config.averages)
      report.baselines.push_back(average(named(*report.plan, a.sets, of_sets)));
    report.baselines.push_back(average(of_sets));
  } catch (const Error& e) {  // a table copied from another machine can be printed without its data
    report.baselines.clear();
    report.no_baselines = e.what();
  }
}

void add_groups(TableReport& report) {
  for (const RowReport& row : report.rows) {
    if (row.row.group.empty()) continue;
    auto group = std::find_if(report.groups.begin(), report.groups.end(),
                              [&](const GroupReport& g) { return g.group == row.row.group; });
    if (group == report.groups.end()) {
      group = report.groups.insert(group, {row.row.group, "", {}, 0, 0});
    }
    ++group->rows;
    const Summary score = summarize(row.scores.back());
    if (score.n < static_cast<int64_t>(report.plan->seeds.size())) continue;
    ++group->complete;
    if (!group->best.empty() && score.mean <= group->score.mean) continue;
    group->best = row.row.name;
    group->score = score;
  }
}

Verdict verdict_of(const ClaimReport& c) {
  if (!c.comparison.test) return Verdict::undecided;
  const PairedTest& test = *c.comparison.test;
  if (c.claim.direction == Direction::equal) {
    const double margin = c.claim.margin;
    if (-margin <= test.low && test.high <= margin) return Verdict::reproduced;
    return margin < test.low || test.high < -margin ? Verdict::contradicted : Verdict::undecided;
  }
  if (*c.corrected_p > kAlpha || test.difference == 0) return Verdict::undecided;
  const bool as_claimed = (test.difference > 0) == (c.claim.direction == Direction::greater);
  return as_claimed ? Verdict::reproduced : Verdict::contradicted;
}

}  // namespace

Summary summarize(const BySeed& values) {
  std::vector<double> known;
  for (const auto& v : values) {
    if (v) known.push_back(*v);
  }
  Summary summary{static_cast<int64_t>(known.size()), 0, std::nullopt};
  if (known.size() >= 1) summary.mean = mean(known);
  if (known.size() >= 2) summary.error = standard_error(known);
  return summary;
}

Comparison compare(const BySeed& left, const BySeed& right) {
  std::vector<double> a, b;
  for (size_t k = 0; k < left.size(); ++k) {
    if (!left[k] || !right[k]) continue;
    a.push_back(*left[k]);
    b.push_back(*right[k]);
  }
  Comparison c;
  c.pairs = static_cast<int64_t>(a.size());
  if (c.pairs == 1) c.difference = a[0] - b[0];
  if (c.pairs >= 2) {
    c.test = paired_test(a, b);
    c.difference = c.test->difference;
  }
  return c;
}

std::vector<ClaimReport> judge(const std::vector<TableClaim>& claims,
                               const std::vector<Comparison>& comparisons) {
  std::vector<double> p_values;
  for (size_t i = 0; i < claims.size(); ++i) {
    if (claims[i].direction == Direction::equal) continue;
    p_values.push_back(comparisons[i].test ? comparisons[i].test->p : 1);
  }
  const std::vector<double> corrected = holm(p_values);
  std::vector<ClaimReport> reports;
  size_t next = 0;
  for (size_t i = 0; i < claims.size(); ++i) {
    ClaimReport report{claims[i], comparisons[i], std::nullopt, Verdict::undecided};
    if (claims[i].direction != Direction::equal) report.corrected_p = corrected[next++];
    report.verdict = verdict_of(report);
    reports.push_back(std::move(report));
  }
  return reports;
}

TableReport make_report(const TablePlan& plan) {
  TableReport report;
  report.plan = &plan;
  report.scores = plan.sets;
  for (const TableAverage& a : plan.config.averages) report.scores.push_back(a.name);
  report.scores.push_back("mean");
  report.cells = plan.cells.size();
  std::vector<Results> results(plan.config.rows.size(), Results(plan.seeds.size()));
  for (const Cell& cell : plan.cells) {
    const auto k = std::find(plan.seeds.begin(), plan.seeds.end(), cell.seed) - plan.seeds.begin();
    auto& result = results[cell.row][static_cast<size_t>(k)];
    result = read_cell(cell, plan.sets);
    if (!result) continue;
    ++report.finished;
    add_once(report.commits, result->commit);
    add_once(report.cpus, result->cpu);
    add_once(report.threads, result->threads);
    add_once(report.devices, result->device);
  }
  for (size_t r = 0; r < results.size(); ++r) report.rows.push_back(make_row(plan, r, results));
  if (!plan.config.reference.empty()) {
    const size_t reference = plan.row_named(plan.config.reference);
    for (size_t r = 0; r < results.size(); ++r) {
      for (size_t s = 0; r != reference && s < report.scores.size(); ++s) {
        report.rows[r].differences.push_back(
            compare(report.rows[r].scores[s], report.rows[reference].scores[s]));
      }
    }
  }
  add_baselines(report);
  std::vector<Comparison> comparisons;
  for (const TableClaim& claim : plan.config.claims) {
    const auto at = std::find(report.scores.begin(), report.scores.end(), claim.score);
    const auto s = static_cast<size_t>(at - report.scores.begin());
    comparisons.push_back(compare(report.rows[plan.row_named(claim.left)].scores[s],
                                  report.rows[plan.row_named(claim.right)].scores[s]));
  }
  report.claims = judge(plan.config.claims, comparisons);
  add_groups(report);
  return report;
}

}  // namespace burrow::train
