"""Writes the golden files of tests/golden/; see README.md there for what each holds."""
import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

import methods
import ops
import parrot
from generator import digest, parameter, values
from model import (ANSWER, PROMPT, VISUAL, Adapters, Config, Decoder, Output, Parameters, Sequence, Vision,
                   adapter_shapes, base_shapes, forward)
from routing import balance_loss, gap

SEED = 37  # the first with which every case keeps GAP (--find-seed)
GAP = 1e-3  # between the two largest routing probabilities, before training
TRAINING_GAP = 1e-4  # and during the ten steps: above the drift of f32 from f64
BALANCE_WEIGHT = 0.1
STEPS = 10
OUT = Path(__file__).resolve().parents[2] / "tests" / "golden"


@dataclass(frozen=True)
class Case:
    name: str
    config: Config
    lr: float = 1e-2
    full: tuple[str, ...] = ()  # parts of the names of parameters whose gradient is stored in full; others as a digest

    @property
    def routed(self) -> bool:
        return self.config.adapters is not None and self.config.adapters.gate != ""


def mixture(gate: str, **options) -> Config:
    return Config(adapters=Adapters(experts=3, gate=gate, **options))


def plugin(method: str, **options) -> Case:
    """A method of methods.py, with 3 experts on each Linear."""
    adapters = Adapters(experts=3, method=method, **options)
    return Case(method, Config(adapters=adapters), full=("layers.0.mlp", "router"))


EVERYTHING = ("",)
CASES = [
    Case("base", Config()),
    Case("base_grouped", Config(decoder=Decoder(kv_heads=2))),
    Case("lora", Config(adapters=Adapters()), full=EVERYTHING),
    Case("lora_attention", Config(adapters=Adapters(attention=True)), full=("self_attn",)),
    Case("mole_none", mixture("none"), full=EVERYTHING),
    Case("mole_straight_through", mixture("straight_through"), full=("router",)),
    Case("mole_scaled", mixture("scaled"), full=EVERYTHING),
    Case("mole_attention", mixture("none", attention=True), full=("router",)),
    Case("dense", mixture("dense"), full=EVERYTHING),
    Case("mole_sample", mixture("scaled", per_sample=True), full=EVERYTHING),
]

def factorllm(name: str) -> Case:
    """Blocks of the FFN, two of four per token; the name sets the form of the loss."""
    return Case(name, Config(adapters=Adapters(experts=4, method=name, chosen=2)), full=("layers.0.mlp.experts.down", "router"))


METHODS = [
    factorllm("factorllm"),
    factorllm("factorllm_hard"),
    plugin("ldmole", attention_experts=True),
    plugin("adamole", ffn_experts=False, attention_experts=True),
    plugin("mixlora", attention=True),
    plugin("loramoe"),
    plugin("dynmole"),
    plugin("mola", attention_experts=True),
]

# ---- the batch: five sequences; turns are (tokens of the prompt, tokens of the answer)

IMAGES = 4
BATCH: list[tuple[int | None, list[tuple[int, int]]]] = [
    (0, [(6, 3)]),
    (1, [(4, 2), (3, 4)]),
    (None, [(7, 5)]),
    (2, [(3, 1)]),
    (3, [(9, 6)]),
]


def make_sequence(seed: int, index: int, vision: Vision, vocabulary: int) -> Sequence:
    image, turns = BATCH[index]
    visual = [] if image is None else [-1 - (image * vision.tokens + t) for t in range(vision.tokens)]
    kinds = [VISUAL] * len(visual)
    for prompt, answer in turns:
        kinds += [PROMPT] * prompt + [ANSWER] * answer
    text = values(seed, f"batch.text.{index}", (len(kinds) - len(visual),), 1.0) + 0.5
    ids = visual + (text * vocabulary).floor().int().tolist()
    after = zip(ids[1:], kinds[1:])  # row n predicts token n + 1, where that is part of an answer
    targets = [i if kind == ANSWER else -1 for i, kind in after] + [-1]
    return Sequence(torch.tensor(ids), torch.tensor(kinds), torch.tensor(targets))


def make_batch(seed: int) -> list[Sequence]:
    return [make_sequence(seed, i, Vision(), Decoder().vocabulary) for i in range(len(BATCH))]


def make_images(seed: int) -> Tensor:
    size = Vision().image
    return values(seed, "batch.images", (IMAGES, 3, size, size), 3.0)


