"""Random numbers: what may be passed as `rng`."""

from __future__ import annotations

import operator

import numpy as np


def generator(rng: np.random.Generator | int) -> np.random.Generator:
    """The generator itself, or a new one from a seed; the global state of NumPy is never used."""
    if isinstance(rng, np.random.Generator):
        return rng
    try:
        if isinstance(rng, bool):
            raise TypeError
        seed = operator.index(rng)
    except TypeError:
        raise TypeError(
            f"rng is {rng!r}: expected a generator, np.random.default_rng(seed), or a seed (a whole number)"
        ) from None
    if seed < 0:
        raise ValueError(f"rng is {seed}: a seed is 0 or larger")
    return np.random.default_rng(seed)
