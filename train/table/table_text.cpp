// A table's report as Markdown, CSV and JSON.

#include "tensor/json.h"
#include "train/run/evaluate.h"
#include "train/table/table_report.h"

namespace burrow::train {
namespace {

using Json = nlohmann::ordered_json;

size_t width_of(const std::string& text) {  // in UTF-8 characters
  size_t width = 0;
  for (const char c : text) width += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return width;
}

// Cells are padded to equal width, so that the source is readable too; the first column is left-aligned.
std::string markdown_table(const std::vector<std::vector<std::string>>& lines, bool numbers) {
  std::vector<size_t> widths(lines[0].size(), 3);
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], width_of(line[i]));
  }
  std::string text;
  for (size_t l = 0; l < lines.size(); ++l) {
    std::string rule;
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string padding(widths[i] - width_of(lines[l][i]), ' ');
      const bool right = numbers && i > 0;
      text +=
          right ? fmt::format("| {}{} ", padding, lines[l][i]) : fmt::format("| {}{} ", lines[l][i], padding);
      rule += fmt::format("|{}{}", std::string(widths[i] + 1, '-'), right ? ":" : "-");
    }
    text += "|\n";
    if (l == 0) text += rule + "|\n";
  }
  return text;
}

std::string score_text(const BySeed& values) {
  const Summary s = summarize(values);
  if (s.n == 0) return "-";
  return s.error ? fmt::format("{:.2f} ± {:.2f}", s.mean, *s.error) : fmt::format("{:.2f}", s.mean);
}

std::string p_text(double p) { return p < 0.0005 ? "< 0.001" : fmt::format("{:.3f}", p); }
std::string interval_text(const Comparison& c) {
  return c.test ? fmt::format("[{:+.2f}, {:+.2f}]", c.test->low, c.test->high) : "-";
}
std::string difference_text(const Comparison& c) {
  if (c.pairs == 0) return "-";
  if (!c.test) return fmt::format("{:+.2f}", c.difference);
  return fmt::format("{:+.2f} {}, p {}", c.difference, interval_text(c), p_text(c.test->p));
}

std::string count_text(int64_t n) {  // 29184 as 29,184
  if (n < 1000) return std::to_string(n);
  return fmt::format("{},{:03}", count_text(n / 1000), n % 1000);
}

std::string steps_text(const RowReport& row) {
  if (row.fewest_steps == row.most_steps) return count_text(row.most_steps);
  return fmt::format("{} to {}", count_text(row.fewest_steps), count_text(row.most_steps));
}

std::vector<std::string> row_line(const TableReport& report, const RowReport& row) {
  std::vector<std::string> line{row.row.label, std::to_string(row.seeds)};
  for (const BySeed& values : row.scores) line.push_back(score_text(values));
  if (!report.plan->config.reference.empty()) {
    line.push_back(row.differences.empty() ? "" : difference_text(row.differences.back()));
  }
  const bool any = row.total > 0;
  line.push_back(any ? count_text(row.trainable) : "-");
  line.push_back(any ? count_text(row.active) : "-");
  line.push_back(any ? count_text(row.total) : "-");
  line.push_back(row.active_experts > 0 ? fmt::format("{:.2f}", row.active_experts) : "-");
  line.push_back(row.tokens_per_second > 0 ? fmt::format("{:.0f}", row.tokens_per_second) : "-");
  line.push_back(row.peak_memory > 0 ? fmt::format("{:.0f}", row.peak_memory / (1 << 20)) : "-");
  line.push_back(any ? steps_text(row) : "-");
  return line;
}

std::string scores_table(const TableReport& report) {
  const TableConfig& config = report.plan->config;
  std::vector<std::vector<std::string>> lines{{"row", "seeds"}};
  lines[0].insert(lines[0].end(), report.scores.begin(), report.scores.end());
  if (!config.reference.empty()) {
    const TableRow& reference = config.rows[report.plan->row_named(config.reference)];
    lines[0].push_back("mean against " + reference.label);
  }
  for (const char* column : {"trained", "active", "all", "experts", "tokens/s", "MiB", "steps"})
    lines[0].push_back(column);
  for (const RowReport& row : report.rows) {
    if (!row.row.part) lines.push_back(row_line(report, row));
  }
  const auto baseline = [&](const char* label, double Baselines::*value) {
    std::vector<std::string> line{label, ""};
    for (const Baselines& b : report.baselines) line.push_back(fmt::format("{:.2f}", b.*value));
    line.resize(lines[0].size());
    lines.push_back(std::move(line));
  };
  if (!report.baselines.empty()) {
    baseline("chance", &Baselines::chance);
    baseline("majority", &Baselines::majority);
    baseline("blind", &Baselines::blind);
  }
  return markdown_table(lines, true);
}

