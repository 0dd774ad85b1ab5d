"""Every loss with its options, on small random inputs in double: shared by the tests of the losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastopt import losses
from fastopt.base.tree import Array

N, K = 7, 5


class Inputs(NamedTuple):
    prediction: Array
    args: tuple[Any, ...]
    options: dict[str, Any]


class Case(NamedTuple):
    id: str
    loss: Callable[..., Any]
    make: Callable[[np.random.Generator], Inputs]

    def inputs(self, dtype: Any = np.float64) -> Inputs:
        """Floats of this dtype; what is float32 is also exactly those numbers in double."""
        made = self.make(np.random.default_rng(3))
        return made._replace(
            prediction=rounded(made.prediction, dtype), args=tuple(rounded(x, dtype) for x in made.args)
        )


def rounded(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if isinstance(x, np.ndarray) and x.dtype == np.float64 else x


def regression(*args: Any, weighted: bool = False) -> Callable[[np.random.Generator], Inputs]:
    def make(rng: np.random.Generator) -> Inputs:
        p, t = rng.normal(size=(2, N, K)) * 2
        return Inputs(p, (t, *args), {"weight": rng.uniform(size=(N, K))} if weighted else {})

    return make


def gaussian(**options: Any) -> Callable[[np.random.Generator], Inputs]:
    return lambda rng: Inputs(*regression()(rng)[:1], (rng.normal(size=(N, K)), rng.uniform(0.5, 2, (N, K))), options)


def unit(logits: bool, *, weighted: bool = False, positive: bool = False) -> Callable[[np.random.Generator], Inputs]:
    def make(rng: np.random.Generator) -> Inputs:
        p = rng.normal(size=(N, K)) * 4 if logits else rng.uniform(0.02, 0.98, (N, K))
        options = {"weight": rng.uniform(size=(N, K))} if weighted else {}
        if positive:
            options["pos_weight"] = np.array([0.0, 1.0, 2.0, 0.5, 3.0])
        t = rng.uniform(size=(N, K))
        t[0] = [0, 1, 0, 1, 1]
        return Inputs(p, (t,), options)

    return make


def distribution(rng: np.random.Generator) -> Array:
    p = rng.dirichlet(np.ones(K), N)
    p[1] = np.eye(K)[2]
    return p


def dense(**options: Any) -> Callable[[np.random.Generator], Inputs]:
    return lambda rng: Inputs(rng.normal(size=(N, K)) * 3, (distribution(rng),), options)


def sparse(*args: Any, **options: Any) -> Callable[[np.random.Generator], Inputs]:
    return lambda rng: Inputs(rng.normal(size=(N, K)) * 3, (rng.integers(K, size=N), *args), options)


def yes_no(*args: Any) -> Callable[[np.random.Generator], Inputs]:
    return lambda rng: Inputs(rng.normal(size=(N, K)) * 3, (rng.integers(2, size=(N, K)), *args), {})


def masks(**options: Any) -> Callable[[np.random.Generator], Inputs]:
    return lambda rng: Inputs(rng.uniform(size=(2, N, K)), (rng.uniform(size=(2, N, K)) > 0.6,), options)


def sequences(**options: Any) -> Callable[[np.random.Generator], Inputs]:
    lengths = np.array([4, 1, 3])
    mask = np.arange(4) < lengths[:, None]

    def make(rng: np.random.Generator) -> Inputs:
        classes = np.where(mask, rng.integers(K, size=(3, 4)), -100)
        return Inputs(rng.normal(size=(3, 4, K)) * 3, (classes, mask), options)

    return make


BY_CLASS = np.array([0.5, 1.0, 0.0, 2.0, 3.0])
BY_ROW = np.array([1.0, 0.0, 2.0, 0.5, 1.5, 1.0, 0.25])
PIXELS = np.random.default_rng(5).uniform(size=(2, N, K))

CASES = [
    Case("mse", losses.mse, regression()),
    Case("mse-weight", losses.mse, regression(weighted=True)),
    Case("mae", losses.mae, regression()),
    Case("mae-weight", losses.mae, regression(weighted=True)),
    Case("lp-1", losses.lp, regression(1)),
    Case("lp-1.5", losses.lp, regression(1.5)),
    Case("lp-3-weight", losses.lp, regression(3.0, weighted=True)),
    Case("huber", losses.huber, regression()),
    Case("huber-delta-weight", losses.huber, regression(0.7, weighted=True)),
    Case("gaussian_nll", losses.gaussian_nll, gaussian()),
    Case("gaussian_nll-weight", losses.gaussian_nll, gaussian(weight=PIXELS[0])),
    Case("binary_cross_entropy", losses.binary_cross_entropy, unit(False)),
    Case("binary_cross_entropy-weight", losses.binary_cross_entropy, unit(False, weighted=True)),
    Case("with_logits", losses.binary_cross_entropy_with_logits, unit(True)),
    Case("with_logits-weight", losses.binary_cross_entropy_with_logits, unit(True, weighted=True)),
    Case("with_logits-pos_weight", losses.binary_cross_entropy_with_logits, unit(True, positive=True)),
    Case("with_logits-both", losses.binary_cross_entropy_with_logits, unit(True, weighted=True, positive=True)),
    Case("cross_entropy", losses.cross_entropy, dense()),
    Case("cross_entropy-weight", losses.cross_entropy, dense(weight=BY_CLASS)),
    Case("cross_entropy-smoothing", losses.cross_entropy, dense(label_smoothing=0.1)),
    Case("cross_entropy-both", losses.cross_entropy, dense(weight=BY_CLASS, label_smoothing=0.3)),
    Case("cross_entropy-rows", losses.cross_entropy, dense(weight=BY_CLASS, sample_weight=BY_ROW)),
    Case("sparse", losses.sparse_cross_entropy, sparse()),
    Case("sparse-weight", losses.sparse_cross_entropy, sparse(weight=BY_CLASS)),
    Case("sparse-smoothing", losses.sparse_cross_entropy, sparse(label_smoothing=0.1)),
    Case("sparse-both", losses.sparse_cross_entropy, sparse(weight=BY_CLASS, label_smoothing=0.3)),
    Case("sparse-ignore", losses.sparse_cross_entropy, sparse(ignore_index=2)),
    Case("sparse-all", losses.sparse_cross_entropy, sparse(weight=BY_CLASS, label_smoothing=0.3, ignore_index=1)),
    Case("sparse-rows", losses.sparse_cross_entropy, sparse(sample_weight=BY_ROW)),
    Case("kl", losses.kl_divergence, dense()),
    Case("kl-rows", losses.kl_divergence, dense(sample_weight=BY_ROW)),
    Case("focal", losses.focal, sparse()),
    Case("focal-0", losses.focal, sparse(0)),
    Case("focal-0.5-alpha", losses.focal, sparse(0.5, BY_CLASS)),
    Case("focal-rows", losses.focal, sparse(sample_weight=BY_ROW)),
    Case("focal-yes_no", losses.focal, yes_no()),
    Case("focal-yes_no-alpha", losses.focal, yes_no(1.5, 0.25)),
    Case("dice", losses.dice, masks()),
    Case("dice-each", losses.dice, masks(axis=(1, 2), weight=PIXELS, smooth=0.5)),
    Case("dice-classes", losses.dice, masks(axis=1, class_weight=BY_CLASS)),
    Case("iou", losses.iou, masks()),
    Case("iou-each", losses.iou, masks(axis=-1, weight=PIXELS)),
    Case("tversky", losses.tversky, masks(alpha=0.3, beta=0.7)),
    Case("tversky-each", losses.tversky, masks(alpha=1.5, beta=0, axis=1, weight=PIXELS, class_weight=BY_CLASS)),
    Case("generalized_dice", losses.generalized_dice, masks()),
    Case("generalized_dice-each", losses.generalized_dice, masks(axis=1, weight=PIXELS, smooth=0)),
    Case("generalized_dice-classes", losses.generalized_dice, masks(axis=1, class_weight=BY_CLASS)),
    Case("sequence", losses.sequence_cross_entropy, sequences()),
    Case("sequence-all", losses.sequence_cross_entropy, sequences(weight=BY_CLASS, label_smoothing=0.2)),
]
