"""Methods with a router for each Linear, from their papers' formulas and their authors' code.

Every function of routers takes them over all rows of the batch, which has no padding.
"""
import math
from dataclasses import dataclass

import torch
from torch import Tensor

Parameters = dict[str, Tensor]


@dataclass
class Decision:
    """What one router decided for N rows."""

    site: str
    probs: Tensor  # [N, E]; AdaMoLE's less the threshold
    mask: Tensor  # [N, E] of 0 and 1
    weights: Tensor  # [N, E], by which the experts' deltas are multiplied
    slack: Tensor | None = None  # [N] of LD-MoLE: by how much lambda is too small for one expert, or 0
    prior: Tensor | None = None  # [N, E] of FactorLLM: the router's probabilities on the dense path,
    label: Tensor | None = None  # [N, E] and 1 for the blocks that come closest to the dense FFN there


def entropy(p: Tensor, kind: str, q: float, eps: float = 1e-5) -> Tensor:
    """Entropy of each row of p [N, E], over that of equal probabilities."""
    e, p = p.shape[-1], p + eps
    if q == 1:
        return -(p * p.log()).sum(-1) / math.log(e)
    power = p.pow(q).sum(-1)
    if kind == "tsallis":
        return (1 - power) / (1 - e ** (1 - q))
    return power.log() / (1 - q) / math.log(e)


def dynmole(p: Tensor, threshold: float, top_p: float, keep: int) -> Tensor:
    """The mask of DynMoLE (arXiv 2504.00661)."""
    falling, order = p.sort(-1, descending=True)
    kept = (falling.cumsum(-1) <= top_p) | (torch.arange(p.shape[-1]) < keep)
    kept = kept | (entropy(p, "tsallis", 1.1) > threshold)[:, None]
    return torch.zeros_like(p).scatter(-1, order, kept.to(p))


def sparsegen(u: Tensor, lam: Tensor) -> Tensor:
    """Rows of u [N, E] projected (Laha et al. 2018, arXiv 1810.11975), lam [N] below 1."""
    falling = u.sort(-1, descending=True).values
    k = torch.arange(1, u.shape[-1] + 1)
    inside = 1 - lam[:, None] + k * falling > falling.cumsum(-1)
    t = ((falling * inside).sum(-1) - 1 + lam) / inside.sum(-1)
    return (u - t[:, None]).clamp(min=0) / (1 - lam[:, None])


def router_shapes(name: str, method: str, experts: int, inner: int) -> dict[str, tuple[int, ...]]:
    shapes = {f"{name}.router.weight": (experts, inner)}
    if method == "ldmole":  # one network for each width, shared by all routers
        network = f"language_model.router.lambda_{inner}"
        shapes |= {f"{network}.in.weight": (5, inner), f"{network}.in.bias": (5,),
                   f"{network}.out.weight": (1, 5), f"{network}.out.bias": (1,)}
    if method == "adamole":
        shapes |= {f"{name}.router.threshold.weight": (1, inner), f"{name}.router.threshold.bias": (1,)}
    return shapes


def ldmole(p: Parameters, name: str, x: Tensor) -> Decision:
    network = f"language_model.router.lambda_{x.shape[-1]}"
    h = (x @ p[f"{network}.in.weight"].T + p[f"{network}.in.bias"]).relu()
    out = (h @ p[f"{network}.out.weight"].T + p[f"{network}.out.bias"])[:, 0]
    lam, u = torch.nn.functional.logsigmoid(out) + 0.99, x @ p[f"{name}.router.weight"].T
    probs = sparsegen(u, lam)
    top = u.detach().topk(2).values
    lower = 1 - (top[:, 0] - top[:, 1])
    return Decision(name, probs, (probs > 0).to(probs), probs, (lower - lam).relu())


def route(p: Parameters, name: str, x: Tensor, method: str) -> Decision:
    if method == "ldmole":  # github.com/eshentw/LD-MoLE
        return ldmole(p, name, x)
    probs = (x @ p[f"{name}.router.weight"].T).softmax(-1)
    if method == "dynmole":
        mask = dynmole(probs.detach(), 0.7, 0.97, 1)
        return Decision(name, probs, mask, probs * mask)
    if method == "adamole":  # arXiv 2405.00361: at most 1/E, so that an expert is always above
        score = x @ p[f"{name}.router.threshold.weight"].T + p[f"{name}.router.threshold.bias"]
        margin = probs - score.sigmoid() / probs.shape[-1]
        mask = (margin >= 0).to(probs)
        weights = margin * mask / (margin * mask).sum(-1, keepdim=True)
        return Decision(name, margin, mask, weights)
    if method == "loramoe":
        return Decision(name, probs, torch.ones_like(probs), probs)
    if method in ("mola", "mixlora"):  # arXiv 2402.08562, section 3
        top = probs.topk(2)
        weights = torch.zeros_like(probs).scatter(-1, top.indices, top.values / top.values.sum(-1, keepdim=True))
        return Decision(name, probs, (weights > 0).to(probs), weights)
    raise ValueError(method)


