"""Values that no function expects: hypothesis strategies."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


class Odd:
    """Equal to nothing, true of nothing, and not to be converted."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("do not compare me")

    def __bool__(self) -> bool:
        raise RuntimeError("do not ask me")

    def __repr__(self) -> str:
        return "Odd()"


def endless() -> Any:
    tree: list[Any] = [np.ones(2)]
    tree.append(tree)
    return tree


def masked() -> Any:
    return np.ma.masked_array(np.ones(3), [True, False, True])


def read_only() -> Any:
    a = np.full(3, 2.0)
    a.flags.writeable = False
    return a


def returning(value: Any) -> Callable[..., Any]:
    return lambda *args: value


# No size between these: an array of 2**40 elements may be what somebody wants.
INTEGERS = st.integers(-9, 9) | st.sampled_from([255, 256, 2**53 + 1, 2**63, -(2**63), 10**400, -(10**400)])

scalars = st.one_of(
    st.none(),
    st.booleans(),
    INTEGERS,
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.sampled_from(
        [Decimal("NaN"), Decimal(1), Fraction(1, 3), Fraction(10**400), Ellipsis, NotImplemented, range(3)]
    ),
    st.sampled_from(
        [
            np.float16(1),
            np.longdouble("1e4000"),
            np.int8(3),
            np.bool_(True),
            np.datetime64(1, "s"),
            np.timedelta64(1, "s"),
            np.str_("x"),
        ]
    ),
    st.builds(Odd),
    st.just(str),
)
arrays = st.one_of(
    hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_side=3)),
    hnp.arrays(st.sampled_from([np.float32, np.float64]), st.sampled_from([2, 3, (2, 2)])),
    st.builds(masked) | st.builds(read_only),
    st.sampled_from([np.array([1, None]), np.array(0.5), np.array(None), np.zeros(3, "f4,f8"), np.float32(1)]),
)
junk = st.recursive(
    scalars | arrays | st.builds(endless),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=3),
        st.sets(st.integers(), max_size=2),
        st.builds(iter, st.lists(inner, max_size=2)),
    ),
    max_leaves=6,
)
functions = st.builds(returning, junk | st.tuples(st.floats() | junk, arrays | junk) | st.floats())
"""Functions that give junk, or what looks like a loss, or like a loss and its gradient."""
NOTHING_TAKES = [Odd(), 1j, "", Ellipsis, {1, 2}, iter([1.0]), endless(), 10**5000, np.timedelta64(1, "s")]


@st.composite
def spoiled(draw: st.DrawFn, tree: Any) -> Any:
    """A dict or list in which, somewhere, one thing is junk."""
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    key = draw(st.sampled_from(list(tree) if isinstance(tree, dict) else range(len(tree))))
    deeper = isinstance(tree[key], (dict, list)) and len(tree[key]) > 0 and draw(st.booleans())
    copy[key] = draw(spoiled(tree[key])) if deeper else draw(junk)
    return copy
