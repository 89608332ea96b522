#pragma once
// A table is a set of runs and a query over their directories. A cell is a run directory OUT/<row>/seed-<k>.
// Finished cells are never repeated; any launcher can run the others, in any order.
#include <cstdint>
#include <string>
#include <vector>

#include "train/run/device.h"

namespace burrow::train {

struct TableCommand {
  std::string config, out;
  std::vector<std::string> overrides;
  int64_t jobs = 0;   // at once; 0: one for each CPU core, or 1 on a GPU
  int64_t seeds = 0;  // the first so many; 0: all of the table
  bool list = false, report_only = false;
  DeviceChoice device = {};  // for every cell trained now
  std::string program = {};  // program that trains a cell; empty: this one
};

// Trains the unfinished cells, each in its own process, and writes OUT/table.md, .csv and .json. Returns 0, 1
// when a cell failed, or 130 when a signal stopped it.
int run_table(const TableCommand& command);

}  // namespace burrow::train
