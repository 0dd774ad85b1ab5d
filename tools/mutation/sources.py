"""What is mutated: each file with its functions, the arguments of theirs that may be exchanged, and its judges.

A kernel's mutant is first judged by the self-test, by the names under which it fails; then the program of tests/core/c
is asked, and its tests where both pass. Twins are judged by their tests alone, which compare with something else than
the kernels. Other modules are judged by their tests, as they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from fastopt.core import _core
from tools.mutation.modules import mutants_of_module
from tools.mutation.mutants import Mutant, mutants

ROOT = Path(__file__).resolve().parent.parent.parent


class Source(NamedTuple):
    """`groups` say what the self-test calls the functions whose names match, where it is not by their own."""

    file: str
    tests: list[str]
    only: str = ".*"
    groups: tuple[tuple[str, str], ...] = ()
    exchanged: tuple[list[str], ...] = ()
    formulas: bool = True


FAMILIES = "sgd", "adagrad", "rmsprop", "adam", "adadelta", "rprop", "asgd", "lion", "lamb", "adafactor", "prodigy"
ATTACK = "tests/base/test_memory.py::test_between_guard_pages[tests.hostile.{}-baseline]"
DIGEST = "tests/core/test_threads.py::test_one_digest_for_threads_and_chunks[100-3]"
STEP_TESTS = [
    DIGEST,
    "tests/core/test_bits.py",
    "tests/training/test_clipping.py",
    *(ATTACK.format(f"guarded-{name}") for name in ("kernels", "steps", "layouts")),
]
LOSS_TESTS = [
    "tests/core/test_loss_kernels.py",
    *(ATTACK.format(f"guarded_losses-{name}") for name in ("kernels", "classes")),
]
RUN = "passes.c", "walk.c", "factor.h", "trial.c", "caches.c", "reduce.c", "step.c"
RUN_TESTS = [
    DIGEST,
    "tests/optimizers/test_groups.py",
    "tests/training/test_clipping.py",
    "tests/around/test_sam.py",
    *(f"tests/core/test_{name}.py" for name in ("door", "bits")),
]
STEPS = ((".*", "steps"),)
VECTOR_MEMBERS = (["x", "g", "d", "trial_x", "trial_g"],)
OF_LOSSES = (
    ("sigmoid.*", "sigmoid_cross_entropy"),
    ("squared_error", "squared_error"),
    (".*", "softmax_cross_entropy"),
)
KERNELS = [
    *(Source(f"csrc/kernels/rules/{name}.h", STEP_TESTS) for name in FAMILIES),
    Source("csrc/kernels/stages.h", STEP_TESTS),
    Source("csrc/kernels/factors.h", STEP_TESTS),
    Source("csrc/kernels/scalars.c", STEP_TESTS, r"(?!macros).*"),
    Source("csrc/kernels/reductions.h", STEP_TESTS, groups=((".*", "norms"),)),
    Source("csrc/kernels/exponential.h", LOSS_TESTS, groups=((".*", "losses"),)),
    Source("csrc/kernels/losses.h", LOSS_TESTS, groups=OF_LOSSES),
    Source("csrc/kernels/losses.c", LOSS_TESTS, r"\w+_part|blocks_of|fo_\w+", ((".*", "losses"),)),
    *(Source(f"csrc/run/{name}", RUN_TESTS, groups=STEPS, formulas=False) for name in RUN),
    Source("csrc/kernels/instantiate.h", STEP_TESTS, formulas=False),
    Source(
        "csrc/kernels/vectors.c", ["tests/core/test_vectors.py"], groups=((".*", "vectors"),), exchanged=VECTOR_MEMBERS
    ),
]
VECTOR_TESTS = [
    "tests/core/test_vectors.py::test_the_direction_is_that_of_the_bfgs_matrix",
    "tests/core/test_vectors.py::test_a_pair_is_kept_where_its_curvature_is_safely_positive",
    "tests/core/test_vectors.py::test_steepness_sees_what_is_not_finite",
    "tests/minimization/test_lbfgs.py",
]
FORMULA_TESTS = [
    "tests/optimizers/test_formulas.py",
    "tests/optimizers/test_step.py",
    "tests/training/test_clipping.py",
    *(f"tests/around/test_{name}.py" for name in ("sam", "averaging", "accumulation", "nesterov")),
    *VECTOR_TESTS,
    "--deselect=tests/training/test_clipping.py::test_clipping_in_place_has_the_bits_of_its_twins_in_every_layout",
]
OF_STEPS = *FAMILIES, "stages", "reductions", "vectors", "scalars", "factor"
TWINS = [
    *(Source(f"fastopt/reference/{name}.py", FORMULA_TESTS) for name in OF_STEPS),
    Source("fastopt/reference/losses.py", [f"tests/losses/test_{name}.py" for name in ("formulas", "ulp", "losses")]),
    Source(
        "fastopt/engine/numpy_plan.py",
        VECTOR_TESTS,
        only=r"ReferenceVectors\.(?!__init__|count|forget|pairs|spare).*",
        exchanged=VECTOR_MEMBERS,
    ),
]
GROUPS = [
    *(f"tests/optimizers/test_{name}.py" for name in ("groups", "step", "stages", "foreign_names", "formulas")),
    *(f"tests/saving/test_{name}.py" for name in ("state_dict", "pickling")),
    "tests/core/test_door.py",
]
BOUNDS = ["tests/minimization/test_bounds.py"]
MODULES = [
    Source(
        "fastopt/engine/passes.py",
        [*(f"tests/around/test_{name}.py" for name in ("averaging", "sam", "nesterov")), "tests/core/test_threads.py"],
    ),
    *(Source(f"fastopt/engine/{name}.py", GROUPS) for name in ("program", "groups", "rule")),
    Source("fastopt/engine/hyperparameters.py", [*GROUPS, "tests/base/test_scalars.py"]),
    Source("fastopt/around/skips.py", [f"tests/around/test_{name}.py" for name in ("skips", "loss_scaler")]),
    *(
        Source(f"fastopt/schedules/{name}.py", [f"tests/schedules/test_{name}.py" for name in tests])
        for name, *tests in (
            ("cyclic", "schedules"),
            ("composed", "schedules"),
            ("elementary", "elementary", "schedules"),
            ("inline", "inline"),
        )
    ),
    *(Source(f"fastopt/minimization/{name}.py", BOUNDS) for name in ("box", "box_vectors", "differences")),
]
SOURCES = {source.file: source for source in (*KERNELS, *TWINS, *MODULES)}

Span = tuple[str, int, int, list[list[str]]]
"""A function's name, where its body is, and the names that are exchanged there: those of one type."""

