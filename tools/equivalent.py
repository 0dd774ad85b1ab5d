"""Mutants that no test can catch, because every step computes the same: each with the proof."""

from __future__ import annotations

BORDER = "at the border both branches are the same number"
ZERO = "they differ where the difference is -0, and -0 + eps_in is +0 either way"
FLUSH = (
    "comparisons flush as arithmetic does, and what the select passes on goes into arithmetic, which flushes; "
    "the factor is for compilers that compare and select otherwise"
)


def _twin(kernel: str, before: str, after: str) -> str:
    return f"fastopt/reference.py {kernel}: {before}  =>  {after}"


VARIANCE = "variance = np.where(difference {} 0, 0, difference).astype(p.dtype)"

EQUIVALENT: dict[str, str] = {
    _twin("clamp", "x = one * g", "x = g"): FLUSH,
    _twin("l1", "x = one * p", "x = p"): FLUSH,
    _twin("prox_l1", "x = one * p", "x = p"): FLUSH,
    _twin("clamp", "lower = np.where(x < -bound, -bound, x)", "lower = np.where(x <= -bound, -bound, x)"): BORDER,
    _twin(
        "clamp",
        "g[...] = np.where(lower > bound, bound, lower)",
        "g[...] = np.where(lower >= bound, bound, lower)",
    ): BORDER,
    _twin(
        "prox_l1",
        "lower = np.where(x < -threshold, -threshold, x)",
        "lower = np.where(x <= -threshold, -threshold, x)",
    ): BORDER,
    _twin(
        "prox_l1",
        "p[...] = x - np.where(lower > threshold, threshold, lower)",
        "p[...] = x - np.where(lower >= threshold, threshold, lower)",
    ): BORDER,
    _twin("nesterov", "b[...] = mu * b + gain * g", "b[...] = mu * b + g"): (
        "SGD refuses dampening with nesterov, so gain is 1 in every step"
    ),
    _twin("rmsprop_centered", VARIANCE.format("<"), VARIANCE.format("<=")): ZERO,
    _twin("rmsprop_centered_momentum", VARIANCE.format("<"), VARIANCE.format("<=")): ZERO,
    _twin(
        "amsgrad", "larger = np.where(v > before, v, before)", "larger = np.where(v >= before, v, before)"
    ): "equal numbers are the same but for -0, and no sum of squares is",
}
