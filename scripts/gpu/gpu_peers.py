"""Batches, attention over packed rows and models for scripts/gpu/bench_gpu_peers."""
import contextlib
import dataclasses
import inspect
import tomllib

import torch
import torch.nn.functional as F
import transformers
from torch import nn

RANK, ALPHA = 32, 64


# ---- the work


class Sizes:
    """Sizes from a file of configs/models."""

    def __init__(self, path):
        model = tomllib.loads(path.read_text())["model"]
        vision, self.decoder = model["vision"], model["decoder"]
        self.visual = (vision["image_size"] // vision["patch_size"]) ** 2
        self.vision_width, self.width = vision["width"], self.decoder["width"]


def sequences_of(sizes, texts, tokens):
    """(visual, text) rows of each sequence, as in train/measure/synthetic.cpp."""
    found, rows = [], 0
    while rows < tokens:
        wanted = sizes.visual + texts[len(found) % len(texts)]
        length = min(wanted, sizes.decoder["max_tokens"], tokens - rows)
        text = length - sizes.visual if length > sizes.visual else length
        found.append((length - text, text))
        rows += length
    return found


@dataclasses.dataclass
class Sample:
    ids: torch.Tensor  # 0 in the rows of the image
    features: torch.Tensor
    answer: int  # number of supervised rows, at the end


def draw(sizes, sequences, device, dtype):
    g = torch.Generator().manual_seed(2)
    samples = []
    for visual, text in sequences:
        words = torch.randint(sizes.decoder["vocabulary"], (text,), generator=g)
        features = torch.randn(visual, sizes.vision_width, generator=g)
        ids = torch.cat([torch.zeros(visual, dtype=torch.long), words])
        samples.append(Sample(ids.to(device), features.to(device, dtype), text // 2))
    return samples


class Batch:
    """The rows of several samples, and their positions in both layouts."""

    def __init__(self, samples):
        device = samples[0].ids.device
        index = lambda values: torch.tensor(values, device=device)
        lengths = [len(s.ids) for s in samples]
        self.count, self.longest, self.host_offsets = len(samples), max(lengths), [0]
        for n in lengths:
            self.host_offsets.append(self.host_offsets[-1] + n)
        self.rows = self.host_offsets[-1]
        self.offsets = index(self.host_offsets).int()
        self.positions = torch.cat([torch.arange(n, device=device) for n in lengths])
        self.sequence = torch.repeat_interleave(torch.arange(self.count, device=device), index(lengths))
        self.lengths = index(lengths)
        self.slots = self.sequence * self.longest + self.positions  # of each row in [B*T]
        self.ids = torch.cat([s.ids for s in samples])
        self.features = torch.cat([s.features for s in samples])
        ends, visual = self.host_offsets[1:], [len(s.features) for s in samples]
        self.visual = index([b + i for b, n in zip(self.host_offsets, visual) for i in range(n)]).long()
        answers = index([i for end, s in zip(ends, samples) for i in range(end - s.answer, end)]).long()
        self.targets, self.predicting = self.ids[answers], answers - 1  # the row before a word predicts it
        self.labels = torch.full((self.count * self.longest,), -100, device=device)
        self.labels[self.slots[answers]] = self.targets
        self.labels = self.labels.view(self.count, self.longest)
        self.mask = (torch.arange(self.longest, device=device) < self.lengths[:, None]).long()

    def embedded(self, model, projector):
        """[rows, C]"""
        with torch.no_grad():
            x = model.get_input_embeddings()(self.ids)
            x[self.visual] = projector(self.features)
        return x


# ---- attention over packed rows


def by_sequence(q, k, v, batch):
    """One call of SDPA for each sequence; q, k, v: [rows, heads, size]."""
    parts = []
    for begin, end in zip(batch.host_offsets, batch.host_offsets[1:]):
        one = [x[begin:end].transpose(0, 1)[None] for x in (q, k, v)]
        parts.append(F.scaled_dot_product_attention(*one, is_causal=True)[0].transpose(0, 1))
    return torch.cat(parts)


def flash_by_offsets():
    """PyTorch's own attention by cu_seqlens; raises ImportError when this PyTorch has none."""
    from torch.nn.attention.varlen import varlen_attn
    known = inspect.signature(varlen_attn).parameters
    causal = {"is_causal": True} if "is_causal" in known else {"window_size": (-1, 0)}
    return lambda q, k, v, b: varlen_attn(q, k, v, b.offsets, b.offsets, b.longest, b.longest, **causal)


def attention_fault(attend, device):
    """The relative error of `attend` against by_sequence in bf16, over outputs and gradients."""
    lengths = [5, 64, 1, 130]
    batch = Batch([Sample(torch.zeros(n, dtype=torch.long, device=device), torch.zeros(0, 1, device=device), 0) for n in lengths])
    g = torch.Generator().manual_seed(1)
    drawn = [torch.randn(sum(lengths), 4, 128, generator=g) for _ in range(4)]
    results = []
    for f in (attend, by_sequence):
        *qkv, dy = (t.to(device, torch.bfloat16).requires_grad_() for t in drawn)
        y = f(*qkv, batch)
        results.append(torch.cat([t.flatten().float() for t in (y, *torch.autograd.grad(y, qkv, dy.detach()))]))
    return ((results[0] - results[1]).norm() / results[1].norm()).item()


def choose_attention(device):
    """(attention for half precision, its description): by cu_seqlens if that works here and agrees."""
    calls = "a call of SDPA for each sequence"
    if device == "cpu":
        return by_sequence, calls
    try:
        attend = flash_by_offsets()
        fault = attention_fault(attend, device)
    except (ImportError, RuntimeError, TypeError) as error:
        return by_sequence, f"{calls} (varlen_attn: {type(error).__name__}: {str(error).splitlines()[0]})"
    if fault > 0.02:
        return by_sequence, f"{calls} (varlen_attn is {fault:.3f} off)"
    return attend, "torch.nn.attention.varlen by cu_seqlens"


def register_packed(attend):
    def packed(module, query, key, value, attention_mask, packed_batch=None, **_):
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        f = attend if q.dtype == torch.bfloat16 else by_sequence
        return f(q, k, v, packed_batch)[None], None

    transformers.AttentionInterface.register("packed", packed)


# ---- the models


@contextlib.contextmanager
def made_on(device, dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def base_model(sizes, device, dtype):
    d = sizes.decoder
    config = transformers.LlamaConfig(
        vocab_size=d["vocabulary"], hidden_size=d["width"], intermediate_size=d["mlp_width"],
        num_hidden_layers=d["layers"], num_attention_heads=d["heads"], num_key_value_heads=d["kv_heads"],
        rms_norm_eps=d["norm_eps"], max_position_embeddings=d["max_tokens"], tie_word_embeddings=False, use_cache=False,
        pad_token_id=None)
    torch.manual_seed(0)
    with made_on(device, dtype):
        model = transformers.LlamaForCausalLM(config)
        projector = nn.Sequential(nn.Linear(sizes.vision_width, sizes.width), nn.GELU(), nn.Linear(sizes.width, sizes.width))
    return model.requires_grad_(False).train(), projector.requires_grad_(False)


class LoopLinear(nn.Module):
    """A frozen Linear beside E LoRA experts, one for each row: y = W x + (alpha/r) B_e A_e x."""

    def __init__(self, base, experts, rank):
        super().__init__()
        like = {"bias": False, "device": base.weight.device, "dtype": base.weight.dtype}
        self.base, self.scale = base, ALPHA / rank
        self.a = nn.ModuleList(nn.Linear(base.in_features, rank, **like) for _ in range(experts))
        self.b = nn.ModuleList(nn.Linear(rank, base.out_features, **like) for _ in range(experts))
        for b in self.b:
            nn.init.zeros_(b.weight)

    def forward(self, x, chosen):
        y = self.base(x)
        for e, (a, b) in enumerate(zip(self.a, self.b)):
            rows = torch.where(chosen == e)[0]  # the host waits here, as in the authors' code
            y.index_add_(0, rows, b(a(x[rows])) * self.scale)
        return y


class LoopMlp(nn.Module):
    """The FFN of LLaVA-MoLE's sparse mode: one decision per row; its probability does not scale the expert."""

    def __init__(self, mlp, experts, rank=RANK):
        super().__init__()
        weight = mlp.gate_proj.weight
        self.router = nn.Linear(weight.shape[1], experts, device=weight.device, dtype=weight.dtype)
        self.gate, self.up, self.down = (LoopLinear(w, experts, rank) for w in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))

    def forward(self, x):
        rows = x.flatten(0, 1)
        self.probabilities = self.router(rows).softmax(-1)
        self.chosen = self.probabilities.argmax(-1)
        h = F.silu(self.gate(rows, self.chosen)) * self.up(rows, self.chosen)
        return self.down(h, self.chosen).view(x.shape)


def balance(layers, batch):
    """The authors' balance loss: per sample, layers pooled before the product of shares and probabilities."""
    experts = layers[0].probabilities.shape[-1]
    mean = lambda parts: torch.stack(parts).float().mean(0)
    pool = lambda rows: rows.new_zeros(batch.count, experts).index_add(0, batch.sequence, rows) / batch.lengths[:, None]
    shares = mean([F.one_hot(m.chosen, experts) for m in layers])
    return (pool(mean([m.probabilities for m in layers])) * pool(shares)).sum() / batch.count
