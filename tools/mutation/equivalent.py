"""Mutants that no test can catch, because every step computes the same: each with the proof."""

from __future__ import annotations

RULES, STAGES, NORMS, TWINS = (
    "csrc/kernels/rules/",
    "csrc/kernels/stages.h",
    "csrc/kernels/reductions.h",
    "fastopt/reference/",
)
LOSSES, CALLS, VECTORS = "csrc/kernels/losses.h", "csrc/kernels/losses.c", "csrc/kernels/vectors.c"
TWIN_LOSSES, TWIN_VECTORS = "fastopt/reference/losses.py", "fastopt/engine/numpy_plan.py"

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
COMMUTES = "a b is b a to the last bit"
BEYOND = "it writes past the losses of 16 rows, of which none is read; tools/sanitize.sh address sees that"
UNREAD = "where there are probabilities no class is read"
MORE = "a worker computes elements of others too: more work, of the same bits"
IGNORED = "only classes are out of range: what the other losses return is read by nobody"
NOTHING = "one more vector where none is left over, of -infinities, whose exponentials are 0: it adds nothing to a sum"
EMPTY = "one more block, of no elements or rows, where their number is a multiple of a block's"
RECIPROCAL = (
    "no reciprocal is the largest number, 2^1024 (1 - 2^-53): that of 2^-1024 overflows, and that of the next number "
    "is 2^1024 (1 - 2^-50)"
)
AGAIN = (
    "it sums once more where that is not needed: in units of a power of two the sum has the same bits, as what is lost "
    "below 2^-1022 of them is far below what it is added to"
)
ZEROS = "the maximum may be -0 for +0, which is to be seen only in differences that are zeros, of which exp is 1"
NO_1 = "the sum of squares with 1 among them is neither infinite nor tiny; and what follows makes 0 of zeros too"
UNITS = "a unit twice or four times as large is a power of two as well: the sum has the same bits"
AT_0 = "at 0 the size is 0 and e is 1: nothing costs anything on either side, and above and below are both 1"
NEEDED = "if not math.isfinite(total) or "
FREXP = "unit = math.ldexp(1.0, -max(-1022, min(1022, "
STARTS = "const ptrdiff_t start = begin * FO_CHUNK, "
STOPS = "stop = end * FO_CHUNK < l->rows ? end * FO_CHUNK : l->rows;"
CALLED = "end - begin, l->columns, at(l->prediction, start, l->dtype), "
WHOLE = "const ptrdiff_t whole = n - n % FO_LANES, "
NO_RULE = "a program of one walk has no registers: it asks nothing of its rule"
NO_SKIPS = "where none was skipped yet the count of all is 0, and so is what is left of it"
PASSED = ", 0, (), (), (), (), (), [CompiledWalk([(name, name, x) for name, x in calls])])"


def border(line: str) -> tuple[str, str]:
    """A line whose < or > before the ~ lets the border in."""
    return line.replace("~", ""), line.replace("~", "=")


