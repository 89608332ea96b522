"""The training step of `burrow train` in efficient PyTorch: a LLaMA-like decoder with LoRA or mixtures of LoRA
experts on the FFN, on the model and the batches that `--profile-batches` wrote.

The work is the same as Burrow's: visual features are given, the head runs on the supervised rows, frozen weights get
no gradient, experts run masked in one GEMM per side, AdamW is fused. Two layouts: `padded` computes every layer on
[B, T, C], as is usual; `packed` keeps the rows without padding and pads for attention only.

Prints the loss and the gradient's norm of the first step of each variant as a line of JSON; then, for each line
on stdin, measures every variant once and prints the median seconds of a step.
"""
import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

DECODER, PROJECTOR = "language_model.model", "multi_modal_projector"


class Batch:
    """One step's rows, with the indices of both layouts."""

    def __init__(self, tensors, i):
        take = lambda name: tensors[f"batch.{i}.{name}"]
        self.ids, self.positions, offsets = take("ids").long(), take("positions").long(), take("offsets").long()
        self.supervised, self.targets = take("supervised").long(), take("targets").long()
        self.features = tensors.get(f"batch.{i}.features")
        lengths = offsets[1:] - offsets[:-1]
        self.samples, self.longest = len(lengths), int(lengths.max())
        self.sequence = torch.repeat_interleave(torch.arange(self.samples), lengths)
        self.slots = self.sequence * self.longest + self.positions  # of each row in [B*T]
        self.counts = lengths.float()[:, None]

    @property
    def rows(self):
        return len(self.ids)


class Peer(torch.nn.Module):
    def __init__(self, tensors, c):
        super().__init__()
        self.c = c
        for name, value in tensors.items():
            if name.startswith(("batch.", "vision_tower.")):
                continue
            trains = ".lora_" in name or ".router." in name
            self.register_parameter(name.replace(".", "/"), torch.nn.Parameter(value.clone(), requires_grad=trains))

    def p(self, name):
        return self._parameters[name.replace(".", "/")]

    def adapted(self, name, x, weights):
        """x Wᵀ + (alpha/R) sum_e w_e B_e A_e x; weights [..., E], or None for plain LoRA."""
        y = F.linear(x, self.p(f"{name}.weight"))
        h = F.linear(x, self.p(f"{name}.lora_A.weight")) * self.c.scale
        if weights is not None:
            h = (h.unflatten(-1, (self.c.experts, -1)) * weights[..., None]).flatten(-2)
        return y + F.linear(h, self.p(f"{name}.lora_B.weight"))

    def route(self, layer, x):
        """probabilities and weights [..., E]"""
        router = f"{layer}.mlp.router"
        probs = F.linear(x, self.p(f"{router}.weight"), self.p(f"{router}.bias")).softmax(-1)
        if self.c.method == "dense":
            return probs, probs
        return probs, F.one_hot(probs.argmax(-1), self.c.experts).to(probs.dtype)

    def attend(self, layer, x, b, cos, sin):
        packed, heads = x.dim() == 2, self.c.heads

        def split(name):  # [B, H, T, D]
            y = F.linear(x, self.p(f"{layer}.self_attn.{name}_proj.weight"))
            if packed:
                y = y.new_zeros(b.samples * b.longest, y.shape[-1]).index_copy(0, b.slots, y)
            return y.view(b.samples, b.longest, heads, -1).transpose(1, 2)

        def turn(y):
            left, right = y.chunk(2, -1)
            return y * cos + torch.cat([-right, left], -1) * sin

        # Padding follows the tokens, so a causal mask hides it.
        y = F.scaled_dot_product_attention(turn(split("q")), turn(split("k")), split("v"), is_causal=True)
        y = y.transpose(1, 2).flatten(2)
        if packed:
            y = y.flatten(0, 1)[b.slots]
        return F.linear(y, self.p(f"{layer}.self_attn.o_proj.weight"))

    def feed_forward(self, layer, x):
        routing = self.route(layer, x) if self.c.experts > 1 else None
        weights = routing[1] if routing else None
        gate = self.adapted(f"{layer}.mlp.gate_proj", x, weights)
        up = self.adapted(f"{layer}.mlp.up_proj", x, weights)
        return self.adapted(f"{layer}.mlp.down_proj", F.silu(gate) * up, weights), routing

    def balance(self, routings, b, padded):
        """LLaVA-MoLE's: per sample, layers pooled before the product."""
        means = []
        for part in zip(*routings):
            mean = torch.stack(list(part)).mean(0)
            rows = mean.flatten(0, 1)[b.slots] if padded else mean
            means.append(mean.new_zeros(b.samples, self.c.experts).index_add(0, b.sequence, rows) / b.counts)
        probs, chosen = means
        return (probs * chosen).sum() / b.samples

    def forward(self, b, cos, sin, padded):
        """The loss of a step."""
        with torch.no_grad():
            visual = F.linear(b.features, self.p(f"{PROJECTOR}.linear_1.weight"), self.p(f"{PROJECTOR}.linear_1.bias"))
            visual = F.linear(F.gelu(visual), self.p(f"{PROJECTOR}.linear_2.weight"), self.p(f"{PROJECTOR}.linear_2.bias"))
            text = F.embedding(b.ids.clamp(min=0), self.p(f"{DECODER}.embed_tokens.weight"))
            x = torch.where(b.ids[:, None] < 0, visual[(-1 - b.ids).clamp(min=0)], text)
            if padded:
                x = x.new_zeros(b.samples * b.longest, x.shape[-1]).index_copy(0, b.slots, x)
                x = x.view(b.samples, b.longest, -1)
        routings = []
        for i in range(self.c.layers):
            layer = f"{DECODER}.layers.{i}"
            norm = lambda name, y: F.rms_norm(y, y.shape[-1:], self.p(f"{name}.weight"), 1e-5)
            x = x + self.attend(layer, norm(f"{layer}.input_layernorm", x), b, cos, sin)
            y, routing = self.feed_forward(layer, norm(f"{layer}.post_attention_layernorm", x))
            x = x + y
            routings.append(routing)
        rows = (b.slots[b.supervised] if padded else b.supervised)
        hidden = norm(f"{DECODER}.norm", (x.flatten(0, 1) if padded else x)[rows])
        loss = F.cross_entropy(F.linear(hidden, self.p("language_model.lm_head.weight")), b.targets)
        if self.c.balance > 0 and self.c.experts > 1:
            loss = loss + self.c.balance * self.balance(routings, b, padded)
        return loss


