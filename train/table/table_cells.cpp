#include "train/table/table_cells.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "tensor/files.h"
#include "tensor/json.h"
#include "train/config/config.h"

namespace burrow::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<std::string> evaluated_sets(const RunConfig& run) {
  std::vector<std::string> names;
  for (const DataSet& d : run.data.sets) {
    if (!run.eval.sets.empty() && !contains(run.eval.sets, d.name)) continue;
    if (!(run.eval.split == "test" ? d.test : d.validation).empty()) names.push_back(d.name);
  }
  return names;
}

std::vector<std::string> trained_sets(const RunConfig& run) {
  std::vector<std::string> names;
  for (const DataSet& d : run.data.sets) {
    const bool used = run.data.use.empty() || contains(run.data.use, d.name);
    if (used && !d.train.empty()) names.push_back(d.name);
  }
  return names;
}

// In order: the overrides of the table, of the row, the share of samples, and the command line's.
std::vector<std::string> overrides_of(const TablePlan& plan, const TableRow& row) {
  std::vector<std::string> overrides = plan.config.set;
  overrides.insert(overrides.end(), row.set.begin(), row.set.end());
  if (plan.config.samples_share != 1) {
    const auto all = static_cast<double>(read_run_config(plan.config.run, overrides).data.samples);
    BURROW_CHECK(all > 0, "{}: samples_share needs data.samples, which row '{}' does not set", plan.file,
                 row.name);
    const int64_t share = std::max<int64_t>(1, std::llround(all * plan.config.samples_share));
    overrides.push_back(fmt::format("data.samples={}", share));
  }
  overrides.insert(overrides.end(), plan.command_line.begin(), plan.command_line.end());
  return overrides;
}

// Replaces a row with `alone` by one part per set and a row assembled from them.
void split_rows(TablePlan& plan) {
  std::vector<TableRow> rows;
  for (TableRow& row : plan.config.rows) {
    for (const std::string& set : row.alone ? plan.sets : std::vector<std::string>{}) {
      TableRow part{row.name + "_" + set, row.label + ", " + set, "", row.set, {}, false, true};
      part.set.push_back(fmt::format("data.use=[\"{}\"]", set));
      part.set.push_back("data.ratios=[1]");
      part.set.push_back(fmt::format("eval.sets=[\"{}\"]", set));
      row.assemble.push_back(part.name);
      rows.push_back(std::move(part));
    }
    rows.push_back(std::move(row));
  }
  plan.config.rows = std::move(rows);
  for (const TableRow& row : plan.config.rows) {
    BURROW_CHECK(plan.row_named(row.name) == static_cast<size_t>(&row - plan.config.rows.data()),
                 "{}: '{}' names both a row and a part of a row with `alone`", plan.file, row.name);
  }
}

void add_row(TablePlan& plan, size_t r) {
  const TableRow& row = plan.config.rows[r];
  plan.trained_on.emplace_back();
  plan.losses.push_back(plan.run.data.loss);
  if (!row.assemble.empty()) return;
  try {
    const std::vector<std::string> overrides = overrides_of(plan, row);
    RunConfig run = read_run_config(plan.config.run, overrides);
    BURROW_CHECK(run.eval.split == plan.run.eval.split && (row.part || evaluated_sets(run) == plan.sets),
                 "it is evaluated on other sets than the table's run config");
    BURROW_CHECK(run.eval.protocol == plan.run.eval.protocol && run.eval.labels == plan.run.eval.labels,
                 "its eval.protocol or eval.labels differ from the table's");
    plan.trained_on[r] = trained_sets(run);
    plan.losses[r] = run.data.loss;
    for (const int64_t seed : plan.seeds) {
      run.train.seed = seed;
      Cell cell{r,
                seed,
                plan.out / row.name / fmt::format("seed-{}", seed),
                overrides,
                write_run_config(run),
                evaluated_sets(run),
                run.data.samples};
      cell.overrides.push_back(fmt::format("train.seed={}", seed));
      plan.cells.push_back(std::move(cell));
    }
  } catch (const Error& e) {
    fail("{}: row '{}': {}", plan.file, row.name, e.what());
  }
}