PROVED = [
    (FLUSH, STAGES, "clamp", "const real x = one * g[i];", "const real x = g[i];"),
    (FLUSH, STAGES, "l1", "const real x = one * p[i];", "const real x = p[i];"),
    (FLUSH, STAGES, "bounds", "const real x = one * p[i];", "const real x = p[i];"),
    (FLUSH, STAGES, "prox_l1", "const real x = one * p[i];", "const real x = p[i];"),
    (FLUSH, RULES, "amsgrad", "const real before = one * v_max[i];", "const real before = v_max[i];"),
    (FLUSH, TWINS, "clamp", "x = one * g", "x = g"),
    (FLUSH, TWINS, "sign", "x = one * g", "x = g"),
    (FLUSH, TWINS, "l1", "x = one * p", "x = p"),
    (FLUSH, TWINS, "bounds", "x = one * p", "x = p"),
    (FLUSH, TWINS, "prox_l1", "x = one * p", "x = p"),
    (GAIN, TWINS, "nesterov", "b[...] = mu * b + gain * g", "b[...] = mu * b + g"),
    (UNIT, NORMS, "max_abs", "return unit * (double)largest;", "return (double)largest;"),
    (TAIL, NORMS, "macros", *border("for (; i + FO_LANES <~ n; i += FO_LANES)")[::-1]),
    (UNUSED, NORMS, "macros", *border("for (int j = 0; j <~ half; j++)")),
    (UNUSED, NORMS, "max_abs", *border("for (int j = 0; j <~ half; j++)")),
    (UNUSED, LOSSES, "macros", *border("for (int j = 0; j <~ half; j++)")),
    (BORDER, NORMS, "max_abs", *border("lane[j] = x >~ lane[j] ? x : lane[j];")),
    (BORDER, NORMS, "max_abs", "lane[j] = x > lane[j] ? x : lane[j];", "lane[j] = x >= lane[j] ? x : lane[j]; (2)"),
    (BORDER, NORMS, "max_abs", *border("lane[j] = lane[j + half] >~ lane[j] ? lane[j + half] : lane[j];")),
    (COMMUTES, NORMS, "dot", "first <-> second"),
    *(
        (AGAIN, TWINS, "norm", f"{NEEDED}(kind is sum_squares and total < 2.0**-900):", NEEDED + other)
        for other in (
            "(kind is sum_squares and total < 2.0**900):",
            "(kind is sum_squares and total < 2.0**-0):",
            "(kind is sum_squares and total < 2.0):",
            "(kind is sum_squares and total <= 2.0**-900):",
            "(kind is sum_squares or total < 2.0**-900):",
            "(total < 2.0**-900):",
            "(kind is sum_squares):",
        )
    ),
    *(
        (UNITS, TWINS, "norm", FREXP + "math.frexp(largest)[1] - 1)))", FREXP + f"math.frexp(largest)[1]{other})))")
        for other in (" - 0", " + 1", "")
    ),
    (NO_1, TWINS, "norm", "if largest == 0:", "if largest == 1:"),
    (BORDER, TWINS, "_reduce", *border("if part >~ total or part != part:")),
    (SUM, TWINS, "amsgrad", *border("larger = np.where(v >~ before, v, before)")),
    (BORDER, STAGES, "clamp", *border("const real lower = x <~ -bound ? -bound : x;")),
    (BORDER, STAGES, "clamp", *border("g[i] = lower >~ bound ? bound : lower;")),
    (BORDER, STAGES, "bounds", *border("const real higher = x <~ least ? least : x;")),
    (BORDER, STAGES, "bounds", *border("p[i] = higher >~ most ? most : higher;")),
    (BORDER, STAGES, "prox_l1", *border("const real lower = x <~ -threshold ? -threshold : x;")),
    (BORDER, STAGES, "prox_l1", *border("p[i] = x - (lower >~ threshold ? threshold : lower);")),
    (BORDER, TWINS, "clamp", *border("lower = np.where(x <~ -bound, -bound, x)")),
    (BORDER, TWINS, "clamp", *border("g[...] = np.where(lower >~ bound, bound, lower)")),
    (BORDER, TWINS, "bounds", *border("higher = np.where(x <~ least, least, x)")),
    (BORDER, TWINS, "bounds", *border("p[...] = np.where(higher >~ most, most, higher)")),
    (BORDER, TWINS, "prox_l1", *border("lower = np.where(x <~ -threshold, -threshold, x)")),
    (BORDER, TWINS, "prox_l1", *border("p[...] = x - np.where(lower >~ threshold, threshold, lower)")),
    *(
        (proof, file, kernel, *border(line))
        for kernel in ("rmsprop_centered", "rmsprop_centered_momentum")
        for proof, file, line in (
            (ZERO, RULES, "const real variance = difference <~ 0 ? 0 : difference;"),
            (ZERO, TWINS, "variance = np.where(difference <~ 0, 0, difference).astype(p.dtype)"),
        )
    ),
    (ZEROS, LOSSES, "larger", *border("max[j] = x[i + j] >~ max[j] ? x[i + j] : max[j];")),
    (BORDER, LOSSES, "softmax_row", *border("lane[j] = lane[j + half] >~ lane[j] ? lane[j + half] : lane[j];")),
    (EMPTY, LOSSES, "softmax_row", *border("for (ptrdiff_t i = 0; i <~ n; i += FO_CHUNK) {")),
    (
        BORDER,
        LOSSES,
        "softmax_row",
        *border("const ptrdiff_t count = whole - i <~ FO_CHUNK ? whole - i : FO_CHUNK;"),
    ),
    (EMPTY, LOSSES, "softmax_cross_entropy", *border("for (ptrdiff_t row = 0; row <~ rows; row += FO_LANES) {")),
    (BEYOND, LOSSES, "softmax_cross_entropy", *border("for (int r = 0; r <~ FO_LANES; r++)")),
    (
        BORDER,
        LOSSES,
        "softmax_cross_entropy",
        *border("const int count = rows - row <~ FO_LANES ? (int)(rows - row) : FO_LANES;"),
    ),
    *((IGNORED, CALLS, part, "return 1;", "return 0;") for part in ("sigmoid_part", "squares_part")),
    *((BORDER, CALLS, part, *border(STARTS + STOPS.replace("<", "<~"))) for part in ("sigmoid_part", "squares_part")),
    *((MORE, CALLS, part, STARTS + STOPS, STARTS + "stop = (l->rows);") for part in ("sigmoid_part", "squares_part")),
    *(
        (MORE, CALLS, "sigmoid_part", STARTS + STOPS, f"const ptrdiff_t start = {other}, {STOPS}")
        for other in ("begin / FO_CHUNK", "begin")
    ),
    (
        UNREAD,
        CALLS,
        "softmax_part",
        CALLED + "l->classes ? l->classes + begin : NULL,",
        CALLED + "(l->classes + begin),",
    ),
    *(
        (NOTHING, LOSSES, "softmax_row", WHOLE + "end = n > whole ? FO_LANES : 0;", WHOLE + other)
        for other in ("end = n >= whole ? FO_LANES : 0;", "end = n > whole ? FO_LANES : 1;", "end = (FO_LANES);")
    ),
    (EMPTY, LOSSES, "sigmoid_cross_entropy", *border("for (ptrdiff_t start = 0; start <~ n; start += FO_CHUNK)")),
    (
        BORDER,
        LOSSES,
        "sigmoid_cross_entropy",
        *border("FN(sigmoid_part)(n - start <~ FO_CHUNK ? n - start : FO_CHUNK, x + start, z + start, (real)scale,"),
    ),
    *(
        (AT_0, LOSSES, "sigmoid_part", *border(line)[::-1])
        for line in (
            "const real above = x[i] >~ 0 ? 1 : e, below = x[i] >= 0 ? e : 1;",
            "const real above = x[i] >= 0 ? 1 : e, below = x[i] >~ 0 ? e : 1;",
        )
    ),
    (AT_0, LOSSES, "sigmoid_part", *border("const real wrong = x[i] >~ 0 ? opposite : z[i];")[::-1]),
    (
        BORDER,
        LOSSES,
        "squared_error",
        *border("const ptrdiff_t count = n - start <~ FO_CHUNK ? n - start : FO_CHUNK;"),
    ),
    (EMPTY, VECTORS, "macros", *border("for (ptrdiff_t start_ = 0; start_ <~ (n); start_ += FO_CHUNK) {")),
    (
        BORDER,
        VECTORS,
        "macros",
        *border("const ptrdiff_t left_ = (n) - start_, count = left_ <~ FO_CHUNK ? left_ : FO_CHUNK;"),
    ),
    (COMMUTES, VECTORS, "dot", "a <-> b"),
    (COMMUTES, VECTORS, "fo_dot", "a <-> b"),
    (COMMUTES, TWINS, "dot", "a <-> b"),
    (COMMUTES, TWIN_VECTORS, "ReferenceVectors._dot", "a <-> b"),
    (COMMUTES, TWIN_VECTORS, "ReferenceVectors.slope", "g <-> d"),
    (COMMUTES, TWIN_VECTORS, "ReferenceVectors.trial_slope", "d <-> trial_g"),
    *(
        (AT_0, TWIN_LOSSES, "sigmoid_cross_entropy", *border(line)[::-1])
        for line in (
            "wrong = np.where(logits >~ 0, opposite, targets)",
            "above = np.where(logits >~ 0, real(1), e)",
            "below = np.where(logits >~ 0, e, real(1))",
        )
    ),
    (
        RECIPROCAL,
        VECTORS,
        "fo_remember",
        *border("const int keep = sy > epsilon[v->dtype] * (sqrt(ss) * sqrt(yy)) && 1 / sy <~ DBL_MAX;")[::-1],
    ),
    (BORDER, "csrc/run/caches.c", "size_of", *border("return size >~ 0 ? size : 0;")),
    (NO_RULE, "fastopt/engine/program.py", "passed", "return Program(0" + PASSED, "return Program(1" + PASSED),
    (
        NO_SKIPS,
        "fastopt/around/skips.py",
        "SkippingEngine.__init__",
        "self.skipping_since = 0, 0",
        "self.skipping_since = 1, 0",
    ),
]
PLACES = {
    "amsgrad": "adam",
    "nesterov": "sgd",
    "rmsprop_centered": "rmsprop",
    "rmsprop_centered_momentum": "rmsprop",
    **dict.fromkeys(("bounds", "clamp", "l1", "prox_l1", "sign"), "stages"),
    **dict.fromkeys(("norm", "_reduce"), "reductions"),
    "dot": "vectors",
}
"""The file of a function in the folders of rules and of twins."""


def file_of(place: str, function: str) -> str:
    ends = {RULES: ".h", TWINS: ".py"}
    return f"{place}{PLACES[function]}{ends[place]}" if place in ends else place


EQUIVALENT = {
    f"{file_of(file, kernel)} {kernel}: {'  =>  '.join(change)}": proof for proof, file, kernel, *change in PROVED
}
