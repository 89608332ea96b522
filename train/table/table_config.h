#pragma once
// A table's TOML file: rows (each the run config with overrides), seeds, and what the paper claims of them.
// The paths in it are relative to the current directory, as those of the run config are; only `base` is
// relative to the file.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace burrow::train {

enum class Direction { greater, less, equal };
inline std::vector<std::pair<const char*, Direction>> enum_names(Direction) {
  return {{"greater", Direction::greater}, {"less", Direction::less}, {"equal", Direction::equal}};
}

struct TableRow {
  std::string name, label, group;
  std::vector<std::string> set, assemble;
  bool alone = false;
  bool part = false;  // of a row with `alone`: no row of the report
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
  v.field("name", c.name, "", "folder of the row's cells, and how claims call it: letters, digits, _ and -");
  v.field("label", c.label, "", "how the report calls it; empty: the name");
  v.field("group", c.group, "", "the report names the best row of each group; empty: none");
  v.field("set", c.set, "", "overrides of the run config and of the table's, each key=value");
  v.field("assemble", c.assemble, "rows", "trains nothing: takes each set from the row trained on it alone");
  v.field("alone", c.alone, "",
          "an adapter for each set: trains on each set alone and takes its score from there");
}
template <class V>
void visit_fields(V& v, TableAverage& c) {
  v.field("name", c.name, "", "how the report and claims call the score");
  v.field("sets", c.sets, "", "of which it is the mean");
}
template <class V>
void visit_fields(V& v, TableClaim& c) {
  v.field("text", c.text, "", "the claim in our words");
  v.field("left", c.left, "row", "");
  v.field("direction", c.direction, "", "of left against right: greater, less or equal");
  v.field("right", c.right, "row", "");
  v.field("score", c.score, "", "mean, or the name of a set or of an average");
  v.field("margin", c.margin, "points", "of equal: the difference that counts as none");
  v.field("source", c.source, "", "where the paper says so");
}
template <class V>
void visit_fields(V& v, TableConfig& c) {
  v.field("title", c.title, "", "heading of the report");
  v.field("run", c.run, "file", "run config that every row overrides");
  v.field("set", c.set, "", "overrides of the run config for every row, each key=value");
  v.field("seeds", c.seeds, "", "train.seed of each row's cells");
  v.field("reference", c.reference, "row", "the row that differences are taken to; empty: none");
  v.field("quick", c.quick, "", "mark the report: fewer steps and seeds, not the table's numbers");
  v.field("samples_share", c.samples_share, "", "each cell's data.samples are multiplied by it");
  v.list("averages", c.averages, "scores that are means over some of the sets");
  v.list("rows", c.rows, "the rows, in the order of the report");
  v.list("claims", c.claims, "what the paper says; Holm's correction runs over them");
}

// Throws an Error with file, line and key for what cannot be a table.
TableConfig read_table_config(const std::string& path);

}  // namespace burrow::train
