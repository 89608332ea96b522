"""Deterministic values that C++ can regenerate, so that golden files need not store inputs.

The construction is that of tensor/rng.h: FNV-1a of the name, spread by SplitMix64's finaliser. Element i
(row-major) of the tensor `name` is

    ((mix_bits(key ^ i) >> 11) * 2^-53 - 0.5) * scale      key = random_key(seed, 0, name)

in f64, so the two languages agree to the bit.
"""
import math

import numpy as np
import torch

MASK = (1 << 64) - 1


def mix_bits(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is wanted
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def mix_bits_of(x: int) -> int:
    return int(mix_bits(np.array([x], dtype=np.uint64))[0])


def random_key(seed: int, step: int, path: str) -> int:
    h = 0xCBF29CE484222325
    for byte in path.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return mix_bits_of(mix_bits_of(mix_bits_of(seed) ^ step) ^ h)


def values(seed: int, name: str, shape: tuple[int, ...], scale: float) -> torch.Tensor:
    """Uniform in [-scale/2, scale/2), f64."""
    index = np.arange(math.prod(shape), dtype=np.uint64)
    bits = mix_bits(index ^ np.uint64(random_key(seed, 0, name))) >> np.uint64(11)
    unit = bits.astype(np.float64) * 2.0**-53
    return torch.from_numpy((unit - 0.5) * scale).reshape(shape)


NORMS = ("layernorm.weight", "layer_norm1.weight", "layer_norm2.weight", "layrnorm.weight", "model.norm.weight")
EMBEDDINGS = ("embed_tokens.weight", "position_embedding.weight", "class_embedding")


def parameter(seed: int, name: str, shape: tuple[int, ...], rank: int) -> torch.Tensor:
    """A model's parameter; the end of its name determines its kind and scale."""
    if name.endswith(NORMS):
        return 1 + values(seed, name, shape, 0.2)
    if name.endswith(".bias"):
        return values(seed, name, shape, 0.2)
    if name.endswith(EMBEDDINGS):
        return values(seed, name, shape, 1.0)
    if name.endswith("lora_B.weight"):  # not zero, so that the gradient of A does not vanish
        return values(seed, name, shape, 0.5 / math.sqrt(rank))
    fan_in = math.prod(shape[1:])
    if name.endswith("router.weight"):  # wide: few tokens near a tie
        return values(seed, name, shape, 8.0 / math.sqrt(fan_in))
    return values(seed, name, shape, 2.0 / math.sqrt(fan_in))


def digest(seed: int, name: str, x: torch.Tensor) -> torch.Tensor:
    """A tensor in ten numbers: L2 norm, sum against a pseudo-random probe, first 8 elements (zeros after)."""
    x = x.detach().double()
    probe = values(seed, name + ".probe", tuple(x.shape), 1.0)
    out = torch.zeros(10, dtype=torch.float64)
    out[0] = x.norm()
    out[1] = (x * probe).sum()
    head = x.flatten()[:8]
    out[2 : 2 + len(head)] = head
    return out
