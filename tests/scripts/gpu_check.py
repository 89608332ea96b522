"""Tests scripts/gpu_check and gpu_report without a GPU, on stub programs that pass, fail, are refused or hang."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = {
    "burrow": """
for last; do [ "$before" = --json ] && json=$last; [ "$before" = --out ] && out=$last; before=$last; done
step() { echo "{\\"device\\": \\"cuda: NVIDIA H100\\", \\"median_seconds\\": $1, \\"tokens_per_second\\": $2, \\"flops_of_4n\\": $3, \\"peak_bytes\\": 1e9}" >$json; }
case "$*" in
  *rank=128*) echo 'burrow: [memory] out of memory on cuda: 2.00 GiB requested'; exit 1 ;;
  *name=dense*) echo 'burrow: no'; exit 1 ;;
  *name=mole*experts=3*) step 0.52 16000 4e14 ;;
  *name=mole*) step 0.6 15000 4e14 ;;
  *"bench train"*) step 0.5 16400 4.5e14 ;;
  table*--report*) cp "$FIGURES/table.json" $out ;;
  table*"--device cuda"*) mkdir -p $out; exec sleep 30 ;;
  table*) exit 3 ;;
esac
""",
    "test_ops": """
case "$*" in
  *cudnn*) exit 1 ;;
  *fast*) echo 'worst error, CUDA with TF32           4.0e-04  linear, odd, d_b' ;;
  *) echo 'worst error, CUDA in bf16             5.7e-03  linear, aligned, y'
     echo 'worst error, CUDA, parameters in f32  6.1e-03  linear_with_lora, odd, d_w'; exit 1 ;;
esac
""",
    "test_cuda": "exit 77",
    "bench_cuda": """echo '{"device": "NVIDIA H100", "product": 6e14, "kernels": [{"name": "rms_norm", "seconds": 5e-5, "bytes": 134e6, "share": 0.8},
  {"name": "group_by_expert", "seconds": 5e-6, "bytes": 3e5, "share": 0.1}, {"name": "gather_matmul_nt, top-1, R = 32", "seconds": 9e-5, "bytes": 68e6, "share": 0.2},
  {"name": "attention, causal", "seconds": 4e-4, "flops": 1, "share": 0.2}, {"name": "attention by cuDNN, causal", "seconds": 1e-4, "flops": 1, "share": 0.8}]}' >$2""",
}
PEERS = {"torch": "2", "transformers": "5", "peft": "0", "attention": "by offsets", "cases": [
    {"name": "LoRA, packed", "outcome": "measured", "median_seconds": 0.6, "tokens_per_second": 13000, "micro_batches": 1,
     "rows_computed": 8192, "tokens": 8192, "peak_bytes": 2**30},
    {"name": "LoRA, padded", "outcome": "out of memory"}]}
TABLE = {"finished": 1, "cells": 2, "devices": ["cuda: NVIDIA H100"], "rows": [
    {"name": "lora", "label": "LoRA", "scores": {"mean": {"mean": 70.0, "standard_error": 0.3}, "cats": {"mean": 60.0, "standard_error": None}}}]}


