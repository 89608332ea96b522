#pragma once
// What a table consists of: its rows with their resolved configs, and the cells, one for each row that is
// trained and each seed.
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
  int64_t samples = 0;                 // trained on; 0: all there are
};

// The table's config with everything that follows from it before a cell is run.
struct TablePlan {
  TableConfig config;
  std::string file;  // the table's config
  std::filesystem::path out;
  std::vector<std::string> command_line;  // its --set
  std::vector<std::string> overrides;     // of every row: the table's `set` and the command line's
  RunConfig run;                          // with those
  std::vector<int64_t> seeds;
  std::vector<std::string> sets;                     // evaluated in every row
  std::vector<std::vector<std::string>> trained_on;  // by row: its sets; empty for an assembled row
  std::vector<data::Supervision> losses;             // by row
  std::vector<Cell> cells;                           // by row, then seed

  // Index in config.rows; throws when there is none.
  size_t row_named(const std::string& name) const;
  // Whether a row trains on a part of the sets only, so that the mean over sets says little of it.
  bool partial(size_t row) const;
};

// Reads the table's config and resolves every row's. Throws for rows that are not evaluated alike, claims
// about scores that do not exist, and assembled rows whose parts do not give each set once.
TablePlan plan_table(const TableCommand& command);

enum class CellState { missing, started, finished };
// Throws when the directory holds a run of another config than the table's.
CellState state_of(const Cell& cell);

// What a table reads of a finished cell's result.json, metrics.jsonl and provenance.json.
struct CellResult {
  std::vector<std::optional<double>> scores;  // percent, by TablePlan::sets; none where not evaluated
  int64_t trainable = 0, active = 0, total = 0, steps = 0;
  double active_experts = 0;  // of a token in the end, mean over routers and sets; 0: no router, or not known
  double tokens_per_second = 0, peak_memory = 0;  // bytes; 0: not known
  std::string commit, cpu, threads, device;       // empty: not known
};
// Nothing when the cell is not finished.
std::optional<CellResult> read_cell(const Cell& cell, const std::vector<std::string>& sets);

}  // namespace burrow::train
