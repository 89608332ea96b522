#pragma once
// The parts of a table: its rows with their resolved configs, and the cells, one for each trained row and
// seed.
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "train/config/options.h"
#include "train/table/table.h"
#include "train/table/table_config.h"

namespace burrow::train {

struct Cell {
  size_t row = 0;
  int64_t seed = 0;
  std::filesystem::path path;
  std::vector<std::string> overrides;  // of the run config
  std::string config;                  // resolved, as TOML
  std::vector<std::string> sets;       // evaluated
  int64_t samples = 0;                 // to train on; 0: all
};

// The table's config and what is derived from it before any cell is run.
struct TablePlan {
  TableConfig config;
  std::string file;  // the table's config
  std::filesystem::path out;
  std::vector<std::string> command_line;  // the --set options
  std::vector<std::string> overrides;     // for every row: the table's `set`, then the command line's
  RunConfig run;                          // resolved with `overrides`
  std::vector<int64_t> seeds;
  std::vector<std::string> sets;                     // evaluated in every row
  std::vector<std::vector<std::string>> trained_on;  // sets by row; empty for an assembled row
  std::vector<data::Supervision> losses;             // by row
  std::vector<Cell> cells;                           // by row, then seed

  // Index in config.rows; throws when there is none.
  size_t row_named(const std::string& name) const;
  // Whether a row trains on only some of the sets, so that it gets no mean over sets.
  bool partial(size_t row) const;
};

// Reads the table's config and resolves the config of every row. Throws when rows are not evaluated alike, a
// claim is about a score that does not exist, or an assembled row's parts do not cover each set once.
TablePlan plan_table(const TableCommand& command);

enum class CellState { missing, started, finished };
// Throws when the directory holds a run with a config other than the table's.
CellState state_of(const Cell& cell);

// Read from a finished cell's result.json, metrics.jsonl, timings.json and provenance.json.
struct CellResult {
  std::vector<std::optional<double>> scores;  // percent, by TablePlan::sets; none where not evaluated
  int64_t trainable = 0, active = 0, total = 0, steps = 0;
  double active_experts = 0;  // per token at the end, mean over routers and sets; 0: no router, or unknown
  double tokens_per_second = 0, peak_memory = 0;  // bytes; 0: unknown
  std::string commit, cpu, threads, device;       // empty: unknown
};
// nullopt when the cell is not finished.
std::optional<CellResult> read_cell(const Cell& cell, const std::vector<std::string>& sets);

}  // namespace burrow::train
