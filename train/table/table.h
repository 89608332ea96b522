#pragma once
// A table is a set of runs plus a query over their directories. Cells are run directories
// OUT/<row>/seed-<k>; finished ones are never repeated; any launcher can run them in any order.
#include <cstdint>
#include <string>
#include <vector>

#include "train/run/device.h"

namespace burrow::train {

struct TableCommand {
  std::string config, out;
  std::vector<std::string> overrides;
  int64_t jobs = 0;   // 0: the faster on this machine; on a GPU one
  int64_t seeds = 0;  // 0: as many as the table says
  bool list = false, report_only = false;
  DeviceChoice device = {};  // of every cell that is trained now
  std::string program = {};  // what trains a cell; empty: this very program
};

// Trains what is not finished, each cell in a process of its own, and writes OUT/table.md, .csv and .json.
// Returns 0, or 1 when a cell failed, or 130 when a signal stopped it.
int run_table(const TableCommand& command);

}  // namespace burrow::train
