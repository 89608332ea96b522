
#include "tensor/json.h"
#include "tests/support/table_testing.h"

using namespace burrow;
using namespace burrow::train;
using namespace burrow::train::testing;

TEST_CASE("means, errors and paired intervals over seeds") {
  const Summary s = summarize({1.0, std::nullopt, 2.0, 4.0});
  CHECK(s.n == 3);
  close(s.mean, 7.0 / 3);
  close(*s.error, std::sqrt(7.0) / 3);  // sd = sqrt(7/3)
  CHECK(summarize({std::nullopt}).n == 0);
  CHECK(!summarize({5.0}).error);
  // Differences 1, 2, 3, 4; the last seed has no partner.
  const Comparison c = compare({2.0, 4.0, 6.0, 8.0, 1.0}, {1.0, 2.0, 3.0, 4.0, std::nullopt});
  CHECK(c.pairs == 4);
  close(c.difference, 2.5);
  const double half = 3.182446305284263 * std::sqrt(5.0 / 12);  // t(0.975; 3), sd = sqrt(5/3)
  close(c.test->low, 2.5 - half);
  close(c.test->high, 2.5 + half);
  CHECK(compare({1.0}, {std::nullopt}).pairs == 0);
  CHECK(compare({3.0}, {1.0}).difference == 2);
  CHECK(!compare({3.0}, {1.0}).test);
}

TEST_CASE("each verdict, with Holm's correction") {
  const BySeed zero(4, 0.0);
  const BySeed clear{10.0, 10.1, 9.9, 10.0}, likely{1.0, 2.0, 3.0, 4.0}, noise{1.0, -1.0, 2.0, -2.0};
  close(compare(likely, zero).test->p, 0.03046629166217097);  // t = sqrt(15), 3 degrees: closed form
  const auto judged = [&](const std::vector<std::pair<Direction, BySeed>>& cases, double margin = 2) {
    std::vector<TableClaim> claims;
    std::vector<Comparison> comparisons;
    for (const auto& [direction, left] : cases) {
      claims.push_back({"", "l", "r", direction, "mean", margin, ""});
      comparisons.push_back(compare(left, zero));
    }
    return judge(claims, comparisons);
  };
  using enum Direction;
  using enum Verdict;
  auto r = judged({{greater, clear}, {less, clear}, {greater, noise}});
  CHECK(r[0].verdict == reproduced);
  CHECK(r[1].verdict == contradicted);
  CHECK(r[2].verdict == undecided);
  close(*r[0].corrected_p, 3 * r[0].comparison.test->p);
  // p = 0.03 is enough alone or beside a clearly smaller p; two claims with 0.03 are corrected to 0.06 each.
  CHECK(judged({{greater, likely}})[0].verdict == reproduced);
  r = judged({{greater, likely}, {less, clear}});
  CHECK(r[0].verdict == reproduced);
  r = judged({{greater, likely}, {less, likely}});
  CHECK(r[0].verdict == undecided);
  CHECK(r[1].verdict == undecided);
  close(*r[0].corrected_p, 2 * 0.03046629166217097);
  // A claim without a test still counts in the correction.
  r = judged({{greater, likely}, {greater, BySeed(4)}});
  CHECK(r[0].verdict == undecided);
  CHECK(r[1].verdict == undecided);
  close(*r[0].corrected_p, 2 * 0.03046629166217097);
  // Equality is decided by the interval only and is not part of the family.
  const BySeed small{0.1, -0.1, 0.2, 0.0};
  r = judged({{equal, small}, {equal, clear}, {equal, likely}, {greater, likely}});
  CHECK(r[0].verdict == reproduced);
  CHECK(r[1].verdict == contradicted);
  CHECK(r[2].verdict == undecided);
  CHECK(r[3].verdict == reproduced);
  CHECK(!r[0].corrected_p);
  CHECK(judged({{equal, clear}}, 11)[0].verdict == reproduced);
  CHECK(judged({{equal, BySeed(4)}})[0].verdict == undecided);
  CHECK(judged({{greater, zero}})[0].verdict == undecided);
}

