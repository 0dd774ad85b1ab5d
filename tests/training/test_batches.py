"""fastopt.batches: every example once, in batches of the size asked for, in an order that the generator gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastopt


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 200), size=st.one_of(st.none(), st.integers(1, 250)), seed=st.integers(0, 2**70))
def test_an_epoch_draws_every_example_once(n: int, size: int | None, seed: int) -> None:
    found = list(fastopt.batches(n, size, seed))
    assert sorted(np.concatenate(found).tolist()) == list(range(n))
    whole = n if size is None else min(size, n)
    assert [len(batch) for batch in found] == [whole] * (n // whole) + [n % whole] * (n % whole > 0)
    assert all(batch.dtype == np.int64 for batch in found)
    if whole == n or size is None:
        return
    full = list(fastopt.batches(n, size, seed, drop_last=True))
    assert [batch.tolist() for batch in full] == [batch.tolist() for batch in found if len(batch) == size]


def test_sizes_one_some_and_all() -> None:
    assert [len(i) for i in fastopt.batches(5, 1, 0)] == [1] * 5
    assert [len(i) for i in fastopt.batches(5, 2, 0)] == [2, 2, 1]
    assert [len(i) for i in fastopt.batches(5, 2, 0, drop_last=True)] == [2, 2]
    assert [len(i) for i in fastopt.batches(5, 5, 0, drop_last=True)] == [5]
    assert [len(i) for i in fastopt.batches(5, 99, 0)] == [len(i) for i in fastopt.batches(5, None, 0)] == [5]


def test_the_order_is_the_generators() -> None:
    expected = np.random.default_rng(7)
    rng = np.random.default_rng(7)
    epochs = [np.concatenate(list(fastopt.batches(50, 8, rng))) for _ in range(3)]
    for epoch in epochs:
        assert np.array_equal(epoch, expected.permutation(50))
    assert not np.array_equal(epochs[0], epochs[1])
    assert np.array_equal(epochs[0], np.concatenate(list(fastopt.batches(50, 8, 7))))


def test_the_permutation_is_drawn_at_the_call() -> None:
    rng = np.random.default_rng(7)
    first, second = fastopt.batches(50, 50, rng), fastopt.batches(50, 50, rng)
    assert isinstance(first, Iterator)
    later, earlier = next(second), next(first)
    expected = np.random.default_rng(7)
    assert np.array_equal(earlier, expected.permutation(50))
    assert np.array_equal(later, expected.permutation(50))


def test_every_order_is_as_likely() -> None:
    rng = np.random.default_rng(0)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(2400):
        order = tuple(np.concatenate(list(fastopt.batches(4, 3, rng))).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    # Chi-squared with 23 degrees of freedom is above 49.7 in one of a thousand.
    assert sum((x - 100) ** 2 / 100 for x in counts.values()) < 49.7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 5, 0), "n is 0: expected a whole number, 1 or larger"),
        ((5.0, 5, 0), "n is 5.0: expected a whole number"),
        ((5, 0, 0), "size is 0"),
        ((5, "2", 0), "size is '2'"),
        ((5, True, 0), "size is True"),
        ((5, 2, None), "rng is None: expected a generator, np.random.default_rng"),
        ((5, 2, np.random.RandomState(0)), "rng is RandomState"),
        ((5, 2, 1.5), "rng is 1.5"),
        ((5, 2, True), "rng is True"),
        ((5, 2, -1), "rng is -1: expected .*a seed"),
        ((5, 2, 0, 1), "drop_last is 1: expected True or False"),
        ((5, 6, 0, True), "size is 6 and n is 5: with drop_last no batch is left"),
    ],
)
def test_bad_arguments_are_named_at_the_call(arguments: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        fastopt.batches(*arguments)
