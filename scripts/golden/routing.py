"""Mixtures of LoRA experts: gate modes and the balance loss of LLaVA-MoLE (arXiv 2401.16160)."""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Routing:
    """What one router decided for the T tokens of one sequence in one layer."""

    probs: Tensor  # [T, E]
    chosen: Tensor  # [T], argmax of probs, for dense mixtures too
    weights: Tensor  # [T, E], by which the experts' deltas are multiplied


def gate(probs: Tensor, mode: str) -> Tensor:
    """Weights [T, E] from probabilities [T, E]."""
    if mode == "dense":
        return probs
    onehot = F.one_hot(probs.argmax(-1), probs.shape[-1]).to(probs)
    if mode == "none":  # the authors' release: no gradient of the task loss reaches the router
        return onehot
    if mode == "straight_through":  # the value is onehot, the gradient that of onehot * p
        return onehot * (1 + probs - probs.detach())
    if mode == "scaled":  # Switch Transformer
        return onehot * probs
    raise ValueError(mode)


def route(x: Tensor, weight: Tensor, bias: Tensor, mode: str, group: Tensor | None) -> Routing:
    """One routing per token of x [T, C], or one for all, from the mean of the rows where group [T] is true."""
    source = x if group is None else x[group].mean(0, keepdim=True)
    probs = (source @ weight.T + bias).softmax(-1).expand(len(x), -1)
    return Routing(probs, probs.argmax(-1), gate(probs, mode))


def lora_delta(x: Tensor, a: Tensor, b: Tensor, weights: Tensor | None, rank: int, alpha: float) -> Tensor:
    """(alpha / R) sum_e w_e B_e A_e x.  x [T, in], a [E*R, in], b [out, E*R], weights [T, E] or None for E = 1."""
    y = torch.zeros(len(x), b.shape[0], dtype=x.dtype)
    for e in range(a.shape[0] // rank):
        rows = slice(e * rank, (e + 1) * rank)
        delta = x @ a[rows].T @ b[:, rows].T
        y = y + (delta if weights is None else weights[:, e : e + 1] * delta)
    return alpha / rank * y


def balance_loss(routings: list[list[Routing]], scope: str = "sample", pool: str = "joint") -> Tensor:
    """Sum over experts of mean probability times share of tokens (no gradient), without the factor E.

    routings[i][l] is that of sample i in layer l. scope "sample": a mean over samples; "batch": the tokens of
    all samples in one pool. pool "joint": the tokens of all layers in one pool; "layer": a mean over layers.
    """
    samples = routings if scope == "sample" else [[cat(layer) for layer in zip(*routings)]]
    pools = [[cat(layers)] if pool == "joint" else layers for layers in samples]
    terms = [torch.stack([product(r) for r in p]).mean() for p in pools]
    return torch.stack(terms).mean()


def cat(parts) -> Routing:
    return Routing(*(torch.cat([getattr(r, field) for r in parts]) for field in ("probs", "chosen", "weights")))


def product(r: Routing) -> Tensor:
    share = F.one_hot(r.chosen, r.probs.shape[-1]).to(r.probs).mean(0)
    return (r.probs.mean(0) * share).sum()


def gap(routings: list[list[Routing]]) -> float:
    """The smallest distance between the first and the second probability: how far routing is from a tie."""
    top = torch.cat([r.probs.detach() for layers in routings for r in layers]).topk(2).values
    return (top[:, 0] - top[:, 1]).min().item()