def batch_tensors(seed: int) -> dict[str, Tensor]:
    batch = make_batch(seed)
    lengths = torch.tensor([0] + [len(s.ids) for s in batch])
    tensors = {"offsets": lengths.cumsum(0)}
    for field in ("ids", "kinds", "targets"):
        tensors[field] = torch.cat([getattr(s, field) for s in batch])
    tensors["images"] = torch.tensor([-1 if image is None else image for image, _ in BATCH])
    out = {f"batch.{name}": x.to(torch.int32) for name, x in tensors.items()}
    return out | {"generator.check": values(seed, "generator.check", (3, 4), 2.0)}


# ---- one case


def make_parameters(seed: int, config: Config, dtype: torch.dtype) -> tuple[Parameters, list[str]]:
    """All parameters, and the names of the trainable ones: the adapters, or all where there are none."""
    base, adapters = base_shapes(config), adapter_shapes(config)
    rank = config.adapters.rank if config.adapters else 1
    p = {name: parameter(seed, name, shape, rank).to(dtype) for name, shape in (base | adapters).items()}
    trainable = list(adapters or base)
    for name in trainable:
        p[name].requires_grad_()
    return p, trainable


@dataclass
class Loss:
    total: Tensor
    task: Tensor  # mean cross-entropy over the supervised targets of the batch
    balance: Tensor | None
    output: Output


def evaluate(case: Case, p: Parameters, images: Tensor, batch: list[Sequence]) -> Loss:
    output = forward(p, case.config, images, batch)
    task = output.losses.mean()
    if not case.routed:
        return Loss(task, task, None, output)
    balance = balance_loss(output.routings)
    return Loss(task + BALANCE_WEIGHT * balance, task, balance, output)


def scalar(x: Tensor | float) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64).detach().reshape(1)


def kept_gradients(seed: int, case: Case, loss: Tensor, p: Parameters, names: list[str]) -> dict[str, Tensor]:
    """The gradient of each parameter in full, where its case wants that, or as a digest."""
    grads = dict(zip(names, torch.autograd.grad(loss, [p[n] for n in names])))
    full = {n: g for n, g in grads.items() if any(part in n for part in case.full)}
    return {f"grad.{n}": g for n, g in full.items()} | {
        f"digest.{n}": digest(seed, n, g) for n, g in grads.items() if n not in full}


def gradients(seed: int, case: Case) -> dict[str, Tensor]:
    p, trainable = make_parameters(seed, case.config, torch.float64)
    loss = evaluate(case, p, make_images(seed), make_batch(seed))
    out = {"loss": scalar(loss.total), "task_loss": scalar(loss.task), "row_losses": loss.output.losses.detach()}
    out |= {f"stage.{n}": digest(seed, f"stage.{n}", x) for n, x in loss.output.stages.items()}
    if loss.balance is not None:
        out |= {"balance_loss": scalar(loss.balance), "gap": scalar(gap(loss.output.routings))}
        layers = [torch.cat([r.chosen for r in layer]) for layer in zip(*loss.output.routings)]
        out["chosen"] = torch.stack(layers).to(torch.int32)
    return out | kept_gradients(seed, case, loss.total, p, trainable)


@dataclass
class Training:
    losses: Tensor  # [STEPS], each before its update
    gap: float
    chosen: list[Tensor]


def train(seed: int, case: Case, dtype: torch.dtype) -> Training:
    p, trainable = make_parameters(seed, case.config, dtype)
    leaves = [p[n] for n in trainable]
    images, batch = make_images(seed).to(dtype), make_batch(seed)
    optimizer = torch.optim.AdamW(leaves, lr=case.lr, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0)
    result = Training(torch.zeros(STEPS, dtype=torch.float64), 1.0, [])
    for step in range(STEPS):
        loss = evaluate(case, p, images, batch)
        optimizer.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        optimizer.step()
        result.losses[step] = loss.total.item()
        if case.routed:
            result.gap = min(result.gap, gap(loss.output.routings))
            result.chosen += [r.chosen for layers in loss.output.routings for r in layers]
    return result


def training(seed: int, case: Case) -> dict[str, Tensor]:
    exact, single = train(seed, case, torch.float64), train(seed, case, torch.float32)
    flips = sum(int((a != b).sum()) for a, b in zip(exact.chosen, single.chosen))
    assert flips == 0, f"{case.name}: {flips} routing decisions differ between f32 and f64"
    worst = (single.losses / exact.losses - 1).abs().max().item()
    first, last = exact.losses[0].item(), exact.losses[-1].item()
    print(f"  {case.name}: loss {first:.4f} to {last:.4f}, f32 within {worst:.1e}, gap in training {exact.gap:.1e}")
    out = {"train.losses.f64": exact.losses, "train.losses.f32": single.losses}
    return out | ({"train.gap": scalar(exact.gap)} if case.routed else {})