void check_assembled(const TablePlan& plan, const TableRow& row) {
  std::vector<std::string> given;
  for (const std::string& part : row.assemble) {
    const auto& sets = plan.trained_on[plan.row_named(part)];
    BURROW_CHECK(sets.size() == 1, "{}: row '{}': '{}' trains on {} sets; a part trains on one", plan.file,
                 row.name, part, sets.size());
    BURROW_CHECK(!contains(given, sets[0]), "{}: row '{}': two parts train on '{}'", plan.file, row.name,
                 sets[0]);
    given.push_back(sets[0]);
  }
  for (const std::string& set : plan.sets) {
    BURROW_CHECK(contains(given, set), "{}: row '{}': no part trains on '{}'", plan.file, row.name, set);
  }
}

void check_claim(const TablePlan& plan, const TableClaim& claim) {
  if (claim.score != "mean") {
    std::vector<std::string> known = plan.sets;
    for (const TableAverage& a : plan.config.averages) known.push_back(a.name);
    BURROW_CHECK(contains(known, claim.score), "{}: claim '{}': score '{}': mean, or one of {}", plan.file,
                 claim.text, claim.score, fmt::join(known, ", "));
    return;
  }
  for (const std::string& side : {claim.left, claim.right}) {
    BURROW_CHECK(!plan.partial(plan.row_named(side)),
                 "{}: claim '{}': '{}' trains on only some of the sets and has no mean; name a set as the "
                 "score, or an assembled row",
                 plan.file, claim.text, side);
  }
}

Json parse_file(const fs::path& path) {
  try {
    return Json::parse(read_file(path.string()));
  } catch (const nlohmann::json::exception& e) {
    fail("{}: {}", path.string(), e.what());
  }
}

// The first line in which two texts differ, as text for an error.
std::string first_difference(const std::string& mine, const std::string& theirs) {
  const size_t end = std::min(mine.size(), theirs.size());
  const auto at = static_cast<size_t>(
      std::mismatch(mine.begin(), mine.begin() + static_cast<ptrdiff_t>(end), theirs.begin()).first -
      mine.begin());
  const auto line = [at](const std::string& text) {
    const size_t begin = at == 0 ? 0 : text.rfind('\n', at - 1) + 1;
    return begin < text.size() ? text.substr(begin, text.find('\n', at) - begin) : "nothing";
  };
  return fmt::format("it has `{}`, the table `{}`", line(theirs), line(mine));
}

}  // namespace

size_t TablePlan::row_named(const std::string& name) const {
  for (size_t r = 0; r < config.rows.size(); ++r) {
    if (config.rows[r].name == name) return r;
  }
  fail("{}: no row is named '{}'", file, name);
}

bool TablePlan::partial(size_t row) const {
  if (!config.rows[row].assemble.empty()) return false;
  for (const DataSet& d : run.data.sets) {
    if (!d.train.empty() && contains(sets, d.name) && !contains(trained_on[row], d.name)) return true;
  }
  return false;
}

