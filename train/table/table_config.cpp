#include "train/table/table_config.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "train/config/config.h"

namespace burrow::train {
namespace {

constexpr std::string_view kNameLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

class Checker {
 public:
  Checker(const std::string& path, const Document& document, const TableConfig& config)
      : path_(path), document_(document), config_(config) {
    for (const TableRow& row : config.rows) names_.push_back(row.name);
  }

  void check() const {
    check_head();
    for (size_t i = 0; i < config_.rows.size(); ++i) check_row(i);
    for (size_t i = 0; i < config_.claims.size(); ++i) check_claim(i);
  }

 private:
  template <class... Args>
  void require(bool condition, const std::string& key, fmt::format_string<Args...> text,
               Args&&... args) const {
    if (condition) return;
    fail("{}: {}: {}", place(key), key, fmt::format(text, std::forward<Args>(args)...));
  }

  // Where the key is written, or where its section is.
  std::string place(const std::string& key) const {
    std::string at = document_.where(key);
    if (at != "the defaults") return at;
    const size_t dot = key.rfind('.');
    return dot == key.npos ? path_ : document_.where(key.substr(0, dot));
  }

  void check_head() const {
    require(!config_.run.empty(), "run", "is missing: the run config that every row overrides");
    require(!config_.seeds.empty(), "seeds", "is missing: at least one");
    const std::set<int64_t> distinct(config_.seeds.begin(), config_.seeds.end());
    require(distinct.size() == config_.seeds.size(), "seeds", "a seed is listed twice");
    require(*distinct.begin() >= 0, "seeds", "{} is negative", *distinct.begin());
    const double share = config_.samples_share;
    require(share > 0 && std::isfinite(share), "samples_share", "{}: must be positive", share);
    check_overrides("set", config_.set);
    require(!config_.rows.empty(), "rows", "is missing: [[rows]] tables with name and set");
    if (!config_.reference.empty()) check_name("reference", config_.reference);
  }

  void check_name(const std::string& key, const std::string& name) const {
    if (std::find(names_.begin(), names_.end(), name) != names_.end()) return;
    const std::string nearest = nearest_key(name, names_);
    require(false, key, "no row is named '{}'{}", name,
            nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
  }

  void check_overrides(const std::string& key, const std::vector<std::string>& overrides) const {
    for (const std::string& o : overrides) {
      require(!o.starts_with("train.seed"), key, "the table sets train.seed, by `seeds`");
    }
  }

  void check_row(size_t i) const {
    const TableRow& row = config_.rows[i];
    const std::string at = fmt::format("rows[{}]", i);
    const bool good = !row.name.empty() && row.name.find_first_not_of(kNameLetters) == row.name.npos;
    require(good, at + ".name", "'{}': a name consists of letters, digits, _ and -", row.name);
    require(std::count(names_.begin(), names_.end(), row.name) == 1, at + ".name", "two rows are named '{}'",
            row.name);
    for (const std::string& part : row.assemble) {
      check_name(at + ".assemble", part);
      const auto& other =
          *std::find_if(config_.rows.begin(), config_.rows.end(), [&](auto& r) { return r.name == part; });
      require(other.assemble.empty(), at + ".assemble", "'{}' is itself an assembled row", part);
    }
    require(row.assemble.empty() || row.set.empty(), at + ".set", "an assembled row trains nothing");
    require(row.assemble.empty() || !row.alone, at + ".alone", "an assembled row trains nothing");
    check_overrides(at + ".set", row.set);
  }

  void check_claim(size_t i) const {
    const TableClaim& claim = config_.claims[i];
    const std::string at = fmt::format("claims[{}]", i);
    check_name(at + ".left", claim.left);
    check_name(at + ".right", claim.right);
    require(claim.left != claim.right, at + ".right", "'{}' is on both sides", claim.right);
    const bool equal = claim.direction == Direction::equal;
    require(equal == (claim.margin > 0), at + ".margin", "{}: {}", claim.margin,
            equal ? "equal needs a positive margin" : "only equal takes a margin");
  }

  const std::string& path_;
  const Document& document_;
  const TableConfig& config_;
  std::vector<std::string> names_;
};

}  // namespace

TableConfig read_table_config(const std::string& path) {
  TableConfig config;
  const Document document = Document::load(path);
  read_config(document, config);
  Checker(path, document, config).check();
  for (TableRow& row : config.rows) {
    if (row.label.empty()) row.label = row.name;
  }
  return config;
}

}  // namespace burrow::train
