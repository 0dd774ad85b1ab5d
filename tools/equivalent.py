"""Mutants that no test can catch, because every step computes the same: each with the proof."""

from __future__ import annotations

RULES, STAGES, NORMS, TWINS = "csrc/rules.h", "csrc/stages.h", "csrc/reductions.h", "fastopt/reference.py"

BORDER = "at the border both branches are the same number"
ZERO = "they differ where the difference is -0, and -0 + eps_in is +0 either way"
FLUSH = (
    "on x86 comparisons, minima and maxima flush as arithmetic does, and what a select passes on goes into arithmetic, "
    "which flushes; the factor is for compilers and processors that compare and select otherwise"
)
TAIL = "the loop after it puts the last 16 elements into the same lanes in the same order"
UNUSED = (
    "it adds to lane[half], which is not read again: the same result. What it reads past the lanes, where half is 8, "
    "tools/sanitize.sh address sees"
)
SUM = "equal numbers are the same but for -0, which only a hand can put into v_max"
UNIT = "a maximum overflows only where an element is infinite, so there is no second pass and unit is 1"
GAIN = "SGD refuses dampening with nesterov, so gain is 1 in every step"

PROVED = [
    (FLUSH, STAGES, "clamp", "const real x = one * g[i];", "const real x = g[i];"),
    (FLUSH, STAGES, "l1", "const real x = one * p[i];", "const real x = p[i];"),
    (FLUSH, STAGES, "prox_l1", "const real x = one * p[i];", "const real x = p[i];"),
    (FLUSH, RULES, "amsgrad", "const real before = one * v_max[i];", "const real before = v_max[i];"),
    (FLUSH, TWINS, "clamp", "x = one * g", "x = g"),
    (FLUSH, TWINS, "sign", "x = one * g", "x = g"),
    (FLUSH, TWINS, "l1", "x = one * p", "x = p"),
    (FLUSH, TWINS, "prox_l1", "x = one * p", "x = p"),
    (GAIN, TWINS, "nesterov", "b[...] = mu * b + gain * g", "b[...] = mu * b + g"),
    (UNIT, NORMS, "norms", "return unit * (double)largest;", "return (double)largest;"),
    (TAIL, NORMS, "norms", *(f"for (; i + FO_LANES {less} n; i += FO_LANES)" for less in ("<=", "<"))),
    (UNUSED, NORMS, "norms", *(f"for (int j = 0; j {less} half; j++)" for less in ("<", "<="))),
    *(
        (BORDER, NORMS, "norms", *(f"lane[j] = {x} {more} lane[j] ? {x} : lane[j];" for more in (">", ">=")))
        for x in ("x", "lane[j + half]")
    ),
    (SUM, TWINS, "amsgrad", *(f"larger = np.where(v {more} before, v, before)" for more in (">", ">="))),
    *(
        (BORDER, STAGES, kernel, *(f"const real lower = x {less} -{limit} ? -{limit} : x;" for less in ("<", "<=")))
        for kernel, limit in (("clamp", "bound"), ("prox_l1", "threshold"))
    ),
    *(
        (BORDER, TWINS, kernel, *(f"lower = np.where(x {less} -{limit}, -{limit}, x)" for less in ("<", "<=")))
        for kernel, limit in (("clamp", "bound"), ("prox_l1", "threshold"))
    ),
    (BORDER, STAGES, "clamp", *(f"g[i] = lower {more} bound ? bound : lower;" for more in (">", ">="))),
    (BORDER, TWINS, "clamp", *(f"g[...] = np.where(lower {more} bound, bound, lower)" for more in (">", ">="))),
    (BORDER, STAGES, "prox_l1", *(f"p[i] = x - (lower {more} threshold ? threshold : lower);" for more in (">", ">="))),
    (
        BORDER,
        TWINS,
        "prox_l1",
        *(f"p[...] = x - np.where(lower {more} threshold, threshold, lower)" for more in (">", ">=")),
    ),
    *(
        (ZERO, RULES, kernel, *(f"const real variance = difference {less} 0 ? 0 : difference;" for less in ("<", "<=")))
        for kernel in ("rmsprop_centered", "rmsprop_centered_momentum")
    ),
    *(
        (
            ZERO,
            TWINS,
            kernel,
            *(f"variance = np.where(difference {less} 0, 0, difference).astype(p.dtype)" for less in ("<", "<=")),
        )
        for kernel in ("rmsprop_centered", "rmsprop_centered_momentum")
    ),
]
EQUIVALENT = {f"{file} {kernel}: {before}  =>  {after}": proof for proof, file, kernel, before, after in PROVED}