// For tables of multiple-choice items: the supervised tokens of each row.
std::string losses(const TablePlan& plan) {
  const bool choices = std::any_of(plan.run.data.sets.begin(), plan.run.data.sets.end(),
                                   [](const DataSet& d) { return d.format == data::Format::choices; });
  if (!choices) return "";
  std::vector<std::string> all, answers;
  for (size_t r = 0; r < plan.config.rows.size(); ++r) {
    const TableRow& row = plan.config.rows[r];
    if (row.assemble.empty()) (plan.losses[r] == data::Supervision::all ? all : answers).push_back(row.label);
  }
  if (all.empty()) return "Loss on the answers alone.\n";
  if (answers.empty()) return "Loss on all tokens, prompts too.\n";
  return fmt::format("Loss on the answers alone: {}; on all tokens, prompts too: {}.\n",
                     fmt::join(answers, ", "), fmt::join(all, ", "));
}

std::string notes(const TableReport& report) {
  std::string text =
      "\ntrained, active, all: parameters that are trained, that of these one token uses (the most it can, "
      "where the number of its experts varies), of the whole model. experts: those whose weight is not 0, of "
      "a token at the end of training, mean over routers and sets. tokens/s: median of the cells; MiB: the "
      "largest peak of tensor memory.\n";
  if (!report.plan->config.reference.empty()) {
    text += "Differences are paired by seed, with 95 % t intervals and uncorrected p.\n";
  }
  for (const RowReport& row : report.rows) {
    if (row.row.assemble.empty() || row.row.alone) continue;
    text += fmt::format("{}: each set from the row trained on it ({}); parameters and steps are sums.\n",
                        row.row.label, fmt::join(row.row.assemble, ", "));
  }
  std::vector<std::string> alone;
  for (const RowReport& row : report.rows) {
    if (row.row.alone) alone.push_back(row.row.label);
  }
  if (!alone.empty()) {
    text += fmt::format("An adapter for each set: {}. Parameters are one adapter's, steps the sum of all.\n",
                        fmt::join(alone, "; "));
  }
  text += losses(*report.plan);
  if (!report.no_baselines.empty()) {
    return text + fmt::format("No baselines: {}.\n", report.no_baselines);
  }
  return text +
         "chance: uniform over the training answers to the exact question, or over an item's choices; "
         "majority: the most frequent training answer, or its label; blind: the most frequent one to the "
         "exact question, without the image or the other choices.\n";
}

std::string claims_table(const TableReport& report) {
  if (report.claims.empty()) return "";
  const TablePlan& plan = *report.plan;
  std::vector<std::vector<std::string>> lines{
      {"claim", "source", "compared", "difference", "95 % interval", "p", "corrected", "verdict"}};
  for (const ClaimReport& c : report.claims) {
    const auto label = [&](const std::string& name) { return plan.config.rows[plan.row_named(name)].label; };
    const bool equal = c.claim.direction == Direction::equal;
    const char* sign = equal ? "=" : c.claim.direction == Direction::greater ? ">" : "<";
    std::string compared = fmt::format("{} {} {}", label(c.claim.left), sign, label(c.claim.right));
    if (equal) compared += fmt::format(" within {}", c.claim.margin);
    if (c.claim.score != "mean") compared += fmt::format(" ({})", c.claim.score);
    const Comparison& d = c.comparison;
    lines.push_back({c.claim.text, c.claim.source, compared,
                     d.pairs ? fmt::format("{:+.2f} (n = {})", d.difference, d.pairs) : "-", interval_text(d),
                     d.test && !equal ? p_text(d.test->p) : "-",
                     d.test && !equal ? p_text(*c.corrected_p) : "-",
                     fmt::format("**{}**", name_of(c.verdict))});
  }
  return "\n## The paper's claims\n\n" + markdown_table(lines, false) +
         "\nGreater and less: paired t test over seeds, Holm's correction over these claims, alpha 0.05. "
         "Equal: reproduced when the 95 % interval lies within the margin, contradicted when it lies beyond; "
         "these stand outside the correction. Differences are left - right, in points.\n";
}