# ---- methods with a router for each Linear: routing, losses and gradients, all auxiliary losses with one weight


def method_gradients(seed: int, case: Case) -> dict[str, Tensor]:
    p, trainable = make_parameters(seed, case.config, torch.float64)
    output = forward(p, case.config, make_images(seed), make_batch(seed))
    routers = methods.join(output.routings)
    types = [0 if image is not None else 1 for image, _ in BATCH]
    terms = methods.losses(case.name, routers, [len(s.ids) for s in make_batch(seed)], types)
    task = output.losses.mean()
    loss = task + BALANCE_WEIGHT * sum(terms.values())
    out = {"loss": scalar(loss), "task_loss": scalar(task)}
    out |= {f"term.{name}": scalar(value) for name, value in terms.items()}
    for d in routers:  # the experts of a row as a bit mask
        out[f"chosen.{d.site}"] = (d.mask @ 2.0 ** torch.arange(d.mask.shape[1]).to(d.mask)).to(torch.int32)
    return out | kept_gradients(seed, case, loss, p, trainable)


# ---- the forms of the balance loss, over the routings of mole_none


def balance_forms(seed: int) -> dict[str, Tensor]:
    """The balance loss alone in each form, and the digest of its gradient by every router parameter."""
    case = next(c for c in CASES if c.name == "mole_none")
    p, trainable = make_parameters(seed, case.config, torch.float64)
    routers = [n for n in trainable if "router" in n]
    routings = forward(p, case.config, make_images(seed), make_batch(seed)).routings
    out = {}
    for scope in ("sample", "batch"):
        for pool in ("joint", "layer"):
            for factor, suffix in ((1, ""), (case.config.adapters.experts, ".times_experts")):
                form = f"{scope}.{pool}{suffix}"
                loss = factor * balance_loss(routings, scope, pool)
                out[f"loss.{form}"] = scalar(loss)
                grads = torch.autograd.grad(loss, [p[n] for n in routers], retain_graph=True)
                out |= {f"digest.{form}.{n}": digest(seed, n, g) for n, g in zip(routers, grads)}
    return out


# ---- files


def write(name: str, tensors: dict[str, Tensor], **facts) -> None:
    # One key: the order in which safetensors writes several is not fixed, and the files are committed.
    facts |= {"torch": torch.__version__, "command": "scripts/golden/make_golden"}
    # safetensors refuses tensors that share memory.
    tensors = {n: t.clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
    path = OUT / f"{name}.safetensors"
    safetensors.torch.save_file(tensors, path, {"golden": json.dumps(facts, sort_keys=True)})
    print(f"{path.name} {path.stat().st_size}")


def write_case(seed: int, case: Case) -> None:
    tensors = gradients(seed, case) | training(seed, case)
    facts = {"config": dataclasses.asdict(case.config), "lr": case.lr, "seed": seed}
    if case.routed:
        facts["balance_weight"] = BALANCE_WEIGHT
    write(case.name, tensors, **facts)


def write_ops(seed: int) -> None:
    tensors, numbers = {}, {}
    for case in ops.cases():
        tensors |= ops.evaluate(seed, case)
        numbers[case.name] = case.numbers
    write("ops", tensors, numbers=numbers, seed=seed)


def starts_far(seed: int, case: Case) -> bool:
    p, _ = make_parameters(seed, case.config, torch.float64)
    with torch.no_grad():
        return gap(forward(p, case.config, make_images(seed), make_batch(seed)).routings) > GAP


def find_seed() -> int:
    routed = [c for c in CASES if c.routed]
    seed = 1
    while not (all(starts_far(seed, c) for c in routed)
               and all(train(seed, c, torch.float64).gap > TRAINING_GAP for c in routed)):
        seed += 1
    return seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--find-seed", action="store_true", help="print the first seed far from routing ties")
    parser.add_argument("--parrot", action="store_true", help="write parrot.safetensors alone")
    options = parser.parse_args()
    torch.set_num_threads(1)  # one order of summation
    if options.find_seed:
        print(find_seed())
        return
    OUT.mkdir(parents=True, exist_ok=True)
    write("parrot", parrot.tensors(SEED), seed=SEED)
    if options.parrot:
        return
    write("batch", batch_tensors(SEED), seed=SEED)
    write_ops(SEED)
    for case in CASES:
        write_case(SEED, case)
    for case in METHODS:
        write(case.name, method_gradients(SEED, case), config=dataclasses.asdict(case.config), seed=SEED,
              weight=BALANCE_WEIGHT)
    write("balance", balance_forms(SEED), seed=SEED)


main()
