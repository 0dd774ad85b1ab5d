"""Random numbers: what may be passed as `rng`."""

from __future__ import annotations

import numpy as np

from fastopt.base.arguments import whole

MOST = 2**128 - 1
"""The largest seed: NumPy's own have 128 bits."""


def generator(rng: np.random.Generator | int) -> np.random.Generator:
    """The generator itself, or a new one from a seed; the global state of NumPy is never used."""
    if isinstance(rng, np.random.Generator):
        return rng
    expected = "a generator, np.random.default_rng(seed), or a seed (a whole number, 0 or larger)"
    return np.random.default_rng(whole("rng", rng, 0, MOST, expected))