TablePlan plan_table(const TableCommand& command) {
  TablePlan plan;
  plan.config = read_table_config(command.config);
  plan.file = command.config;
  plan.out = command.out.empty() ? fs::path("runs") / fs::path(command.config).stem() : fs::path(command.out);
  for (const std::string& o : command.overrides) {
    BURROW_CHECK(!o.starts_with("train.seed"), "--set {}: the table sets train.seed, by `seeds`", o);
  }
  plan.command_line = command.overrides;
  plan.seeds = plan.config.seeds;
  const auto most = static_cast<int64_t>(plan.seeds.size());
  BURROW_CHECK(command.seeds >= 0 && command.seeds <= most, "--seeds {}: the table has {}", command.seeds,
               most);
  if (command.seeds > 0) plan.seeds.resize(static_cast<size_t>(command.seeds));
  plan.overrides = plan.config.set;
  plan.overrides.insert(plan.overrides.end(), plan.command_line.begin(), plan.command_line.end());
  plan.run = read_run_config(plan.config.run, plan.overrides);
  plan.sets = evaluated_sets(plan.run);
  BURROW_CHECK(!plan.sets.empty(), "{}: no set has a {} file", plan.config.run, plan.run.eval.split);
  split_rows(plan);
  for (size_t r = 0; r < plan.config.rows.size(); ++r) add_row(plan, r);
  for (const TableRow& row : plan.config.rows) {
    if (!row.assemble.empty()) check_assembled(plan, row);
  }
  for (const TableAverage& average : plan.config.averages) {
    BURROW_CHECK(!average.name.empty() && average.name != "mean" && !contains(plan.sets, average.name) &&
                     !average.sets.empty(),
                 "{}: averages: '{}' needs a name of its own and sets", plan.file, average.name);
    for (const std::string& set : average.sets)
      BURROW_CHECK(contains(plan.sets, set), "{}: averages: '{}': no set '{}' is evaluated; there are {}",
                   plan.file, average.name, set, fmt::join(plan.sets, ", "));
  }
  for (const TableClaim& claim : plan.config.claims) check_claim(plan, claim);
  return plan;
}

CellState state_of(const Cell& cell) {
  const fs::path config = cell.path / "config.toml";
  if (!fs::exists(config)) return CellState::missing;
  const std::string found = read_file(config.string());
  BURROW_CHECK(found == cell.config,
               "{}: holds a run with another config: {}; choose another --out, or remove that folder",
               cell.path.string(), first_difference(cell.config, found));
  return fs::exists(cell.path / "result.json") ? CellState::finished : CellState::started;
}

namespace {

double active_experts(const fs::path& run) {
  std::ifstream file(run / "metrics.jsonl");
  std::string line, last;
  while (std::getline(file, line)) last = line;
  if (last.empty()) return 0;
  double sum = 0;
  int64_t count = 0;
  const Json metrics = Json::parse(last);
  if (!metrics.contains("routing")) return 0;
  for (const Json& site : metrics["routing"]) {
    if (!site.contains("active")) continue;  // written by an earlier version
    for (const Json& active : site["active"]) {
      sum += active.get<double>();
      ++count;
    }
  }
  return count ? sum / static_cast<double>(count) : 0;
}

}  // namespace

std::optional<CellResult> read_cell(const Cell& cell, const std::vector<std::string>& sets) {
  if (state_of(cell) != CellState::finished) return std::nullopt;
  const fs::path file = cell.path / "result.json";
  CellResult result;
  try {
    const Json json = parse_file(file);
    for (const std::string& set : sets) {
      result.scores.emplace_back();
      if (contains(cell.sets, set)) result.scores.back() = 100 * json.at("score").at(set).get<double>();
    }
    const Json& parameters = json.at("parameters");
    result.trainable = parameters.at("trainable").get<int64_t>();
    result.active = parameters.at("active").get<int64_t>();
    result.total = parameters.at("total").get<int64_t>();
    result.steps = json.at("steps").get<int64_t>();
    result.active_experts = active_experts(cell.path);
    if (fs::exists(cell.path / "timings.json")) {
      const Json timings = parse_file(cell.path / "timings.json");
      result.tokens_per_second = timings.value("tokens_per_second", 0.0);
      result.peak_memory = timings.value("peak_memory_bytes", 0.0);
    }
    if (fs::exists(cell.path / "provenance.json")) {
      const Json p = parse_file(cell.path / "provenance.json");
      result.commit = p.value("commit", "");
      result.cpu = p.value("cpu", "");
      result.device = p.value("device", "");
      if (p.contains("threads")) result.threads = p["threads"].dump();
    }
  } catch (const nlohmann::json::exception& e) {
    fail("{}: not the result of a run of this table: {}", cell.path.string(), e.what());
  }
  return result;
}

}  // namespace burrow::train
