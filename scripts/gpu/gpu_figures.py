"""The training steps, targets and tables of scripts/gpu_check, which gpu_check prints and gpu_report writes into
docs/results/gpu.md."""
import re

ALL_LINEARS = '["q_proj","k_proj","v_proj","o_proj","gate_proj","up_proj","down_proj"]'
STEPS = {  # name in docs/results/gpu.md: the method's options
    "LoRA r = 32, all seven Linears": ["name=lora", "rank=32", f"expert_targets={ALL_LINEARS}"],
    "LoRA r = 32, FFN": ["name=lora", "rank=32"],
    "MoLE E = 3, r = 32": ["name=mole", "experts=3", "rank=32"],
    "MoLE E = 8, r = 32": ["name=mole", "experts=8", "rank=32"],
    "MoLE E = 8, r = 128": ["name=mole", "experts=8", "rank=128"],
    "dense E = 3, r = 32": ["name=dense", "experts=3", "rank=32"],
}
LORA, LORA_FFN, MOLE_3, MOLE_8, MOLE_8_128, DENSE = STEPS
# MoLE adapts only the FFN, so its step is also compared with LoRA on the FFN.
OVER_LORA_FFN = {MOLE_3: 1.05, MOLE_8: 1.10, MOLE_8_128: None, DENSE: None}
OVER_PEER = [(LORA, "LoRA, packed", 1.2), (LORA, "LoRA, packed, one mask", 1.2), (LORA, "LoRA, padded", 1.5),
             (LORA, "LoRA, padded, by length", 1.5), (MOLE_3, "MoLE E=3, loop", 2.5), (MOLE_8, "MoLE E=8, loop", 2.5)]
MFU = 0.45
OWN_ATTENTION = ("attention, causal", "attention by cuDNN, causal", 0.45)  # names in bench_cuda, and the least forward speed over cuDNN's
# A kernel is memory-bound when it moves more bytes than an H100's L2 cache holds and computes no product.
OF_A_COPY, BEYOND_CACHE = 0.80, 64e6
# By claim: a label of gpu_check, and the kinds of worst error that `test_ops --cuda` prints.
ACCURACY = {"ops in f32 against the CPU in f64": ("ops on the device", ["CUDA in f32"]),
            "ops in f32 with TF32 (`--fast`)": ("ops with TF32", ["CUDA with TF32"]),
            "ops in bf16": ("ops on the device", ["CUDA in bf16", "CUDA, parameters in f32"])}
TABLE_CLAIM = "scores of a table, as the CPU's within their standard errors"
# The vendor's dense bf16 FLOP/s by a part of the card's name; the first match counts.
NOMINAL = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}


def nominal_peak(card):
    return next((peak for name, peak in NOMINAL.items() if name in card), None)


def mfu(step):
    """Utilisation from 4 N FLOPs per token; None for a card that NOMINAL lacks."""
    peak = nominal_peak(step["device"])
    return step["flops_of_4n"] / peak if peak else None


def peers_of(facts):
    return (facts["peers"] or {"cases": []})["cases"]


def ratio(a, b, key):
    return a[key] / b[key] if a and b and key in a and key in b else None


def verdicts(facts):
    """Each figure with its target; the value is None when it was not measured."""
    steps, peers = facts["steps"], {c["name"]: c for c in peers_of(facts)}
    lora = steps.get(LORA)
    found = [{"what": f"{LORA}: MFU (4 N)", "value": mfu(lora) if lora else None, "least": MFU, "unit": "%"}]
    for label, most in OVER_LORA_FFN.items():
        found.append({"what": f"{label}: step over that of {LORA_FFN}", "unit": "x", "most": most,
                      "value": ratio(steps.get(label), steps.get(LORA_FFN), "median_seconds")})
    for label, peer, least in OVER_PEER:
        found.append({"what": f"{label}: tokens/s over PyTorch's {peer}", "unit": "x", "least": least,
                      "value": ratio(steps.get(label), peers.get(peer), "tokens_per_second")})
    found += kernel_verdicts((facts["kernels"] or {"kernels": []})["kernels"])
    for v in found:
        v["reached"] = reached(v["value"], v.get("least"), v.get("most"))
    return found


def kernel_verdicts(kernels):
    own, library, least = OWN_ATTENTION
    named = {k["name"]: k for k in kernels}
    yield {"what": "own attention: forward speed over cuDNN's", "unit": "%", "least": least,
           "value": ratio(named.get(library), named.get(own), "seconds")}
    bound = [k for k in kernels if k.get("bytes", 0) > BEYOND_CACHE and "matmul" not in k["name"]]
    slowest = min(bound, key=lambda k: k["share"], default=None)
    yield {"what": "memory-bound kernels: the slowest one's share of a copy", "value": slowest and slowest["share"], "unit": "%", "least": OF_A_COPY,
           "whose": slowest and slowest["name"]}


def reached(value, least, most):
    if value is None:
        return "not measured"
    if least is None and most is None:
        return "-"
    return "yes" if (least is None or value >= least) and (most is None or value <= most) else "**no**"