HEADER = re.compile(
    r"^(?:(?:KERNEL|SCALAR)\((\w+)(?:\)|, \{$)|\w[^\n=;]*?\bFN\((\w+)\)\(([^()]*)\)\s*\{|"
    r"(?:static |double |void |int )[\w *]*?\b(\w+)\(([^()]*)\)\s*\{)",
    re.M,
)


def _of_one_type(typed: list[tuple[str, str]]) -> list[list[str]]:
    return [[name for kind, name in typed if kind == each] for each in dict(typed)]


def functions_of_c(text: str) -> Iterator[Span]:
    """And what lies between functions, where it defines something."""
    end, gap = 0, "macros"
    for header in [*HEADER.finditer(text), None]:
        start = header.start() if header else len(text)
        if "#define" in text[end:start]:
            yield gap, end, start, []
        if header:
            kernel, template, its, plain, own = header.groups()
            name = kernel or template or plain
            typed = [tuple(re.split(r"(?=\b\w+$)", x.strip())) for x in (its or own or "").split(",") if " " in x]
            named = (*_core.KERNELS.get(kernel, ())[1:], *_core.SCALARS.get(kernel, ())[:1])
            exchanged = [*map(list, named)] if kernel else _of_one_type(typed)
            end = re.compile(r".*\}$|(?s:.*?)^\}\)?", re.M).match(text, header.end()).end()
            yield name, header.end(), end, exchanged
            gap = f"macros after {name}"


def functions_of_python(text: str) -> Iterator[Span]:
    lines = [0, *accumulate(map(len, text.splitlines(keepends=True)))]
    body: list[tuple[str, ast.stmt]] = [("", node) for node in ast.parse(text).body]
    for before, node in body:
        start = node.lineno
        if isinstance(node, ast.ClassDef):
            body += [(f"{node.name}.", inner) for inner in node.body]
            continue
        if isinstance(node, ast.FunctionDef):
            start, name = node.body[0].lineno, before + node.name
            exchanged = _of_one_type([(ast.unparse(a.annotation), a.arg) for a in node.args.args if a.annotation])
        elif isinstance(node, ast.Assign) and (constant := re.match(r"\(?(_[A-Z]\w*)", ast.unparse(node.targets[0]))):
            name, exchanged = constant[1], []
        else:
            continue
        yield name, lines[start - 1], lines[node.end_lineno or 0], exchanged


def mutants_of(source: Source) -> list[Mutant]:
    text = (ROOT / source.file).read_text()
    if source in MODULES:
        return mutants_of_module(source.file, text)
    functions = functions_of_python(text) if source.file.endswith(".py") else functions_of_c(text)
    wanted = [function for function in functions if re.fullmatch(source.only, function[0])]
    spans = {name: (start, end) for name, start, end, _ in wanted}
    exchanged = {name: [*source.exchanged, *exchanged] for name, _, _, exchanged in wanted}
    return mutants(source.file, text, spans, exchanged, source.formulas)


def group_of(mutant: Mutant) -> str:
    groups = SOURCES[mutant.file].groups
    return next((group for pattern, group in groups if re.fullmatch(pattern, mutant.kernel)), mutant.kernel)
