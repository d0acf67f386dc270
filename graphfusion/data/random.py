"""Counted randomness: each random choice is a function of what it is for, so that no order of events can change it."""

from __future__ import annotations

import hashlib

import numpy as np


def counted_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit number that depends on nothing but the arguments."""
    text = "/".join(map(str, (seed, purpose, *counters)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def counted_rng(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A generator for one choice, for example `counted_rng(seed, "modality_dropout", epoch, sample.id)`."""
    return np.random.Generator(np.random.Philox(counted_seed(seed, purpose, *counters)))
