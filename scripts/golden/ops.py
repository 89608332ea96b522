"""One odd-shaped case per differentiable op: inputs and cotangent are generated, results are stored.

Where PyTorch has the op, PyTorch's own is taken, and the formula that model.py uses is checked against it.
"""
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

import model
from generator import values
from methods import entropy
from routing import lora_delta

SCALE = 4.0  # of every input and cotangent: uniform in [-2, 2)

Function = Callable[..., Tensor]


@dataclass
class Case:
    name: str
    inputs: dict[str, tuple[int, ...]]  # differentiable ones, in the order of the function's arguments
    function: Function
    formula: Function | None = None  # must agree with `function`
    integers: dict[str, Tensor] = field(default_factory=dict)  # stored, for C++ to read
    numbers: dict[str, float] = field(default_factory=dict)  # eps and the like, stored in the metadata


def evaluate(seed: int, case: Case) -> dict[str, Tensor]:
    prefix = f"op.{case.name}."
    inputs = [values(seed, prefix + n, s, SCALE).requires_grad_() for n, s in case.inputs.items()]
    y = case.function(*inputs)
    if case.formula is not None:
        torch.testing.assert_close(case.formula(*inputs), y, rtol=1e-12, atol=1e-12)
    dy = values(seed, prefix + "dy", tuple(y.shape), SCALE)
    gradients = torch.autograd.grad(y, inputs, dy)
    out = {prefix + "y": y.detach()}
    out |= {f"{prefix}d_{n}": g for n, g in zip(case.inputs, gradients)}
    out |= {prefix + n: t.to(torch.int32) for n, t in case.integers.items()}
    return out


def integers(*x: int) -> Tensor:
    return torch.tensor(x)


# ---- packed segments: rows of all sequences laid end to end, positions within each


def by_segment(function: Function, query_offsets: Tensor, key_offsets: Tensor) -> Function:
    def packed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = []
        for i in range(len(query_offsets) - 1):
            rows, keys = slice(*query_offsets[i : i + 2]), slice(*key_offsets[i : i + 2])
            parts.append(function(q[rows], k[keys], v[keys]))
        return torch.cat(parts)

    return packed