def write(path, text, program=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n" if program else text)
    path.chmod(0o755)


def make_tree(tree):
    """A tree with the scripts, a recorded table, stub peers and a bundle of stub programs."""
    (tree / "scripts/gpu").mkdir(parents=True, exist_ok=True)
    for name in ("gpu_check", "gpu/gpu_report", "gpu/gpu_figures.py"):
        shutil.copy(ROOT / "scripts" / name, tree / "scripts" / name)
    write(tree / "docs/results/gpu.md", (ROOT / "docs/results/gpu.md").read_text())
    cpu = json.loads(json.dumps(TABLE))
    cpu["rows"][0]["scores"]["mean"] = {"mean": 70.5, "standard_error": 0.4}
    write(tree / "docs/results/some.json", json.dumps(cpu))
    write(tree / "figures/table.json", json.dumps(TABLE))
    write(tree / "data/domains/manifest.json", "{}")
    for name, text in PROGRAMS.items():
        write(tree / "bundle" / name, text, program=True)
    write(tree / "bundle/COMMIT", "abc\n")


def run(tree, *arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=tree, capture_output=True, text=True, env={"FIGURES": str(tree / "figures"), "PATH": "/usr/bin:/bin"})
    return done.returncode, done.stdout + done.stderr


def facts_of(tree, part):
    return json.loads((tree / f"out/{part}.json").read_text())


def check_part(tree, part, expected, code, *more):
    """The outcomes in PART.json, which begin as expected."""
    got, printed = run(tree, "scripts/gpu_check", f"--{part}", *more, "--out", "out", "--bundle", "bundle")
    facts = facts_of(tree, part)
    outcomes = {r["label"]: r["outcome"] for r in facts["results"]}
    for label, outcome in expected.items():
        assert outcomes.get(label, "").startswith(outcome), (label, outcomes, printed)
        assert outcomes[label] in printed.split("commit abc")[1], printed  # the summary hides nothing
    assert got == code, (got, printed)
    return facts, printed


def main(tree):
    make_tree(tree)
    facts, _ = check_part(tree, "tests", {"device": "passed", "ops on the device": "failed (1)", "ops with TF32": "passed", "kernels and methods on the device": "skipped"}, 1)
    assert facts["results"][2]["worst_errors"] == {"CUDA with TF32": [4e-4, "linear, odd, d_b"]}, facts
    page, untouched = tree / "docs/results/gpu.md", (tree / "docs/results/gpu.md").read_text()
    assert run(tree, "scripts/gpu/gpu_report", "out") == (0, "")  # of this part alone
    for line in ("| ops in bf16 | below 1e-2 | `gpu_check --tests` | 6.1e-03 (linear_with_lora, odd, d_w) |\n",
                 "| ops in f32 with TF32 (`--fast`) | below 1e-3 | `gpu_check --tests` | 4.0e-04 (linear, odd, d_b) |\n",
                 "| ops in f32 against the CPU in f64 | below 1e-5 | `gpu_check --tests` | not measured |\n"):
        assert line in page.read_text(), page.read_text()
    page.write_text(untouched)

    peers = tree / "scripts/gpu/bench_gpu_peers"
    write(peers, "import sys\nsys.exit('refused: peft not installed')\n")
    facts, _ = check_part(tree, "bench", {"peers: their own check": "refused: peft not installed", "peers": "left out"}, 1)
    assert facts["peers"] is None and facts["verdicts"][5]["reached"] == "not measured", facts
    write(peers, f"import sys\nif '--check' not in sys.argv:\n  open(sys.argv[-1], 'w').write({json.dumps(PEERS)!r})\n")
    facts, printed = check_part(tree, "bench", {"LoRA r = 32, FFN": "passed", "MoLE E = 8, r = 128": "out of memory", "dense E = 3, r = 32": "failed (1)",
                                                "peers": "passed", "kernels": "passed"}, 1)
    reached = [v["reached"] for v in facts["verdicts"]]
    assert reached == ["yes", "yes", "**no**", "not measured", "not measured", "yes", *["not measured"] * 5, "**no**", "yes"], reached
    assert "| LoRA, padded | out of memory |" in printed and "1.26x" in printed, printed

    check = tree / "scripts/gpu_check"
    check.write_text(check.read_text().replace("LIMIT = 9 * 60 - 45", "LIMIT = 6"))  # the table on cuda hangs
    check_part(tree, "table", {"other on cuda": "left out: no time", "other on cpu": "failed (3)"}, 1, "other")
    facts, _ = check_part(tree, "table", {"some on cuda": "left out: more than", "some on cuda, finished cells": "passed"}, 0, "some")
    assert [(s["score"], round(s["errors"], 6)) for s in facts["scores"]] == [("mean", 1.0)], facts

    assert run(tree, "scripts/gpu/gpu_report", "out") == (0, "")
    once = page.read_text()
    claimed = {cells[1].strip(): cells[-2].strip() for cells in (line.split("|") for line in once.split("## Kernels")[0].splitlines()) if len(cells) > 2}
    for v in facts_of(tree, "bench")["verdicts"]:
        if not (v.get("least") or v.get("most")):
            continue
        assert (claimed[v["what"]] == "not measured") == (v["value"] is None), (v, claimed)
    assert claimed["own attention: forward speed over cuDNN's"] == "25.0 %", claimed
    assert claimed["memory-bound kernels: the slowest one's share of a copy"] == "80.0 % (rms_norm)", claimed
    assert "1 of 1 scores are within one standard error" in claimed["scores of a table, as the CPU's within their standard errors"], claimed
    assert claimed["LoRA r = 32, all seven Linears: tokens/s over PyTorch's LoRA, packed, one mask"] == "not measured", claimed
    for part in ("| 50 us, 80.0 % of a copy |\n", "| 45.5 %, 16400 tokens/s, 0.93 GiB |\n", "1 of 2 cells on cuda: NVIDIA H100", "ops on the device: failed (1)"):
        assert part in once, once
    assert once.split("## Measured")[0].count("not measured") > 5  # what this run does not have
    assert run(tree, "scripts/gpu/gpu_report", "out") == (0, "") and page.read_text() == once
    assert run(tree, "scripts/gpu/gpu_report", "nowhere")[0] == 1


with tempfile.TemporaryDirectory() as folder:
    main(pathlib.Path(folder))
