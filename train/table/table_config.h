#pragma once
// A table's TOML file: rows (each the run config with overrides), seeds, and the paper's claims about them.
// Its paths are relative to the current directory, as in the run config; only `base` is relative to the file.
#include <cstdint>
#include <string>
#include <vector>

#include "tensor/enum_names.h"

namespace burrow::train {

BURROW_ENUM(Direction, greater, less, equal)

struct TableRow {
  std::string name, label, group;
  std::vector<std::string> set, assemble;
  bool alone = false;
  bool part = false;  // made from a row with `alone`; not shown in the report
};
struct TableAverage {
  std::string name;
  std::vector<std::string> sets;
};
struct TableClaim {
  std::string text, left, right;
  Direction direction = Direction::greater;
  std::string score = "mean";
  double margin = 0;
  std::string source;
};
struct TableConfig {
  std::string title, run, reference;
  std::vector<int64_t> seeds;
  bool quick = false;
  double samples_share = 1;
  std::vector<std::string> set;
  std::vector<TableAverage> averages;
  std::vector<TableRow> rows;
  std::vector<TableClaim> claims;
};

template <class V>
void visit_fields(V& v, TableRow& c) {
  v.field("name", c.name, "", "name of the row in claims, and folder of its cells: letters, digits, _ and -");
  v.field("label", c.label, "", "name of the row in the report; empty: `name`");
  v.field("group", c.group, "", "the report names the best row of each group; empty: none");
  v.field("set", c.set, "", "overrides of the run config and of the table's, each key=value");
  v.field("assemble", c.assemble, "rows",
          "trains nothing: takes the score of each set from the row that is trained on this set only");
  v.field("alone", c.alone, "",
          "one adapter for each set: trains on each set separately and takes its score from that run");
}
template <class V>
void visit_fields(V& v, TableAverage& c) {
  v.field("name", c.name, "", "name of the score in the report and in claims");
  v.field("sets", c.sets, "", "sets whose mean it is");
}
template <class V>
void visit_fields(V& v, TableClaim& c) {
  v.field("text", c.text, "", "the claim in plain words");
  v.field("left", c.left, "row", "");
  v.field("direction", c.direction, "", "relation of left to right: greater, less or equal");
  v.field("right", c.right, "row", "");
  v.field("score", c.score, "", "mean, or the name of a set or of an average");
  v.field("margin", c.margin, "points", "for equal: the largest difference that counts as none");
  v.field("source", c.source, "", "place in the paper");
}
template <class V>
void visit_fields(V& v, TableConfig& c) {
  v.field("title", c.title, "", "heading of the report");
  v.field("run", c.run, "file", "run config that every row overrides");
  v.field("set", c.set, "", "overrides of the run config for every row, each key=value");
  v.field("seeds", c.seeds, "", "train.seed of each row's cells");
  v.field("reference", c.reference, "row", "row from which differences are taken; empty: none");
  v.field("quick", c.quick, "",
          "marks the report as made with fewer steps and seeds than the published table");
  v.field("samples_share", c.samples_share, "", "factor on each cell's data.samples");
  v.list("averages", c.averages, "scores that are means over some sets");
  v.list("rows", c.rows, "the rows, in the order of the report");
  v.list("claims", c.claims, "the paper's claims; Holm's correction is over all of them");
}

// Throws an Error with file, line and key when the table is not valid.
TableConfig read_table_config(const std::string& path);

}  // namespace burrow::train