std::string groups_text(const TableReport& report) {
  if (report.groups.empty()) return "";
  std::string text = "\n## Best of each group, by mean\n\n";
  for (const GroupReport& g : report.groups) {
    text += g.best.empty() ? fmt::format("- {}: no row has all its seeds", g.group)
                           : fmt::format("- {}: **{}**, {:.2f}{}", g.group, g.best, g.score.mean,
                                         g.score.error ? fmt::format(" ± {:.2f}", *g.score.error) : "");
    if (g.complete < g.rows) text += fmt::format(" ({} of {} rows are complete)", g.complete, g.rows);
    text += "\n";
  }
  return text;
}

std::string or_unknown(const std::vector<std::string>& values) {
  return values.empty() ? "unknown" : fmt::format("{}", fmt::join(values, " and "));
}

// The devices of the cells, unless all ran on the CPU, which is named already.
std::string devices_text(const TableReport& report) {
  if (report.devices.empty() || report.devices == std::vector<std::string>{"cpu"}) return "";
  return fmt::format("; on {}", fmt::join(report.devices, " and "));
}

Json number(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json json_of(const Comparison& c) {
  Json json{{"pairs", c.pairs}, {"difference", c.pairs ? Json(c.difference) : Json(nullptr)}};
  for (const char* key : {"standard_error", "low", "high", "p"}) json[key] = nullptr;
  if (c.test) {
    json["standard_error"] = c.test->standard_error;
    json["low"] = c.test->low;
    json["high"] = c.test->high;
    json["p"] = c.test->p;
  }
  return json;
}

Json json_of(const TableReport& report, const RowReport& row) {
  Json json{{"name", row.row.name}, {"label", row.row.label},       {"group", row.row.group},
            {"set", row.row.set},   {"assemble", row.row.assemble}, {"alone", row.row.alone},
            {"seeds", row.seeds}};
  for (size_t s = 0; s < report.scores.size(); ++s) {
    const Summary summary = summarize(row.scores[s]);
    Json score{{"mean", summary.n ? Json(summary.mean) : Json(nullptr)},
               {"standard_error", number(summary.error)}};
    for (size_t k = 0; k < row.scores[s].size(); ++k) {
      score["by_seed"][std::to_string(report.plan->seeds[k])] = number(row.scores[s][k]);
    }
    if (!row.differences.empty()) score["against_reference"] = json_of(row.differences[s]);
    json["scores"][report.scores[s]] = std::move(score);
  }
  json["parameters"] = {{"trainable", row.trainable}, {"active", row.active}, {"total", row.total}};
  json["steps"] = {{"fewest", row.fewest_steps}, {"most", row.most_steps}};
  json["active_experts"] = row.active_experts;
  json["tokens_per_second"] = row.tokens_per_second;
  json["peak_memory_bytes"] = row.peak_memory;
  return json;
}

Json json_of(const ClaimReport& c) {
  Json json{{"text", c.claim.text},   {"source", c.claim.source},
            {"left", c.claim.left},   {"direction", name_of(c.claim.direction)},
            {"right", c.claim.right}, {"score", c.claim.score}};
  if (c.claim.direction == Direction::equal) json["margin"] = c.claim.margin;
  json.update(json_of(c.comparison));
  json["corrected_p"] = number(c.corrected_p);
  json["verdict"] = name_of(c.verdict);
  return json;
}

std::string quoted(const std::string& text) {  // for CSV
  std::string result = "\"";
  for (const char c : text) result += c == '"' ? "\"\"" : std::string(1, c);
  return result + "\"";
}

std::string csv_number(const std::optional<double>& value) { return value ? fmt::format("{}", *value) : ""; }

}  // namespace

std::string scores_are(const TablePlan& plan) {
  std::vector<std::pair<std::string, std::vector<std::string>>> kinds;
  for (const DataSet& d : plan.run.data.sets) {
    if (std::find(plan.sets.begin(), plan.sets.end(), d.name) == plan.sets.end()) continue;
    const std::string kind = scoring_of(plan.run.eval, d);
    const auto known =
        std::find_if(kinds.begin(), kinds.end(), [&](const auto& k) { return k.first == kind; });
    if (known == kinds.end())
      kinds.push_back({kind, {d.name}});
    else
      known->second.push_back(d.name);
  }
  std::string text;
  for (const auto& [kind, sets] : kinds) {
    text += text.empty() ? "" : "; ";
    text += kinds.size() == 1 ? kind : fmt::format("{} ({})", kind, fmt::join(sets, ", "));
  }
  text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return text;
}