def compare_tables(gpu, cpu):
    """For each row and score that both have with errors: the difference, in its standard errors."""
    rows, found = {r["name"]: r for r in cpu["rows"]}, []
    for row in gpu["rows"]:
        for score, mine in row["scores"].items():
            theirs = rows.get(row["name"], {"scores": {}})["scores"].get(score)
            if not theirs or None in (mine["mean"], theirs["mean"], mine["standard_error"], theirs["standard_error"]):
                continue
            error = (mine["standard_error"] ** 2 + theirs["standard_error"] ** 2) ** 0.5
            difference = mine["mean"] - theirs["mean"]
            found.append({"row": row["label"], "score": score, "cpu": theirs, "gpu": mine, "difference": difference,
                          "errors": abs(difference) / error if error > 0 else 0.0 if difference == 0 else None})
    return found


# ---- as Markdown


def markdown(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def text(value, unit):
    return "-" if value is None else f"{100 * value:.1f} %" if unit == "%" else f"{value:.2f}x"


def verdict_text(v):
    return text(v["value"], v["unit"]) + (f" ({v['whose']})" if v.get("whose") else "")


def gib(size):
    return f"{size / 2**30:.2f} GiB" if size else "-"


def step_rows(facts):
    product = (facts["kernels"] or {}).get("product")
    outcomes = {r["label"]: r["outcome"] for r in facts["results"]}
    for label in STEPS:
        s = facts["steps"].get(label)
        if s:
            share = text(s["flops_of_4n"] / product, "%") if product else "-"
            yield [label, f"{1e3 * s['median_seconds']:.1f}", f"{s['tokens_per_second']:.0f}", text(mfu(s), "%"), share, gib(s["peak_bytes"])]
        else:
            yield [label, outcomes.get(label, "not run"), "-", "-", "-", "-"]


def peer_rows(facts):
    for c in peers_of(facts):
        if c["outcome"] == "measured":
            yield [c["name"], f"{1e3 * c['median_seconds']:.1f}", f"{c['tokens_per_second']:.0f}", str(c["micro_batches"]),
                   f"{c['rows_computed']} for {c['tokens']}", gib(c["peak_bytes"])]
        else:
            yield [c["name"], c["outcome"], "-", "-", "-", "-"]


def bench_tables(facts):
    parts = [markdown(["Burrow", "ms a step", "tokens/s", "MFU (4 N)", "of a product", "peak memory"], step_rows(facts)),
             "MFU: 4 N FLOPs a token over the vendor's dense bf16 peak, N the frozen weights of the decoder's blocks; of a "
             "product: over the largest\nproduct that bench_cuda measured. Memory is that of tensors, without the driver's.\n"]
    if peers := facts["peers"]:
        parts += [markdown(["PyTorch", "ms a step", "tokens/s", "micro-batches", "rows computed", "peak memory"], peer_rows(facts)),
                  f"torch {peers['torch']}, transformers {peers['transformers']}, peft {peers['peft']}; packed attention: {peers['attention']}.\n"]
    else:
        parts.append("No figures of PyTorch: " + "; ".join(f"{r['label']}: {r['outcome']}" for r in facts["results"] if "peers" in r["label"]) + ".\n")
    rows = []
    for v in facts["verdicts"]:
        target = f"at least {text(v['least'], v['unit'])}" if v.get("least") else f"at most {text(v['most'], v['unit'])}" if v.get("most") else "-"
        rows.append([v["what"], verdict_text(v), target, v["reached"]])
    return "\n".join([*parts, markdown(["figure", "measured", "target", "reached"], rows)])


def table_tables(facts):
    scores = facts["scores"]
    if not scores:
        return f"`{facts['table']}`, {facts['gpu_cells']}: nothing to compare: no score that both devices have with an error.\n"
    value = lambda s: f"{s['mean']:.2f} ± {s['standard_error']:.2f}"
    rows = [[s["row"], s["score"], value(s["cpu"]), value(s["gpu"]), f"{s['difference']:+.2f}", "-" if s["errors"] is None else f"{s['errors']:.1f}"]
            for s in scores]
    return (f"`{facts['table']}`, {facts['gpu_cells']}, the CPU's from {facts['cpu_figures']}: {agreement(scores)}.\n\n"
            + markdown(["row", "score", "CPU", "GPU", "difference", "in its errors"], rows))


def agreement(scores):
    within = lambda most: sum(s["errors"] is not None and s["errors"] <= most for s in scores)
    return f"{within(1)} of {len(scores)} scores are within one standard error of the difference, {within(2)} within two"


# ---- the claims of docs/results/gpu.md


def worst_errors(output):
    """From the output of test_ops: the largest relative error and its row, by kind of comparison."""
    return {kind: [float(error), row] for kind, error, row in re.findall(r"^worst error, (.+?) +(\S+e[-+]\d+|nan|inf)  (.+)$", output, re.MULTILINE)}


def accuracy_figures(tests):
    """The largest error of each claim; no entry when a run printed none."""
    found = {}
    printed = {r["label"]: r.get("worst_errors", {}) for r in tests["results"]}
    for claim, (label, kinds) in ACCURACY.items():
        if errors := [printed[label][kind] for kind in kinds if kind in printed.get(label, {})]:
            error, row = max(errors)
            found[claim] = f"{error:.1e} ({row})"
    return found
