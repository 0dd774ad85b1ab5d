"""Mini-batches of one epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastopt.base.arguments import boolean, whole
from fastopt.base.rng import generator


def batches(
    n: int, size: int | None, rng: np.random.Generator | int, drop_last: bool = False
) -> Iterator[NDArray[np.int64]]:
    """The batches of one epoch over n examples: arrays of indices, drawn without replacement from a permutation.

        rng = np.random.default_rng(0)
        for epoch in range(epochs):
            for i in fastopt.batches(len(x), 32, rng):
                opt.step(gradients(x[i], y[i]))

    n : how many examples there are, 1 or larger.
    size : examples in a batch: 1 is stochastic descent; None, or n and above, is one batch of all.
    rng : a NumPy generator, which a call takes one permutation from; or a seed, with which every call gives the same
        order, so that epochs want a generator or a seed each.
    drop_last : leave out the last batch where it is smaller than the others. By default every index occurs
        exactly once, as with PyTorch's DataLoader.

    Each is an int64 array of its own part of the permutation. Raises TypeError or ValueError naming the argument, at
    the call.
    """
    n = whole("n", n)
    size = n if size is None else whole("size", size)
    if boolean("drop_last", drop_last) and size > n:
        raise ValueError(f"size is {size} and n is {n}: with drop_last no batch is left")
    order = generator(rng).permutation(n)
    end = n - n % size if drop_last else n
    return (order[i : i + size] for i in range(0, end, size))
