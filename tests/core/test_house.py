"""House rules: the registry is complete everywhere, and the build keeps the promises that bits rest on."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt import reference
from fastopt.core import _core
from fastopt.engine.program import compiled
from fastopt.engine.stages import STAGES
from tests.cases import CASES
from tests.lockstep import loss_of

ROOT = Path(__file__).parent.parent.parent
EXTENSION = Path(_core.__file__)
RULES = [name for name, (kind, _, _) in _core.KERNELS.items() if kind == "rule"]
PASSES = [name for name, (kind, _, _) in _core.KERNELS.items() if kind == "pass"]
CLASSES = [getattr(fastopt, name) for name in fastopt.optimizers.__all__]


def kernels_of(case: Any) -> set[str]:
    """The kernels that a step of a case runs, of a matrix and of a vector."""
    opt = case.make([np.ones((2, 2)), np.ones(3)])
    opt.step([np.ones((2, 2)), np.ones(3)], **loss_of(opt))
    programs = []
    engine = opt._engine
    for cohort in engine.cohorts:
        stages = {name: stage(cohort.h) for name, stage in STAGES.items()}
        on = {name: numbers for name, numbers in stages.items() if numbers is not None}
        programs.append(compiled(cohort.form, 0, 0, on, {}))
    walks = [step for program in programs for step in program.passes if hasattr(step, "calls")]
    return {name for walk in walks for _, name, _ in walk.calls} - {"factors"}


def selected(cases: Any = CASES) -> dict[str, set[type]]:
    """rule -> the classes of the cases that run it."""
    found: dict[str, set[type]] = {}
    for case in cases:
        for name in kernels_of(case) & set(RULES):
            found.setdefault(name, set()).add(case.optimizer)
    return found


@pytest.mark.parametrize(
    "name", [*_core.KERNELS, *_core.SUMS, *_core.SCALARS, "sum_squares", "sum_abs", "max_abs", "dot", "axpby"]
)
def test_every_kernel_has_a_twin_of_the_same_signature(name: str) -> None:
    twin = list(inspect.signature(getattr(reference, name)).parameters)
    if name in _core.KERNELS:
        _, buffers, coefs = _core.KERNELS[name]
        assert twin == [*buffers, *coefs]
    if name in _core.SUMS:
        assert twin == [*_core.SUMS[name]]
    if name in _core.SCALARS:
        assert twin == [*_core.SCALARS[name][0]]
    assert name in reference.__all__


def test_every_rule_has_kernel_class_and_case() -> None:
    source = "".join(path.read_text() for path in (ROOT / "csrc/kernels/rules").glob("*.h"))
    assert sorted(re.findall(r"^KERNEL\((\w+)\)", source, re.M)) == sorted(RULES)
    assert selected().keys() == set(RULES)


def test_every_stage_has_kernel_and_case() -> None:
    stages = [name for name in _core.KERNELS if name not in RULES]
    source = (ROOT / "csrc/kernels/stages.h").read_text()
    assert sorted(re.findall(r"^KERNEL\((\w+)\)", source, re.M)) == sorted(stages)
    used = {"scale", *PASSES}
    for case in CASES:
        used |= kernels_of(case)
    assert used == set(_core.KERNELS)


def test_every_pass_is_run_by_a_module() -> None:
    modules = [path for path in (ROOT / "fastopt").rglob("*.py") if "reference" not in path.parts]
    source = "".join(path.read_text() for path in modules)
    assert [name for name in PASSES if f'"{name}"' not in source] == []


def test_every_class_has_a_case_and_is_exported() -> None:
    assert {case.optimizer for case in CASES} == set(CLASSES)
    assert set(fastopt.optimizers.__all__) < set(fastopt.__all__)


@pytest.mark.parametrize("name", _core.KERNELS)
def test_every_kernel_has_a_formula_card(name: str) -> None:
    cards = {path.name: path.read_text() for path in (ROOT / "docs/cards").glob("*.md")}
    found = [card for card, text in cards.items() if f"KERNEL({name})" in text]
    assert len(found) == 1
    _, _, coefs = _core.KERNELS[name]
    missing = [coef for coef in coefs if coef not in cards[found[0]]]
    assert not missing, f"the card does not explain {missing}"
    assert f"({found[0]})" in cards["README.md"]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_documents_its_keywords_and_source(cls: type) -> None:
    signature = inspect.signature(cls).parameters.values()
    own = [x.name for x in signature if x.kind is x.POSITIONAL_OR_KEYWORD and x.name != "params"]
    text = "".join(base.__doc__ or "" for base in cls.__mro__[:2])
    assert all(re.search(rf"^\s+{name} :", text, re.M) for name in own)
    assert re.search(r"\(.*\d{4}\)", text), "no source is cited"
    common = fastopt.Optimizer.__doc__ or ""
    for name in fastopt.Optimizer.options():
        assert re.search(rf"^    .*\b{name}\b.* : ", common, re.M), name


def test_the_reference_and_the_kernels_share_their_constants() -> None:
    assert (reference.CHUNK, reference.LANES) == (_core.CHUNK, _core.LANES)


def test_flags() -> None:
    flags = fastopt.info().flags.split()
    assert "-ffp-contract=off" in flags
    forbidden = re.compile(
        r"-Ofast|-ffast-math|-funsafe|-fassociative|-freciprocal|-ffinite|-march|-mfma|-mtune|-fopenmp"
    )
    assert not [flag for flag in flags if forbidden.match(flag)]
    built = (ROOT / "setup.py").read_text()
    assert not forbidden.search(built)


@pytest.mark.parametrize(
    "flag", ["-ffast-math", "-ffinite-math-only", "-fassociative-math -fno-signed-zeros", "-freciprocal-math"]
)
def test_a_build_with_fast_math_refuses_to_compile(flag: str, tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler here")
    source = tmp_path / "probe.c"
    source.write_text('#include "fastopt.h"\n')
    command = [compiler, "-std=c11", "-fno-trapping-math", "-I", str(ROOT / "csrc"), "-fsyntax-only", str(source)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    result = subprocess.run([*command, *flag.split()], capture_output=True, text=True)
    if "-fassociative" in flag and result.returncode == 0:
        pytest.skip("this compiler does not tell a source about -fassociative-math on its own")
    if "-freciprocal" in flag and result.returncode == 0:
        pytest.skip("this compiler does not tell a source about -freciprocal-math on its own")
    assert result.returncode != 0
    assert "exact bits" in result.stderr


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} (binutils) is not installed")
    return found


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_only_the_module_and_fo_symbols_are_exported() -> None:
    symbols = run(tool("nm"), "-D", "--defined-only", str(EXTENSION)).split("\n")
    names = [line.split()[-1] for line in symbols if line]
    assert [name for name in names if not name.startswith(("PyInit__core", "fo_"))] == []


def test_no_libm_call_and_no_openmp() -> None:
    wanted = run(tool("nm"), "-D", "--undefined-only", str(EXTENSION))
    names = {line.split()[-1].split("@")[0] for line in wanted.split("\n") if line}
    libm = {"sqrt", "fabs", "exp", "log", "pow", "sin", "cos", "tanh", "fmax", "fmin", "fma", "ldexp", "frexp"}
    assert not names & (libm | {name + "f" for name in libm})
    linked = run(tool("objdump"), "-p", str(EXTENSION))
    assert not re.search(r"NEEDED.*(libgomp|libomp|libiomp|libm\.)", linked)


def test_no_fused_multiply_add() -> None:
    code = run(tool("objdump"), "-d", "--no-show-raw-insn", str(EXTENSION))
    assert re.search(r"\b(v?mulps|fmul)\b", code), "the disassembly shows no arithmetic at all"
    assert not re.search(r"\bv?fn?m(add|sub)\w*\b|\bfml[as]\b", code)


def test_the_portable_code_uses_no_wide_registers() -> None:
    """AVX stays inside the functions of its own instruction set: any x86-64 CPU can run the rest."""
    if "avx2" not in _core.isas():
        pytest.skip("not an x86 CPU with AVX2")
    code = run(tool("objdump"), "-d", "--no-show-raw-insn", str(EXTENSION))
    wide = [
        body.split(">:")[0]
        for body in re.split(r"\n[0-9a-f]+ <", code)
        if re.search(r"%[yz]mm\d", body) and not re.search(r"^fo_\w+_(avx2|avx512)", body)
    ]
    assert wide == []


def test_exact_kernels_use_only_exact_operations() -> None:
    """+ - * / sqrt, comparison and selection: no other function is named in the formulas, and none that computes."""
    templates = ("stages.h", "reductions.h", "exponential.h", "losses.h")
    for path in [*(ROOT / "csrc/kernels/rules").glob("*.h"), *(ROOT / "csrc/kernels" / name for name in templates)]:
        source = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        calls = set(re.findall(r"\b([a-z_]\w*)\s*\(", source))
        calls -= {"for", "if", "sizeof", "defined", "fold", "name", "value", "__attribute__", "_Pragma"}
        assert calls <= {"sqrt", "fabs", "memcpy", "__builtin_prefetch"}, path.name


def test_the_source_stays_in_short_files() -> None:
    for path in [*ROOT.glob("csrc/**/*.[ch]"), *ROOT.glob("fastopt/**/*.py"), *ROOT.glob("fastopt/core/*.p[xy][dix]")]:
        assert len(path.read_text().splitlines()) <= 600, f"{path.name} is more than one idea"
