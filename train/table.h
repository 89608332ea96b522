#pragma once
// A table is a set of runs plus a query over their directories. Cells are run directories
// OUT/<row>/seed-<k>; finished ones are never repeated; any launcher can run them in any order.
#include <cstdint>
#include <string>
#include <vector>

namespace burrow::train {

struct TableCommand {
  std::string config, out;
  std::vector<std::string> overrides;
  int64_t jobs = 0;   // 0: the faster on this machine
  int64_t seeds = 0;  // 0: as many as the table says
  bool list = false, report_only = false;
};
int run_table(const TableCommand& command);

}  // namespace burrow::train
