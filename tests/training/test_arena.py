from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastopt
from tests.cases import ordinary


def test_views_of_one_block_step_as_the_arrays_do() -> None:
    rng = np.random.default_rng(0)
    params = {
        "a": ordinary(rng, (3, 5), np.float32),
        "b": [ordinary(rng, 7, np.float32), ordinary(rng, (), np.float32)],
    }
    block, views = fastopt.arena(params)
    flat, grads = fastopt.arena(params, zeros=True)
    assert block.shape == (23,)
    assert block.ctypes.data % 64 == 0
    assert not flat.any()
    assert np.array_equal(views["a"], params["a"])
    views["b"][0][0] = 5
    assert block[15] == 5
    views["b"][0][0] = params["b"][0][0]
    apart, joined, views_too = fastopt.Adam(params), fastopt.Adam(block), fastopt.arena(params)[1]
    named = fastopt.Adam(views_too)
    for _ in range(3):
        flat[...] = ordinary(rng, 23, np.float32)
        apart.step(grads)
        joined.step(flat)
        named.step(grads)
    assert named.names == ("a", "b.0", "b.1")
    for tree in (views, views_too):
        assert np.array_equal(tree["a"], params["a"])
        assert all(np.array_equal(x, y) for x, y in zip(tree["b"], params["b"], strict=True))


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ([], ValueError, "no arrays"),
        ([np.ones(2), np.ones(2, np.float32)], TypeError, "'0' has dtype float64 and '1' float32"),
        ([np.ones(2, int)], TypeError, "'0' is an array of int64"),
        ([1.0], TypeError, "'0' is a float"),
        ({"a": None}, TypeError, "'a' is None"),
    ],
)
def test_bad_arrays(arrays: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        fastopt.arena(arrays)


def test_bytes_per_step() -> None:
    p = [np.ones(100, np.float32), np.ones(10)]
    weight = 480
    assert fastopt.SGD(p, lr=0.1).bytes_per_step == 3 * weight
    assert fastopt.Adam(p).bytes_per_step == 7 * weight
    assert fastopt.Adam(p, clip_norm=1.0, average=0.9).bytes_per_step == 10 * weight