def rotations(longest, c):
    half = c.head_size // 2
    angle = torch.arange(longest)[:, None] * c.theta ** (-torch.arange(half) / half)
    return torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()


class Variant:
    """One way to run the peer: a layout, eager or compiled."""

    def __init__(self, c, tensors, batches, padded, compiled):
        self.padded, self.batches = padded, batches
        model = Peer(tensors, c)
        self.forward = torch.compile(model, dynamic=True) if compiled else model
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-3, betas=(0.9, 0.98), weight_decay=0, fused=True)
        self.turns = [rotations(b.longest, c) for b in batches]
        self.first = self.step(0)
        for i in range(1, len(batches)):  # warm-up: allocations and compilation
            self.step(i)

    def step(self, i):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward(self.batches[i], *self.turns[i], self.padded)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        return {"first_loss": loss.item(), "first_gradient_norm": norm.item()}

    def measure(self, seconds):
        """The median time of a step."""
        for i in range(len(self.batches)):
            self.step(i)
        times = []
        while sum(times) < seconds or len(times) % len(self.batches):
            begin = time.perf_counter()
            self.step(len(times) % len(self.batches))
            times.append(time.perf_counter() - begin)
        return statistics.median(times)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("batches")
    a.add_argument("--method", choices=["lora", "mole", "dense"], required=True)
    a.add_argument("--experts", type=int, default=1)
    a.add_argument("--scale", type=float, required=True, help="alpha / rank")
    a.add_argument("--balance", type=float, default=0, help="weight of the balance loss")
    a.add_argument("--layers", type=int, required=True)
    a.add_argument("--heads", type=int, required=True)
    a.add_argument("--head-size", type=int, required=True)
    a.add_argument("--theta", type=float, default=10000)
    a.add_argument("--threads", type=int, required=True)
    a.add_argument("--seconds", type=float, default=5, help="how long a round measures each variant")
    a.add_argument("--no-compile", action="store_true")
    c = a.parse_args()
    torch.set_num_threads(c.threads)
    tensors = load_file(c.batches)
    count = 1 + max(int(n.split(".")[1]) for n in tensors if n.startswith("batch."))
    batches = [Batch(tensors, i) for i in range(count)]
    variants = {f"eager, {layout}": Variant(c, tensors, batches, layout == "padded", False)
                for layout in ("padded", "packed")}
    if not c.no_compile:  # compiles only the layout that is faster eagerly, because compilation takes a minute
        faster = min(variants, key=lambda name: variants[name].measure(c.seconds / 2)).removeprefix("eager, ")
        variants[f"compiled, {faster}"] = Variant(c, tensors, batches, faster == "padded", True)
    print(json.dumps({"torch": torch.__version__, **{n: v.first for n, v in variants.items()}}), flush=True)
    for _ in sys.stdin:  # each line requests one round
        print(json.dumps({n: v.measure(c.seconds) for n, v in variants.items()}), flush=True)


main()