std::string to_markdown(const TableReport& report) {
  const TablePlan& plan = *report.plan;
  std::string text = fmt::format("# {}\n\n", plan.config.title.empty() ? plan.file : plan.config.title);
  if (plan.config.quick) text += "**quick: fewer steps and seeds, not the table's numbers**\n\n";
  text += fmt::format(
      "{} on the {} split in percent, mean ± standard error over {} seed{} ({}). {} of {} cells are "
      "finished. Commit {}; {}; threads per cell: {}{}.\n\n",
      scores_are(plan), plan.run.eval.split, plan.seeds.size(), plan.seeds.size() == 1 ? "" : "s",
      fmt::join(plan.seeds, ", "), report.finished, report.cells, or_unknown(report.commits),
      or_unknown(report.cpus), or_unknown(report.threads), devices_text(report));
  return text + scores_table(report) + notes(report) + claims_table(report) + groups_text(report);
}

std::string to_csv(const TableReport& report) {
  std::string text =
      "row,label,group,score,seeds,mean,standard_error,pairs,difference,low,high,p,trainable,active,total,"
      "active_experts,tokens_per_second,peak_memory_bytes,fewest_steps,most_steps\n";
  for (const RowReport& row : report.rows) {
    for (size_t s = 0; s < report.scores.size(); ++s) {
      const Summary summary = summarize(row.scores[s]);
      const Comparison d = row.differences.empty() ? Comparison{} : row.differences[s];
      const auto of_test = [&](double PairedTest::*member) {
        return d.test ? csv_number((*d.test).*member) : "";
      };
      text += fmt::format("{},{},{},{},{},{},{},", row.row.name, quoted(row.row.label), quoted(row.row.group),
                          quoted(report.scores[s]), summary.n,
                          summary.n ? fmt::format("{}", summary.mean) : "", csv_number(summary.error));
      text += fmt::format("{},{},{},{},{},", d.pairs, d.pairs ? fmt::format("{}", d.difference) : "",
                          of_test(&PairedTest::low), of_test(&PairedTest::high), of_test(&PairedTest::p));
      text +=
          fmt::format("{},{},{},{},{},{},{},{}\n", row.trainable, row.active, row.total, row.active_experts,
                      row.tokens_per_second, row.peak_memory, row.fewest_steps, row.most_steps);
    }
  }
  for (size_t s = 0; s < report.baselines.size(); ++s) {
    const Baselines& b = report.baselines[s];
    for (const auto& [name, value] :
         {std::pair("chance", b.chance), {"majority", b.majority}, {"blind", b.blind}}) {
      text += fmt::format("{0},\"{0}\",\"\",{1},,{2},,,,,,,,,,,,,,\n", name, quoted(report.scores[s]), value);
    }
  }
  return text;
}

std::string to_json(const TableReport& report) {
  const TablePlan& plan = *report.plan;
  Json json{{"title", plan.config.title},  {"config", plan.file},
            {"quick", plan.config.quick},  {"unit", "percent"},
            {"scoring", scores_are(plan)}, {"split", plan.run.eval.split},
            {"seeds", plan.seeds},         {"reference", plan.config.reference},
            {"cells", report.cells},       {"finished", report.finished},
            {"overrides", plan.overrides}, {"commits", report.commits},
            {"cpus", report.cpus},         {"threads", report.threads},
            {"devices", report.devices}};
  json["rows"] = Json::array();
  for (const RowReport& row : report.rows) json["rows"].push_back(json_of(report, row));
  json["baselines"] = Json::object();
  for (size_t s = 0; s < report.baselines.size(); ++s) {
    const Baselines& b = report.baselines[s];
    json["baselines"][report.scores[s]] = {
        {"chance", b.chance}, {"majority", b.majority}, {"blind", b.blind}};
  }
  json["claims"] = Json::array();
  for (const ClaimReport& c : report.claims) json["claims"].push_back(json_of(c));
  json["groups"] = Json::array();
  for (const GroupReport& g : report.groups) {
    json["groups"].push_back({{"group", g.group},
                              {"best", g.best.empty() ? Json(nullptr) : Json(g.best)},
                              {"complete", g.complete},
                              {"rows", g.rows}});
  }
  return json.dump(2) + "\n";
}

}  // namespace burrow::train