def attention_case(
    name: str, heads: int, kv_heads: int, size: int, causal: bool, q_offsets: Tensor, k_offsets: Tensor
) -> Case:
    def mask(queries: int, keys: int) -> Tensor | None:  # causal from the bottom right: the last row sees all
        return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) if causal else None

    def split(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return model.split_heads(q, heads), model.split_heads(k, kv_heads), model.split_heads(v, kv_heads)

    def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = split(q, k, v)
        k, v = (x.repeat_interleave(heads // kv_heads, 0) for x in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask(q.shape[-2], k.shape[-2]))
        return model.join_heads(y)

    def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = split(q, k, v)
        return model.join_heads(model.attention(q, k, v, mask(q.shape[-2], k.shape[-2])))

    n_q, n_k = int(q_offsets[-1]), int(k_offsets[-1])
    return Case(
        name,
        {"q": (n_q, heads * size), "k": (n_k, kv_heads * size), "v": (n_k, kv_heads * size)},
        by_segment(reference, q_offsets, k_offsets),
        by_segment(formula, q_offsets, k_offsets),
        {"query_offsets": q_offsets, "key_offsets": k_offsets},
        {"heads": heads, "kv_heads": kv_heads, "head_size": size, "causal": causal},
    )


def rope_case(name: str, positions: Tensor, heads: int, size: int, theta: float) -> Case:
    def function(x: Tensor) -> Tensor:
        return model.join_heads(model.rope(model.split_heads(x, heads), positions, theta))

    def rotate(x: Tensor) -> Tensor:  # the same as a product of complex numbers
        x = x.unflatten(-1, (heads, 2, size // 2))
        angle = positions.double()[:, None] / theta ** (torch.arange(0, size, 2).double() / size)
        turned = torch.complex(x[:, :, 0], x[:, :, 1]) * torch.polar(torch.ones_like(angle), angle)[:, None]
        return torch.stack([turned.real, turned.imag], 2).flatten(1)

    numbers = {"heads": heads, "head_size": size, "theta": theta}
    return Case(name, {"x": (len(positions), heads * size)}, function, rotate, {"position": positions}, numbers)


def group_mean(x: Tensor, group: Tensor, groups: int) -> Tensor:
    empty = torch.zeros(x.shape[1], dtype=x.dtype)
    return torch.stack([x[group == g].mean(0) if (group == g).any() else empty for g in range(groups)])


def embedding(table: Tensor, visual: Tensor, ids: Tensor) -> Tensor:
    return torch.stack([table[i] if i >= 0 else visual[-1 - i] for i in ids.tolist()])


def norm_formula(function: Function, *names: str) -> Function:
    return lambda x, *p: function({f"n.{n}": t for n, t in zip(names, p)}, "n", x, 1e-5)


def route(logits: Tensor) -> Tensor:
    """The two most probable experts of a row, their weights divided by their sum; Tsallis's entropy in every
    column; and the means of probabilities and weights over three groups, of which one is empty."""
    p = logits.softmax(-1)
    chosen = torch.zeros_like(p).scatter(1, p.topk(2).indices, 1.0)
    weights = p * chosen / (p * chosen).sum(-1, keepdim=True)
    spread = entropy(p, "tsallis", 1.1)[:, None].expand(p.shape)
    groups = [[0, 1, 5], [], [2, 4]]
    mean = [torch.stack([x[rows].sum(0) / max(len(rows), 1) for rows in groups]) for x in (p, weights)]
    return torch.cat([p, weights, spread, *mean])


def cases() -> list[Case]:
    ids = integers(4, -1, -3, 0, 4, -2, 8)  # a token twice, one table row unused by most
    group = integers(1, 0, 1, -1, 3, 1, 0)  # -1 belongs to none, group 2 is empty
    target = integers(3, 0, 12, 3, 7)
    even, cached = integers(0, 4, 11), integers(0, 1, 4)
    # Two of four experts for each of five rows, the third for none.
    order, expert = integers(0, 1, 4, 0, 1, 2, 3, 2, 3, 4), integers(0, 0, 0, 1, 1, 1, 1, 3, 3, 3)
    two = {"a": (5, 7), "b": (5, 7)}
    return [
        Case("matmul", {"x": (7, 5), "w": (3, 5)}, lambda x, w: F.linear(x, w)),
        Case("linear", {"x": (7, 5), "w": (3, 5), "b": (3,)}, F.linear),
        Case("silu", {"x": (5, 7)}, F.silu, model.silu),
        Case("gelu", {"x": (5, 7)}, F.gelu, model.gelu),
        Case("quick_gelu", {"x": (5, 7)}, model.quick_gelu),
        Case("relu", {"x": (5, 7)}, F.relu),
        Case("exp", {"x": (5, 7)}, torch.exp),
        Case("log_sigmoid", {"x": (5, 7)}, F.logsigmoid),
        Case("log", {"x": (5, 7)}, F.softplus, lambda x: (1 + x.exp()).log()),
        Case("reciprocal", {"x": (5, 7)}, lambda x: (-x).sigmoid(), lambda x: 1 / (1 + x.exp())),
        Case("swiglu", {"gate": (5, 7), "up": (5, 7)}, lambda gate, up: F.silu(gate) * up),
        Case("add", two, torch.add),
        Case("mul", two, torch.mul),
        Case("rms_norm", {"x": (5, 7), "w": (7,)}, lambda x, w: F.rms_norm(x, (7,), w, 1e-5),
             norm_formula(model.rms_norm, "weight"), numbers={"eps": 1e-5}),
        Case("add_rms_norm", {"x": (5, 7), "w": (7,)},
             lambda x, w: torch.cat([1.5 * x, F.rms_norm(1.5 * x, (7,), w, 1e-5)]), numbers={"eps": 1e-5}),
        Case("concat_rows", {"x": (3, 7), "y": (1, 7), "z": (2, 7)}, lambda *parts: torch.cat(parts)),
        Case("columns", {"x": (5, 7)}, lambda x: x[:, 1:4] + x[:, 2:5]),
        Case("layer_norm", {"x": (5, 7), "w": (7,), "b": (7,)}, lambda x, w, b: F.layer_norm(x, (7,), w, b, 1e-5),
             norm_formula(model.layer_norm, "weight", "bias"), numbers={"eps": 1e-5}),
        Case("softmax", {"x": (5, 7)}, lambda x: x.softmax(-1)),
        Case("embedding", {"table": (9, 3), "visual": (3, 3)}, lambda t, v: embedding(t, v, ids), integers={"id": ids}),
        Case("group_mean", {"x": (7, 3)}, lambda x: group_mean(x, group, 4), integers={"group": group}),
        Case("linear_cross_entropy", {"x": (5, 6), "w": (13, 6)},
             lambda x, w: F.cross_entropy(F.linear(x, w), target, reduction="sum").reshape(1),
             integers={"target": target}),
        Case("cross_entropy", {"logits": (5, 13)}, lambda x: F.cross_entropy(x, target, reduction="none"),
             integers={"target": target}),
        rope_case("rope", integers(0, 1, 2, 3, 0, 1, 40), 3, 6, 10000.0),
        attention_case("attention_causal", 3, 3, 5, True, even, even),
        attention_case("attention_bidirectional", 3, 3, 5, False, even, even),
        attention_case("attention_grouped", 4, 2, 5, True, even, even),
        attention_case("attention_cached", 4, 2, 5, True, cached, even),
        Case("grouped_swiglu", {"gate": (10, 7), "up": (10, 7), "weights": (5, 4)},
             lambda gate, up, w: w[order, expert][:, None] * F.silu(gate) * up,
             integers={"order": order, "offsets": integers(0, 3, 7, 7, 10)}),
        Case("route", {"logits": (6, 4)}, route, integers={"group": integers(0, 0, 2, -1, 2, 0)}),
        Case("lora_experts", {"x": (7, 5), "a": (6, 5), "b": (4, 6), "weights": (7, 3)},
             lambda x, a, b, w: lora_delta(x, a, b, w, 2, 3.0), numbers={"experts": 3, "rank": 2, "alpha": 3.0}),
    ] + [
        Case(f"{name}_entropy", {"logits": (5, 7)}, lambda x, f=f: f(x.softmax(-1))[:, None])
        for name, f in (("tsallis", lambda p: entropy(p, "tsallis", 1.1)),
                        ("renyi", lambda p: entropy(p, "renyi", 1.5)),
                        ("shannon", lambda p: entropy(p, "tsallis", 1.0)))
    ]
