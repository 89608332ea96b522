"""Experts on visual tokens (Parrot, arXiv 2406.02539, and its authors' code), one image after the other."""
import math

import torch
from torch import Tensor

from generator import parameter, values

WIDTH, INNER, EXPERTS, VOCABULARY, TOKENS, IMAGES = 32, 24, 3, 50, 5, 5  # TOKENS: of an image, its class token first
VISUAL, PROMPT, ANSWER = 0, 1, 2
# Runs of a sequence: an image by its number, or tokens of prompt and answer.
SEQUENCES = [
    [0, ("prompt", 6), ("answer", 3)],
    [1, ("prompt", 4), ("answer", 2), ("prompt", 3), ("answer", 4)],
    [("prompt", 7), ("answer", 5)],
    [("prompt", 2), 2, ("prompt", 3), 3, ("answer", 2)],  # two images, of one prompt
    [4, ("prompt", 1), ("answer", 1)],
]
CASES = {  # guidance, experts kept per row, whether their weights are normalised, residual weight
    "dense": ("text", EXPERTS, False, 0.1),
    "top1": ("text", 1, False, 1.0),
    "top2": ("text", 2, True, 1.0),
    "image": ("image", EXPERTS, False, 1.0),
    "constant": ("constant", EXPERTS, False, 1.0),
}
SHAPES = {
    "visual_experts.gate_proj.weight": (EXPERTS * INNER, WIDTH),
    "visual_experts.up_proj.weight": (EXPERTS * INNER, WIDTH),
    "visual_experts.down_proj.weight": (WIDTH, EXPERTS * INNER),
    "visual_experts.router.weight": (EXPERTS, WIDTH),
}


def batch(seed: int) -> dict[str, Tensor]:
    ids, kinds, offsets = [], [], [0]
    for s, sequence in enumerate(SEQUENCES):
        for r, run in enumerate(sequence):
            if isinstance(run, int):
                ids += [-1 - (run * TOKENS + t) for t in range(TOKENS)]
                kinds += [VISUAL] * TOKENS
                continue
            kind, count = run
            text = values(seed, f"parrot.text.{s}.{r}", (count,), 1.0) + 0.5
            ids += (text * VOCABULARY).floor().int().tolist()
            kinds += [PROMPT if kind == "prompt" else ANSWER] * count
        offsets.append(len(ids))
    return {name: torch.tensor(x, dtype=torch.int32) for name, x in (("ids", ids), ("kinds", kinds), ("offsets", offsets))}


def mlp(x: Tensor, p: dict[str, Tensor], e: int) -> Tensor:
    gate, up = (p[f"visual_experts.{which}_proj.weight"].chunk(EXPERTS)[e] for which in ("gate", "up"))
    down = p["visual_experts.down_proj.weight"][:, e * INNER : (e + 1) * INNER]
    g = x @ gate.T
    return (g * g.sigmoid() * (x @ up.T)) @ down.T


def route(image: Tensor, prompt: Tensor, p: dict[str, Tensor], case: str) -> tuple[Tensor, Tensor]:
    """Probabilities and weights of the experts for one image [P, C], its sample's prompt [T, C]."""
    guidance, kept, normalise, _ = CASES[case]
    read = image[0]
    if guidance == "text":
        read = (prompt @ read / math.sqrt(WIDTH)).softmax(0) @ prompt
    elif guidance == "constant":
        read = torch.ones_like(read)
    probs = (p["visual_experts.router.weight"] @ read).softmax(0)
    weights = torch.zeros_like(probs).scatter(0, probs.topk(kept).indices, 1.0) * probs
    return probs, weights / weights.sum() if normalise else weights


def forward(p: dict[str, Tensor], visual: Tensor, table: Tensor, data: dict[str, Tensor], case: str) -> tuple[Tensor, Tensor]:
    out, probs = [None] * IMAGES, [None] * IMAGES
    for begin, end in zip(data["offsets"][:-1], data["offsets"][1:]):
        ids, kinds = data["ids"][begin:end].long(), data["kinds"][begin:end]
        prompt = table[ids[kinds == PROMPT]]
        for i in sorted({int(v) // TOKENS for v in -1 - ids[kinds == VISUAL]}):
            x = visual[i * TOKENS : (i + 1) * TOKENS]
            probs[i], weights = route(x, prompt, p, case)
            out[i] = sum(weights[e] * mlp(x, p, e) for e in range(EXPERTS)) + CASES[case][3] * x
    return torch.cat(out), torch.stack(probs)


def tensors(seed: int) -> dict[str, Tensor]:
    data = batch(seed)
    p = {name: parameter(seed, name, shape, 1).requires_grad_() for name, shape in SHAPES.items()}
    visual = values(seed, "parrot.visual", (IMAGES * TOKENS, WIDTH), 4.0).requires_grad_()
    table = values(seed, "parrot.table", (VOCABULARY, WIDTH), 4.0).requires_grad_()
    dy = values(seed, "parrot.dy", (IMAGES * TOKENS, WIDTH), 4.0)
    out = {f"batch.{name}": x for name, x in data.items()}
    leaves = p | {"visual": visual, "table": table}
    for case in CASES:
        y, probs = forward(p, visual, table, data, case)
        top = probs.topk(2).values
        assert (top[:, 0] - top[:, 1]).min() > 1e-3, f"{case}: near a tie"
        out |= {f"{case}.y": y.detach(), f"{case}.probs": probs.detach()}
        grads = torch.autograd.grad(y, list(leaves.values()), dy, allow_unused=True)
        out |= {f"{case}.grad.{name}": g for name, g in zip(leaves, grads) if g is not None}
    return out