TEST_CASE("a table from finished cells") {
  const Folder folder;
  put_run(folder);
  const std::string file = folder.put("table.toml", table_text(folder, std::string(kRows) + R"(
[[claims]]
text = "mixing costs"
left = "mix"
direction = "less"
right = "singles"
[[claims]]
text = "MoLE gains"
left = "mole"
right = "mix"
score = "cats"
[[claims]]
text = "about equal"
left = "mole"
direction = "equal"
right = "singles"
margin = 1
)"));
  TableCommand command{file, folder / "out", {"train.lr=1e-3"}};
  const TablePlan plan = plan_table(command);
  CHECK(plan.cells.size() == 16);
  CHECK(plan.sets == std::vector<std::string>{"cats", "dogs"});
  const std::vector<double> noise{0, 0.01, -0.01, 0};
  for (int64_t seed = 1; seed <= 4; ++seed) {
    const double e = noise[static_cast<size_t>(seed - 1)];
    finish(cell_of(plan, "cats", seed), result_text(0.80 + e, 0.05), 100.0 * static_cast<double>(seed));
    finish(cell_of(plan, "mix", seed), result_text(0.70 + e, 0.50 - e), 50);
    if (seed == 4) continue;
    finish(cell_of(plan, "dogs", seed), result_text(0.01, 0.60 + e, 9 + seed));
  }
  finish(cell_of(plan, "mole", 2), result_text(0.75, 0.65));
  CHECK(read_cell(cell_of(plan, "mole", 1), plan.sets) == std::nullopt);

  const TableReport report = make_report(plan);
  CHECK(report.cells == 16);
  CHECK(report.finished == 12);
  CHECK(report.commits == std::vector<std::string>{"abc"});
  const auto& cats = report.rows[0];
  close(summarize(cats.scores[0]).mean, 80);
  close(*summarize(cats.scores[0]).error, 100 * std::sqrt(2e-4 / 3) / 2);
  close(summarize(cats.scores[1]).mean, 5);
  CHECK(summarize(cats.scores[2]).n == 0);  // one domain: no mean
  CHECK(cats.tokens_per_second == 250);
  const auto& singles = report.rows[2];
  CHECK(singles.seeds == 3);
  close(summarize(singles.scores[0]).mean, 80);
  CHECK(summarize(singles.scores[0]).n == 4);
  close(summarize(singles.scores[1]).mean, 60);
  CHECK(summarize(singles.scores[2]).n == 3);
  close(summarize(singles.scores[2]).mean, 70);
  close(*singles.scores[2][1], 71);
  CHECK(singles.trainable == 60);
  CHECK(singles.fewest_steps == 20);
  CHECK(singles.most_steps == 22);
  close(singles.differences[2].difference, 10);
  CHECK(singles.differences[2].pairs == 3);
  CHECK(report.rows[3].differences.empty());
  CHECK(report.rows[4].differences[2].pairs == 1);
  // q: a once, b twice; r: c three times; "new" is not in the training file. The majority is c.
  close(report.baselines[0].chance, 100 * (0.5 + 0.5 + 1 + 1.0 / 3) / 4);
  close(report.baselines[0].majority, 25);
  close(report.baselines[0].blind, 50);
  CHECK(report.baselines.size() == 3);
  CHECK(report.claims[0].verdict == Verdict::reproduced);
  CHECK(report.claims[1].verdict == Verdict::undecided);
  CHECK(report.claims[2].verdict == Verdict::undecided);
  CHECK(report.groups[0].best == "mix");
  CHECK(report.groups[0].complete == 1);
  CHECK(report.groups[0].rows == 2);

  const std::string markdown = to_markdown(report);
  CHECK_MESSAGE(contains(markdown, "12 of 16 cells are finished. Commit abc; some CPU; threads per cell: 1."),
                markdown);
  CHECK(contains(markdown, "| 80.00 ± 0.41 |"));
  CHECK(contains(markdown, "| each, alone |     3 |"));
  CHECK(contains(markdown, "**reproduced**"));
  CHECK(!contains(markdown, "quick"));
  CHECK(contains(markdown, "- g: **mix**, 60.00 ± 0.00 (1 of 2 rows are complete)"));

  TableReport elsewhere = report;
  elsewhere.devices = {"cpu", "cuda: a GPU"};
  CHECK(contains(to_markdown(elsewhere), "threads per cell: 1; on cpu and cuda: a GPU."));

  const std::string csv = to_csv(report);
  CHECK(std::count(csv.begin(), csv.end(), '\n') == 1 + 5 * 3 + 3 * 3);
  CHECK(contains(csv, "\nsingles,\"each, alone\",\"\",\"mean\",3,70,"));
  CHECK(contains(csv, "\ncats,\"cats\",\"\",\"mean\",0,,,0,,,,,30,20,1000,2,250,419430400,10,10\n"));
  CHECK(contains(csv, "\nblind,\"blind\",\"\",\"dogs\",,50,"));
  const size_t commas = 19;
  for (size_t begin = 0; begin < csv.size();) {
    const size_t end = csv.find('\n', begin);
    const std::string line = csv.substr(begin, end - begin);
    CHECK_MESSAGE(std::count(line.begin(), line.end(), ',') ==
                      commas + static_cast<size_t>(line.starts_with("singles")),
                  line);
    begin = end + 1;
  }

  const auto json = nlohmann::json::parse(to_json(report));
  CHECK(json["rows"][4]["scores"]["cats"]["by_seed"]["1"].is_null());
  close(json["rows"][4]["scores"]["cats"]["by_seed"]["2"].get<double>(), 75);
  CHECK(json["rows"][0]["scores"]["mean"]["mean"].is_null());
  CHECK(json["claims"][0]["verdict"] == "reproduced");
  CHECK(json["claims"][2]["corrected_p"].is_null());
  CHECK(json["claims"][2]["direction"] == "equal");
  CHECK(json["overrides"][0] == "train.lr=1e-3");
  close(json["baselines"]["mean"]["blind"].get<double>(), 50);

  fs::remove(folder / "train.json");
  const TableReport without = make_report(plan);
  CHECK(without.baselines.empty());
  CHECK(contains(to_markdown(without), "No baselines: [files] cannot open "));
}

TEST_CASE("cells: order, overrides, states") {
  const Folder folder;
  put_run(folder);
  const std::string more = "samples_share = 0.1\nset = ['train.warmup=0.5']\n" + std::string(kRows);
  const std::string file = folder.put("table.toml", table_text(folder, more));
  TablePlan plan = plan_table({file, folder / "out", {"train.lr=1e-3"}, 0, 2});
  CHECK(plan.cells.size() == 8);
  const Cell& cell = cell_of(plan, "dogs", 2);
  CHECK(cell.path == folder / "out/dogs/seed-2");
  CHECK(cell.samples == 5);
  CHECK(cell.overrides == std::vector<std::string>{"train.warmup=0.5", "data.use=[\"dogs\"]",
                                                   "data.samples=50", "data.samples=5", "train.lr=1e-3",
                                                   "train.seed=2"});
  // The table compares with the config that the child writes.
  CHECK(write_run_config(read_run_config(plan.config.run, cell.overrides)) == cell.config);
  CHECK(plan.partial(0));
  CHECK(!plan.partial(2));
  CHECK(!plan.partial(3));

  CHECK(state_of(cell) == CellState::missing);
  fs::create_directories(cell.path);
  CHECK(state_of(cell) == CellState::missing);
  folder.put("out/dogs/seed-2/config.toml", cell.config);
  CHECK(state_of(cell) == CellState::started);
  finish(cell, result_text(0, 1));
  CHECK(state_of(cell) == CellState::finished);
  const TablePlan other = plan_table({file, folder / "out", {"train.lr=2e-3"}});
  CHECK(error_of([&] { state_of(cell_of(other, "dogs", 2)); }) ==
        fmt::format("{}: holds a run with another config: it has `lr = 0.001`, the table `lr = 0.002`; "
                    "choose another --out, or remove that folder",
                    folder / "out/dogs/seed-2"));
  CHECK(contains(error_of([&] { make_report(other); }), "another config"));
  folder.put("out/dogs/seed-2/result.json", "{\"score\": {}}");
  CHECK(contains(error_of([&] { read_cell(cell, plan.sets); }), "not the result of a run of this table"));
}

TEST_CASE("a row with an adapter for each set") {
  const Folder folder;
  put_run(folder);
  const std::string row =
      "[[rows]]\nname = \"own\"\nlabel = \"own adapters\"\nalone = true\nset = ['train.lr=1e-3']\n";
  const std::string path = folder.put("table.toml", table_text(folder, kRows + row));
  const TablePlan plan = plan_table({path, folder / "out", {}});
  CHECK(plan.cells.size() == 16 + 8);
  CHECK(plan.trained_on[plan.row_named("own_dogs")] == std::vector<std::string>{"dogs"});
  CHECK(contains(cell_of(plan, "own_cats", 2).config, "lr = 0.001"));
  for (int64_t seed = 1; seed <= 4; ++seed) {
    finish(cell_of(plan, "own_cats", seed), result_text(0.8, 0.1));
    finish(cell_of(plan, "own_dogs", seed), result_text(0.2, 0.6));
  }
  const TableReport report = make_report(plan);
  const RowReport& own = report.rows[plan.row_named("own")];
  close(summarize(own.scores[0]).mean, 80);
  close(summarize(own.scores[2]).mean, 70);
  CHECK(own.trainable == 30);
  CHECK(own.most_steps == 20);
  const std::string text = to_markdown(report);
  CHECK(!contains(text, "own_cats"));
  CHECK(!contains(text, "own adapters, cats"));
  CHECK(contains(text, "An adapter for each set: own adapters."));

  folder.put("table.toml", table_text(folder, kRows + row + "[[rows]]\nname = \"own_cats\"\n"));
  const TableCommand command{path, folder / "out", {}};
  CHECK(error_of([&] { plan_table(command); }) ==
        path + ": 'own_cats' names both a row and a part of a row with `alone`");
  folder.put("table.toml", table_text(folder, kRows + row + "assemble = [\"cats\"]\n"));
  CHECK(contains(error_of([&] { plan_table(command); }), "trains nothing"));
}

TEST_CASE("invalid tables are refused") {
  const Folder folder;
  put_run(folder);
  const std::string path = folder / "table.toml";
  const auto error = [&](const std::string& more, const std::vector<std::string>& overrides = {}) {
    folder.put("table.toml", table_text(folder, more));
    return error_of([&] { plan_table({path, folder / "out", overrides}); });
  };
  const std::string rows = kRows, claim = rows + "[[claims]]\ntext = \"c\"\n",
                    odd = rows + "[[rows]]\nname = \"odd\"\n",
                    mole = claim + "left = \"mole\"\nright = \"mix\"\n";
  CHECK(error(kRows) == "no error");
  CHECK(error("") == path + ": rows: is missing: [[rows]] tables with name and set");
  CHECK(error("[[rows]]\nname = \"x\"\n") ==
        path + ":4: reference: no row is named 'mix'; did you mean 'x'?");
  CHECK(error(rows + "[[rows]]\nname = \"cats\"\n") == path + ":7: rows[0].name: two rows are named 'cats'");
  CHECK(error("[[rows]]\nname = \"mix\"\n[[rows]]\nname = \"a/b\"\n") ==
        path + ":8: rows[1].name: 'a/b': a name consists of letters, digits, _ and -");
  CHECK(error(claim + "left = \"mile\"\nright = \"mix\"\n") ==
        path + ":25: claims[0].left: no row is named 'mile'; did you mean 'mole'?");
  CHECK(contains(error(claim + "left = \"mole\"\n"), ": claims[0].right: no row is named ''"));
  CHECK(contains(error(claim + "left = \"mix\"\nright = \"mix\"\n"), "'mix' is on both sides"));
  CHECK(contains(error(claim + "direction = \"bigger\"\n"),
                 "claims[0].direction: expected one of greater, less, equal, found 'bigger'"));
  CHECK(contains(error(mole + "direction = \"equal\"\n"),
                 "claims[0].margin: 0: equal needs a positive margin"));
  CHECK(contains(error(mole + "margin = 1\n"), "claims[0].margin: 1: only equal takes a margin"));
  CHECK(error(mole + "score = \"birds\"\n") ==
        path + ": claim 'c': score 'birds': mean, or one of cats, dogs");
  CHECK(contains(error(claim + "left = \"mole\"\nright = \"cats\"\n"), "'cats' trains on only some of the"));
  CHECK(error(claim + "left = \"mole\"\nright = \"cats\"\nscore = \"cats\"\n") == "no error");
  CHECK(error(rows + "[[rows]]\nname = \"half\"\nassemble = [\"cats\"]\n") ==
        path + ": row 'half': no part trains on 'dogs'");
  CHECK(error(odd + "assemble = [\"mix\"]\n") ==
        path + ": row 'odd': 'mix' trains on 2 sets; a part trains on one");
  CHECK(contains(error(odd + "assemble = [\"singles\"]\n"), "'singles' is itself an assembled row"));
  CHECK(error(odd + "set = ['train.sed=3']\n") ==
        path + ": row 'odd': --set: unknown key 'train.sed'; did you mean 'train.seed'?");
  CHECK(contains(error(odd + "set = ['train.seed=3']\n"), "the table sets train.seed, by `seeds`"));
  CHECK(
      contains(error(odd + "set = ['eval.split=validation']\n"), "row 'odd': it is evaluated on other sets"));
  CHECK(contains(error(kRows, {"train.seed=3"}), "the table sets train.seed"));
  CHECK(contains(error("samples_share = -1\n" + std::string(kRows)), "-1: must be positive"));
  CHECK(error(kRows) == "no error");
  CHECK(error_of([&] { plan_table({path, folder / "out", {}, 0, 9}); }) == "--seeds 9: the table has 4");
}

TEST_CASE("baselines") {
  const Folder folder;
  const std::string train = folder.put("a.json", records({{"q", "b"}, {"q", "a"}, {"r", "z"}}));
  const std::string test = folder.put("b.json", records({{"q", "a"}, {"q", "b"}, {"s", "a"}, {"s", "z"}}));
  // All answers are equally frequent: the alphabetically first one is taken.
  const Baselines b = baselines(data::Format::llava, train, test, 0);
  close(b.chance, (0.5 + 0.5 + 1.0 / 3 + 1.0 / 3) / 4);
  CHECK(b.majority == 0.5);
  CHECK(b.blind == 0.5);
  CHECK(baselines(data::Format::llava, train, test, 1).blind == 1);
  CHECK(error_of([&] { baselines(data::Format::llava, folder.put("c.json", "[{}]"), test, 0); }) ==
        folder / "c.json, record 0, conversations: is missing");
  CHECK(error_of([&] { baselines(data::Format::llava, train, folder.put("c.json", "[]"), 0); }) ==
        folder / "c.json: no records");
}

TEST_CASE("averages over some of the sets are scores") {
  const Folder folder;
  put_run(folder);
  const auto plan_of = [&](const std::string& average) {
    const std::string file = folder.put("table.toml", table_text(folder, std::string(kRows) + average + R"(
[[claims]]
text = "mixing costs dogs"
left = "mole"
right = "mix"
score = "barking"
)"));
    return plan_table({file, folder / "out", {}});
  };
  const TablePlan plan = plan_of("[[averages]]\nname = \"barking\"\nsets = [\"dogs\"]\n");
  for (int64_t seed = 1; seed <= 2; ++seed) {
    finish(cell_of(plan, "mix", seed), result_text(0.70, 0.50));
    finish(cell_of(plan, "mole", seed), result_text(0.60, 0.75));
  }
  const TableReport report = make_report(plan);
  CHECK(report.scores == std::vector<std::string>{"cats", "dogs", "barking", "mean"});
  CHECK(report.claims[0].comparison.difference == doctest::Approx(25));
  REQUIRE(report.baselines.size() == 4);
  CHECK(report.baselines[2].majority == report.baselines[1].majority);
  const auto error = [&](const std::string& average) { return error_of([&] { plan_of(average); }); };
  CHECK(
      contains(error("[[averages]]\nname = \"barking\"\nsets = [\"cows\"]\n"), "no set 'cows' is evaluated"));
  CHECK(contains(error("[[averages]]\nname = \"cats\"\nsets = [\"dogs\"]\n"), "needs a name of its own"));
  CHECK(contains(error(""), "score 'barking': mean, or one of cats, dogs"));
}

TEST_CASE("the tables in configs/tables resolve") {
  const fs::path before = fs::current_path();
  fs::current_path(fs::path(BURROW_TEST_FILES).parent_path());
  const TablePlan table = plan_table({"configs/tables/llava_mole_main.toml", "", {}});
  CHECK(table.cells.size() == 9 * 4);
  CHECK(table.out == "runs/llava_mole_main");
  CHECK(cell_of(table, "lora_mix_2x", 4).samples == 96000);
  const TablePlan quick = plan_table({"configs/tables/llava_mole_quick.toml", "", {}});
  CHECK(quick.cells.size() == 9 * 2);
  CHECK(cell_of(quick, "lora_general", 1).samples == 2000);
  CHECK(quick.config.quick);
  const TablePlan sweep = plan_table({"configs/tables/llava_mole_lr_sweep.toml", "", {}});
  CHECK(sweep.cells.size() == 15);
  CHECK(sweep.run.eval.split == "validation");
  CHECK(plan_table({"configs/tables/dynmole.toml", "", {}}).cells.size() == (9 * 8 + 3) * 4);
  CHECK(plan_table({"configs/tables/dynmole_ablations.toml", "", {}}).cells.size() == 14 * 3 * 4);
  CHECK(plan_table({"configs/tables/mola_allocations.toml", "", {}}).cells.size() == 5 * 3 * 4);
  CHECK(plan_table({"configs/tables/factorllm.toml", "", {}}).cells.size() == 17 * 4);
  CHECK(plan_table({"configs/tables/parrot.toml", "", {}}).cells.size() == 8 * 4);
  CHECK(plan_table({"configs/tables/parrot_languages.toml", "", {}}).cells.size() == 6 * 4);
  CHECK(plan_table({"configs/tables/parrot_experts.toml", "", {}}).cells.size() == 5 * 4);
  CHECK(plan_table({"configs/tables/parrot_mmmb.toml", "", {}}).cells.size() == 3 * 4);
  CHECK(plan_table({"configs/tables/parrot_lr_sweep.toml", "", {}}).cells.size() == 8);
  fs::current_path(before);
}
