"""One block of memory for many arrays."""

from __future__ import annotations

import numpy as np

from fastopt.base import tree
from fastopt.base.arguments import boolean
from fastopt.base.memory import Memory
from fastopt.base.tree import Array, Tree


def arena(arrays: Tree, zeros: bool = False) -> tuple[Array, Tree]:
    """Copies arrays into one contiguous block: returns the 1-d block, and views of it in the structure of `arrays`.

    arrays : an array, or nested lists and dicts of arrays, all float32 or all float64. They are not written.
    zeros : leave the block at 0 instead, as for gradients.

    The block is aligned to 64 bytes and holds the arrays end to end, each in C order, in the order of the tree. Use
    the views in the model and give either to an optimizer: the views keep their names, the block is one long tensor
    and so the cheapest to step.

        block, params = fastopt.arena(params)
        flat, grads = fastopt.arena(params, zeros=True)
        opt = fastopt.AdamW(block)          # opt.step(flat), after the model has written to grads
    """
    zeros = boolean("zeros", zeros)
    leaves = tree.flatten(arrays, what="array")
    tree.check_leaves(leaves, "array")
    for name, a in leaves:
        if not isinstance(a, np.ndarray) or a.dtype not in (np.float32, np.float64):
            raise TypeError(f"array {name!r} is {tree.kind(a)}: expected arrays of float32 or of float64")
        if a.dtype != leaves[0][1].dtype:
            raise TypeError(
                f"array {leaves[0][0]!r} has dtype {leaves[0][1].dtype} and {name!r} {a.dtype}: a block has one"
            )
    if not leaves:
        raise ValueError("no arrays: pass at least one")
    block = Memory(1, sum(a.nbytes for _, a in leaves)).zeros((sum(a.size for _, a in leaves),), leaves[0][1].dtype)
    views, start = [], 0
    for _, a in leaves:
        view = block[start : start + a.size].reshape(a.shape)
        if not zeros:
            view[...] = a
        views.append(view)
        start += a.size
    return block, tree.rebuild(arrays, views)