def shards(p: Parameters, name: str, x: Tensor, experts: int) -> list[Tensor]:
    """FactorLLM (arXiv 2408.11855): the output of each block of an FFN for x."""
    gate, up, down = (p[f"{name}.experts.{which}_proj.weight"].chunk(experts) for which in ("gate", "up", "down"))
    return [((x @ g.T) * (x @ g.T).sigmoid() * (x @ u.T)) @ d.T for g, u, d in zip(gate, up, down)]


def factorllm(p: Parameters, name: str, x: Tensor, experts: int, k: int, tap: tuple[Tensor, Tensor]) -> tuple[Tensor, Decision]:
    """An FFN of blocks, and its router's decision; tap: input and output of the dense FFN on the dense path."""
    def probs(rows: Tensor) -> Tensor:
        return (rows @ p[f"{name}.router.weight"].T + p[f"{name}.router.bias"]).softmax(-1)

    def top(scores: Tensor) -> Tensor:
        return torch.zeros_like(scores).scatter(-1, scores.topk(k).indices, 1.0)

    read, dense = tap
    with torch.no_grad():
        distance = torch.stack([(s - dense * k / experts).square().mean(-1) for s in shards(p, name, read, experts)], -1)
        label = top((-distance).softmax(-1))
    decided = probs(x)
    mask = top(decided.detach())
    y = experts / k * sum(mask[:, e : e + 1] * s for e, s in enumerate(shards(p, name, x, experts)))
    return y, Decision(name, decided, mask, mask, prior=probs(read), label=label)


def prior(d: Decision, hard: bool) -> Tensor:
    """The Prior-Approximate loss of one router: its authors' form, or cross entropy with hard labels."""
    p = d.prior.clamp(1e-7, 1 - 1e-7)
    if hard:
        return -(d.label / d.label.sum(-1, keepdim=True) * p.log()).sum(-1).mean()
    target = d.label.softmax(-1).clamp(1e-7, 1 - 1e-7)
    return (p * (p.log() - target.log())).sum(-1).mean()


def join(samples: list[list[Decision]]) -> list[Decision]:
    """One decision for each router over the rows of all samples."""
    def cat(parts, field):
        return torch.cat([getattr(d, field) for d in parts])

    optional = [f for f in ("slack", "prior", "label") if getattr(samples[0][0], f) is not None]
    fields = ["probs", "mask", "weights"] + optional
    return [Decision(parts[0].site, **{f: cat(parts, f) for f in fields}) for parts in zip(*samples)]


def localised(weights: Tensor, lengths: list[int], types: list[int], delta: float) -> Tensor:
    """LoRAMoE's localised balancing constraint in its code's form, of one router; experts in runs by type."""
    experts, kinds = weights.shape[-1], max(types) + 1
    own = torch.tensor([[e * kinds // experts == t for e in range(experts)] for t in types])
    load = torch.stack([w.sum(0) for w in weights.split(lengths)])
    z = (1 + delta * (2 * own.to(load) - 1)) * load
    return z.var() / (z.mean() ** 2 + 1e-10)


def losses(method: str, routers: list[Decision], lengths: list[int], types: list[int]) -> dict[str, Tensor]:
    """The auxiliary losses of a method, without their coefficients; lengths and types of the samples."""
    if method == "loramoe":
        return {"localised": sum(localised(d.weights, lengths, types, 0.3) for d in routers)}
    if method.startswith("factorllm"):
        return {"prior": torch.stack([prior(d, method == "factorllm_hard") for d in routers]).mean()}
    if method == "dynmole":
        probs, weights = (torch.cat([getattr(d, f) for d in routers]) for f in ("probs", "weights"))
        balance = probs.shape[-1] * (probs.mean(0) * weights.mean(0)).sum()
        return {"balance": balance, "entropy": entropy(probs, "tsallis", 1.1).mean()}
    if method == "ldmole":  # means over routers
        products = [d.probs.shape[-1] * (d.probs.mean(0) * d.mask.sum(0) / d.mask.sum()).sum() for d in routers]
        return {"balance": torch.stack(products).mean(), "sparsity": torch.stack([d.slack.mean() for d in routers]).mean()}
    if method == "adamole":  # a product for each router, with the probabilities less the threshold
        return {"balance": sum(d.probs.shape[-1] * (d.mask.mean(0) * d.probs.mean(0)).sum() for d in routers)}
    if method == "mixlora":  # Mixtral's form: the two choices count separately
        probs, mask = (torch.cat([getattr(d, f) for d in routers]) for f in ("probs", "mask"))
        return {"balance": probs.shape[-1] * (probs.mean(0) * mask.mean(0)).sum()}
    if method == "mola":  # a product for each layer, over the tokens of its routers; summed over layers
        layers: dict[str, list[Decision]] = {}
        for d in routers:
            layers.setdefault(d.site.split(".layers.")[1].split(".")[0], []).append(d)
        terms = []
        for ds in layers.values():
            probs, mask = torch.cat([d.probs for d in ds]), torch.cat([d.mask for d in ds])
            terms.append(probs.shape[-1] * (probs.mean(0) * mask.sum(0) / mask.sum()).sum())
        return {"balance": sum(terms)}
    raise ValueError(method)
