"""A miniature LLaVA, written from the formulas: a CLIP ViT, a projector and a LLaMA-like decoder.

Functions over a dictionary of parameters under Hugging Face's names. Sequences are looped over, one at a
time, so there is neither padding nor a mask between sequences to get wrong.
"""
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

import methods
from routing import Routing, lora_delta, route

Parameters = dict[str, Tensor]

VISION = "vision_tower.vision_model"
PROJECTOR = "multi_modal_projector"
DECODER = "language_model.model"
HEAD = "language_model.lm_head"

VISUAL, PROMPT, ANSWER = 0, 1, 2  # kinds of tokens


@dataclass(frozen=True)
class Vision:
    image: int = 32
    patch: int = 8
    width: int = 96
    layers: int = 2
    heads: int = 4
    mlp: int = 192
    eps: float = 1e-5
    feature_norm: bool = True  # post_layernorm on the features, which are the last block's output

    @property
    def tokens(self) -> int:
        return (self.image // self.patch) ** 2


@dataclass(frozen=True)
class Decoder:
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    mlp: int = 256
    eps: float = 1e-5
    theta: float = 10000.0
    vocabulary: int = 110


@dataclass(frozen=True)
class Adapters:
    """LoRA, or a mixture of LoRA experts, on the FFN; optionally plain LoRA on attention."""

    rank: int = 2
    alpha: float = 4.0
    experts: int = 1  # on gate, up and down; attention always has one
    gate: str = ""  # of the router; empty: one expert, no router
    per_sample: bool = False  # one routing for a whole sample
    attention: bool = False
    method: str = ""  # of methods.py: a router for each Linear that has experts
    ffn_experts: bool = True
    attention_experts: bool = False  # on q, k, v and o
    chosen: int = 1  # blocks per token of FactorLLM

    @property
    def blocks(self) -> bool:
        """Whether the experts are the blocks of the FFN itself."""
        return self.method.startswith("factorllm")

    def experts_of(self, name: str) -> int:
        """0: the Linear is not adapted."""
        if name.startswith("mlp"):
            return self.experts if self.ffn_experts else 0
        return self.experts if self.attention_experts else int(self.attention)


@dataclass(frozen=True)
class Config:
    vision: Vision = Vision()
    decoder: Decoder = Decoder()
    adapters: Adapters | None = None


@dataclass
class Sequence:
    ids: Tensor  # [T] token ids; below zero: visual token -1 - id of the batch
    kinds: Tensor  # [T]
    targets: Tensor  # [T] the token that each row predicts; -1: not supervised


# ---- shapes


def base_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    v, d = config.vision, config.decoder
    shapes: dict[str, tuple[int, ...]] = {
        f"{VISION}.embeddings.class_embedding": (v.width,),
        f"{VISION}.embeddings.patch_embedding.weight": (v.width, 3, v.patch, v.patch),
        f"{VISION}.embeddings.position_embedding.weight": (v.tokens + 1, v.width),
        f"{DECODER}.embed_tokens.weight": (d.vocabulary, d.width),
        f"{DECODER}.norm.weight": (d.width,),
        f"{HEAD}.weight": (d.vocabulary, d.width),
    }

    def linear(name: str, inner: int, outer: int) -> None:
        shapes[f"{name}.weight"] = (outer, inner)
        shapes[f"{name}.bias"] = (outer,)

    def layer_norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (v.width,)

    layer_norm(f"{VISION}.pre_layrnorm")
    layer_norm(f"{VISION}.post_layernorm")
    for i in range(v.layers):
        layer = f"{VISION}.encoder.layers.{i}"
        layer_norm(f"{layer}.layer_norm1")
        layer_norm(f"{layer}.layer_norm2")
        for name in "qkv":
            linear(f"{layer}.self_attn.{name}_proj", v.width, v.width)
        linear(f"{layer}.self_attn.out_proj", v.width, v.width)
        linear(f"{layer}.mlp.fc1", v.width, v.mlp)
        linear(f"{layer}.mlp.fc2", v.mlp, v.width)
    linear(f"{PROJECTOR}.linear_1", v.width, d.width)
    linear(f"{PROJECTOR}.linear_2", d.width, d.width)
    for i in range(d.layers):
        layer = f"{DECODER}.layers.{i}"
        shapes[f"{layer}.input_layernorm.weight"] = (d.width,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (d.width,)
        for name, (inner, outer) in decoder_linears(d).items():
            shapes[f"{layer}.{name}.weight"] = (outer, inner)
    return shapes


def decoder_linears(d: Decoder) -> dict[str, tuple[int, int]]:
    kv = d.width // d.heads * d.kv_heads
    return {
        "self_attn.q_proj": (d.width, d.width),
        "self_attn.k_proj": (d.width, kv),
        "self_attn.v_proj": (d.width, kv),
        "self_attn.o_proj": (d.width, d.width),
        "mlp.gate_proj": (d.width, d.mlp),
        "mlp.up_proj": (d.width, d.mlp),
        "mlp.down_proj": (d.mlp, d.width),
    }


def adapter_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    a, d = config.adapters, config.decoder
    shapes: dict[str, tuple[int, ...]] = {}
    if a is None:
        return shapes
    for i in range(d.layers if a.blocks else 0):
        mlp = f"{DECODER}.layers.{i}.mlp"
        shapes[f"{mlp}.experts.gate_proj.weight"] = shapes[f"{mlp}.experts.up_proj.weight"] = (d.mlp, d.width)
        shapes[f"{mlp}.experts.down_proj.weight"] = (a.experts * d.width, d.mlp // a.experts)
        shapes[f"{mlp}.router.weight"], shapes[f"{mlp}.router.bias"] = (a.experts, d.width), (a.experts,)
    for i in range(0 if a.blocks else d.layers):
        layer = f"{DECODER}.layers.{i}"
        for name, (inner, outer) in decoder_linears(d).items():
            if not a.experts_of(name):
                continue
            rows = a.rank * a.experts_of(name)
            shapes[f"{layer}.{name}.lora_A.weight"] = (rows, inner)
            shapes[f"{layer}.{name}.lora_B.weight"] = (outer, rows)
            if a.method and a.method != "mixlora" and a.experts_of(name) > 1:
                shapes |= methods.router_shapes(f"{layer}.{name}", a.method, a.experts, inner)
        if a.method == "mixlora":
            shapes |= methods.router_shapes(f"{layer}.mlp", a.method, a.experts, d.width)
        if a.gate:
            shapes[f"{layer}.mlp.router.weight"] = (a.experts, d.width)
            shapes[f"{layer}.mlp.router.bias"] = (a.experts,)
    return shapes


# ---- building blocks; x is [..., T, C]


def layer_norm(p: Parameters, name: str, x: Tensor, eps: float) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


def rms_norm(p: Parameters, name: str, x: Tensor, eps: float) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * p[f"{name}.weight"]


def quick_gelu(x: Tensor) -> Tensor:
    return x * (1.702 * x).sigmoid()


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def silu(x: Tensor) -> Tensor:
    return x * x.sigmoid()


def rope(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """x [..., T, D], positions [T]; the pair of channel c is c + D/2 (Hugging Face's rotate_half)."""
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = positions.double()[:, None] * frequency
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """q [..., H, Tq, D], k v [..., Hkv, Tk, D], mask [Tq, Tk] true where seen. Head h reads group h / (H / Hkv)."""
    repeats = q.shape[-3] // k.shape[-3]
    k, v = k.repeat_interleave(repeats, -3), v.repeat_interleave(repeats, -3)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v


def split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)  # [..., T, H*D] -> [..., H, T, D]


def join_heads(x: Tensor) -> Tensor:
    return x.transpose(-2, -3).flatten(-2)


def biased(p: Parameters, name: str, x: Tensor) -> Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


# ---- vision tower and projector


def patches(images: Tensor, size: int) -> Tensor:
    """[B, 3, S, S] -> [B, P, 3*size*size], patches in row-major order, channels of a patch as the kernel's."""
    b, c, s, _ = images.shape
    n = s // size
    x = images.reshape(b, c, n, size, n, size).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(b, n * n, c * size * size)


def vision_blocks(p: Parameters, v: Vision, images: Tensor) -> list[Tensor]:
    """The hidden state [B, P+1, C] after each block."""
    x = patches(images, v.patch) @ p[f"{VISION}.embeddings.patch_embedding.weight"].flatten(1).T
    first = p[f"{VISION}.embeddings.class_embedding"].expand(len(images), 1, -1)
    x = torch.cat([first, x], 1) + p[f"{VISION}.embeddings.position_embedding.weight"]
    x = layer_norm(p, f"{VISION}.pre_layrnorm", x, v.eps)
    states = []
    for i in range(v.layers):
        layer = f"{VISION}.encoder.layers.{i}"
        y = layer_norm(p, f"{layer}.layer_norm1", x, v.eps)
        q, k, val = (split_heads(biased(p, f"{layer}.self_attn.{n}_proj", y), v.heads) for n in "qkv")
        x = x + biased(p, f"{layer}.self_attn.out_proj", join_heads(attention(q, k, val, None)))
        y = layer_norm(p, f"{layer}.layer_norm2", x, v.eps)
        x = x + biased(p, f"{layer}.mlp.fc2", quick_gelu(biased(p, f"{layer}.mlp.fc1", y)))
        states.append(x)
    return states


def visual_tokens(p: Parameters, v: Vision, images: Tensor, stages: dict[str, Tensor]) -> Tensor:
    """[B*P, width of the decoder]."""
    states = vision_blocks(p, v, images)
    features = states[-1]
    if v.feature_norm:
        features = layer_norm(p, f"{VISION}.post_layernorm", features, v.eps)
    features = features[:, 1:].flatten(0, 1)  # without the class token
    projected = biased(p, f"{PROJECTOR}.linear_2", gelu(biased(p, f"{PROJECTOR}.linear_1", features)))
    for i, state in enumerate(states):
        stages[f"vision.{i}"] = state.flatten(0, 1)
    stages["features"], stages["projector"] = features, projected
    return projected


# ---- decoder


def linear(p: Parameters, config: Config, name: str, x: Tensor, made: list, routing: Routing | None = None) -> Tensor:
    """A router that belongs to the Linear appends its decision to `made`."""
    y = x @ p[f"{name}.weight"].T
    a = config.adapters
    if a is not None and f"{name}.lora_A.weight" in p:
        if f"{name}.router.weight" in p:
            routing = methods.route(p, name, x, a.method)
            made.append(routing)
        weights = routing.weights if routing else None
        y = y + lora_delta(x, p[f"{name}.lora_A.weight"], p[f"{name}.lora_B.weight"], weights, a.rank, a.alpha)
    return y


def router_group(kinds: Tensor) -> Tensor:
    """The rows that route a whole sample: its visual tokens, or its prompt where it has no image."""
    visual = kinds == VISUAL
    return visual if visual.any() else kinds == PROMPT


def feed_forward(p: Parameters, config: Config, layer: str, x: Tensor, kinds: Tensor, made: list, taps: list) -> Tensor:
    """`taps`: input and output of each dense FFN, appended by a dense model and read by its blocks."""
    a, routing = config.adapters, None
    if a is not None and a.blocks:
        y, decision = methods.factorllm(p, f"{layer}.mlp", x, a.experts, a.chosen, taps.pop(0))
        made.append(decision)
        return y
    if a is not None and a.gate:  # one decision, from the input of the FFN, shared by gate, up and down
        group = router_group(kinds) if a.per_sample else None
        routing = route(x, p[f"{layer}.mlp.router.weight"], p[f"{layer}.mlp.router.bias"], a.gate, group)
        made.append(routing)
    if a is not None and a.method == "mixlora":
        return mixed_feed_forward(p, config, f"{layer}.mlp", x, made)
    h = silu(linear(p, config, f"{layer}.mlp.gate_proj", x, made, routing))
    h = h * linear(p, config, f"{layer}.mlp.up_proj", x, made, routing)
    y = linear(p, config, f"{layer}.mlp.down_proj", h, made, routing)
    if a is None:
        taps.append((x, y))
    return y


def mixed_feed_forward(p: Parameters, config: Config, name: str, x: Tensor, made: list) -> Tensor:
    """MixLoRA (arXiv 2404.15159): every expert is a whole FFN with adapted weights of its own."""
    a = config.adapters
    decision = methods.route(p, name, x, a.method)
    made.append(decision)

    def weight(which: str, e: int) -> Tensor:
        linear, rows = f"{name}.{which}_proj", slice(e * a.rank, (e + 1) * a.rank)
        low, high = p[f"{linear}.lora_A.weight"][rows], p[f"{linear}.lora_B.weight"][:, rows]
        return p[f"{linear}.weight"] + a.alpha / a.rank * high @ low

    y = torch.zeros_like(x)
    for e in range(a.experts):
        h = silu(x @ weight("gate", e).T) * (x @ weight("up", e).T)
        y = y + decision.weights[:, e : e + 1] * (h @ weight("down", e).T)
    return y


def self_attention(p: Parameters, config: Config, layer: str, x: Tensor, made: list) -> Tensor:
    d, positions = config.decoder, torch.arange(len(x))
    q, k, v = (linear(p, config, f"{layer}.self_attn.{n}_proj", x, made) for n in "qkv")
    q = rope(split_heads(q, d.heads), positions, d.theta)
    k = rope(split_heads(k, d.kv_heads), positions, d.theta)
    causal = positions[:, None] >= positions[None, :]
    y = attention(q, k, split_heads(v, d.kv_heads), causal)
    return linear(p, config, f"{layer}.self_attn.o_proj", join_heads(y), made)


def decode(p: Parameters, config: Config, sequence: Sequence, visual: Tensor) -> tuple[list[Tensor], list[Routing]]:
    """The hidden states [T, C] after each block and after the last norm; the routings in their order."""
    taps: list[tuple[Tensor, Tensor]] = []
    if config.adapters is not None and config.adapters.blocks:
        with torch.no_grad():
            run_blocks(p, replace(config, adapters=None), sequence, visual, taps)
    return run_blocks(p, config, sequence, visual, taps)


def run_blocks(p: Parameters, config: Config, sequence: Sequence, visual: Tensor, taps: list) -> tuple[list[Tensor], list[Routing]]:
    ids, d = sequence.ids, config.decoder
    table = p[f"{DECODER}.embed_tokens.weight"]
    x = torch.stack([table[i] if i >= 0 else visual[-1 - i] for i in ids.tolist()])
    states, routings = [], []
    for i in range(d.layers):
        layer = f"{DECODER}.layers.{i}"
        x = x + self_attention(p, config, layer, rms_norm(p, f"{layer}.input_layernorm", x, d.eps), routings)
        y = rms_norm(p, f"{layer}.post_attention_layernorm", x, d.eps)
        x = x + feed_forward(p, config, layer, y, sequence.kinds, routings, taps)
        states.append(x)
    states.append(rms_norm(p, f"{DECODER}.norm", x, d.eps))
    return states, routings


@dataclass
class Output:
    losses: Tensor  # [S] cross-entropy of each supervised row, in the order of the batch
    routings: list[list[Routing | methods.Decision]]  # [sample][router]; empty without one
    stages: dict[str, Tensor]  # hidden states [N, C] on the way


def forward(p: Parameters, config: Config, images: Tensor, batch: list[Sequence]) -> Output:
    stages: dict[str, Tensor] = {}
    visual = visual_tokens(p, config.vision, images, stages)
    losses, routings, states = [], [], []
    for sequence in batch:
        hidden, routing = decode(p, config, sequence, visual)
        rows = sequence.targets >= 0
        logits = hidden[-1][rows] @ p[f"{HEAD}.weight"].T
        losses.append(F.cross_entropy(logits, sequence.targets[rows], reduction="none"))
        states.append(hidden)
        if routing:
            routings.append(routing)
    names = [f"layer.{i}" for i in range(config.decoder.layers)] + ["norm"]
    stages |= {name: torch.cat(parts) for name, parts in zip(names, zip(*states))}
    return Output(torch.cat(losses), routings, stages)
