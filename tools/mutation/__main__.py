"""Mutation testing of the formulas: a wrong sign, a dropped term or exchanged coefficients must not pass the tests.

    python -m tools.mutation kernels     those in csrc: tests that compare kernels with their twins
    python -m tools.mutation twins       those in NumPy, in place of all kernels: tests that know formulas
    python -m tools.mutation modules     other Python: each in a process of its own, tests of what it does
    python -m tools.mutation all --list

The files and their tests are in sources.py. Builds kernel mutants in a copy of the tree in a temporary folder,
for one instruction set. Prints the survivors, and exits with 1 where there are others than those proved equivalent in
equivalent.py.
With --results FILE it notes every verdict there and goes on where it stopped; --seconds N stops after so long;
--sample N takes N of each file, the same ones at every call, as --seed says.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastopt import Optimizer, reference
from fastopt.core import _core
from fastopt.engine import numpy_plan as numpy_backend
from fastopt.reference import losses as reference_losses
from tools.mutation.equivalent import EQUIVALENT
from tools.mutation.mutants import Mutant, mutated
from tools.mutation.sources import KERNELS, MODULES, ROOT, SOURCES, TWINS, group_of, mutants_of

SELFTEST = "import fastopt; print(*(failure.split(':')[0] for failure in fastopt.selftest().failures))"
QUIETLY = ["-q", "-x", "-p", "no:cacheprovider"]
SECONDS, PATIENCE = 120, 10
"""Of the processor's for tests, and how much longer a busy machine may take for them."""


class Tree:
    """A copy of the tree, with commands in it."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.tree / name)
        self.sound: set[tuple[str, ...]] = set()

    def run(self, *command: str, seconds: int = SECONDS) -> subprocess.CompletedProcess[bytes]:
        """With all that it started ended, where it takes too long."""
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "FASTOPT_ISA": ""}
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        started = subprocess.Popen(command, cwd=self.tree, env=environment, start_new_session=True, **output)
        resource.prlimit(started.pid, resource.RLIMIT_CPU, (seconds, seconds))
        try:
            printed, _ = started.communicate(timeout=PATIENCE * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.communicate()
            raise
        return subprocess.CompletedProcess(command, started.returncode, printed)

    def finishes(self, *command: str, seconds: int = SECONDS) -> str | None:
        """What a command prints; None where it fails or hangs."""
        try:
            done = self.run(sys.executable, *command, seconds=seconds)
        except subprocess.TimeoutExpired:
            return None
        return done.stdout.decode() if done.returncode == 0 else None

    def pass_with(self, mutant: Mutant, text: str, build: Callable[[], object] = lambda: None) -> bool:
        """Whether the tests pass, which without it, with the text of before, must."""
        tests = tuple(SOURCES[mutant.file].tests)
        passed = bool(self.finishes("-m", "pytest", *QUIETLY, *tests))
        (self.tree / mutant.file).write_text(text)
        if not passed and tests not in self.sound:
            build()
            assert self.finishes("-m", "pytest", *QUIETLY, *tests), f"{tests} fail without a mutant"
        self.sound.add(tests)
        return passed


class Kernels(Tree):
    """With the extension module built for the portable instruction set alone."""

    def __init__(self, folder: Path, _: set[str]) -> None:
        super().__init__(folder)
        kernels = self.tree / "csrc/kernels/kernels.c"
        kernels.write_text(kernels.read_text().replace("defined(__x86_64__)", "0"))
        setup = self.tree / "setup.py"
        setup.write_text(setup.read_text().replace("-O3", "-O1"))
        self.run(sys.executable, "setup.py", "-q", "build_ext", "--inplace").check_returncode()
        self.module = next(self.tree.glob("fastopt/core/_core*.so"))
        self.objects = {path.stem: str(path) for path in self.tree.glob("build/**/*.o")}
        self.units = {"kernels"}
        assert self.finishes("-c", SELFTEST) == "\n", "the self-test fails without a mutant"
        self.program = self.run_program()
        assert self.program, "the program of tests/core/c fails without a mutant"

    def _units(self, file: Path) -> set[str]:
        if file.suffix == ".c":
            return {file.stem}
        return {"kernels"} if file.parent.name == "kernels" else {path.stem for path in file.parent.glob("*.c")}

    def _build(self, changed: set[str]) -> bool:
        """Only these and what had the last mutant; a lower optimization, for its time: the bits are the same."""
        compiler = os.environ.get("CC", "cc")
        flags = ["-std=c11", "-O1", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-w"]
        units, self.units = changed | self.units, changed
        sources = {path.stem: str(path) for path in self.tree.glob("csrc/*/*.c")}
        done = [self.run(compiler, *flags, "-Icsrc", "-c", sources[x], "-o", self.objects[x]) for x in units]
        done.append(self.run(compiler, "-shared", "-pthread", *self.objects.values(), "-o", str(self.module)))
        return not any(command.returncode for command in done)

    def run_program(self) -> list[bytes]:
        """The hashes of the program of tests/core/c, with little load on the pool; none where it fails or hangs."""
        objects = [path for path in self.objects.values() if "csrc" in path]
        tests = map(str, self.tree.glob("tests/core/c/*.c"))
        flags = ["-std=c11", "-O1", "-ffp-contract=off", "-w", "-Icsrc", "-pthread"]
        self.run(os.environ.get("CC", "cc"), *flags, *tests, *objects, "-lm", "-o", "check")
        try:
            done = self.run("./check", "20", "1", seconds=SECONDS // 10)
        except subprocess.TimeoutExpired:
            return []
        return [] if done.returncode else [line for line in done.stdout.splitlines() if line.startswith(b"hash ")]

    def judge(self, batch: list[Mutant]) -> Iterator[tuple[Mutant, str]]:
        """Mutants of different kernels of one file at once, alone only where the self-test passes: caught, survived or
        rejected by the compiler."""
        if not batch:
            return
        path = self.tree / batch[0].file
        text = path.read_text()
        path.write_text(mutated(text, batch))
        built = self._build(self._units(path))
        failures = self.finishes("-c", SELFTEST, seconds=SECONDS // 10) if built else None
        passed = len(batch) == 1 and failures == "\n" and self.run_program() == self.program
        passed = passed and self.pass_with(batch[0], text, lambda: self._build(self._units(path)))
        path.write_text(text)
        if len(batch) == 1:
            yield batch[0], "survived" if passed else "caught" if built else "rejected"
        elif failures is None:
            for half in (batch[::2], batch[1::2]):
                yield from self.judge(half)
        else:
            failing = set(re.sub("sum_squares|sum_abs|max_abs|dot", "norms", failures).split())
            for mutant in batch:
                if group_of(mutant) in failing:
                    yield mutant, "caught"
                else:
                    yield from self.judge([mutant])

    def batches(self, todo: list[Mutant]) -> Iterator[list[Mutant]]:
        while todo:
            of_one_file = [mutant for mutant in todo if mutant.file == todo[0].file]
            batch = list({group_of(mutant): mutant for mutant in reversed(of_one_file)}.values())
            yield batch
            todo = [mutant for mutant in todo if mutant not in batch]


def _as_kernel(name: str) -> Any:
    """The twin of a loss's kernel, whichever it is at the call, in the way of being called that the kernel has."""

    def call(*arguments: Any, flush: bool = True) -> Any:
        with _core.subnormals(flush), np.errstate(all="ignore"):
            return getattr(reference_losses, name)(*arguments)

    return call


class Modules(Tree):
    """With the extension module as it is."""

    def __init__(self, folder: Path, _: set[str]) -> None:
        super().__init__(folder)
        built = next(ROOT.glob("fastopt/core/_core*.so"))
        shutil.copy(built, self.tree / built.relative_to(ROOT))

    def judge(self, batch: list[Mutant]) -> Iterator[tuple[Mutant, str]]:
        for mutant in batch:
            path = self.tree / mutant.file
            text = path.read_text()
            path.write_text(mutated(text, [mutant]))
            yield mutant, "survived" if self.pass_with(mutant, text) else "caught"

    def batches(self, todo: list[Mutant]) -> Iterator[list[Mutant]]:
        for mutant in todo:
            yield [mutant]


class Twins:
    """The tests in a child of this process, with another twin and no kernels."""

    def __init__(self, folder: Path, files: set[str]) -> None:
        Optimizer.options()["backend"].default = "numpy"
        _core.Vectors = numpy_backend.ReferenceVectors
        for name in ("softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"):
            setattr(_core, name, _as_kernel(name))
        self.sound: set[tuple[str, ...]] = set()
        # Here, so that no child has to import them.
        for tests in {tuple(SOURCES[file].tests[:1]) for file in files}:
            assert pytest.main([*QUIETLY, *tests]) == 0, f"{tests} fail without a mutant"

    def _pass(self, tests: list[str], mutant: Mutant | None) -> bool:
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            signal.alarm(PATIENCE * SECONDS)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            if mutant:
                _replace(mutant)
            os._exit(pytest.main([*QUIETLY, *tests]))
        return os.waitpid(child, 0)[1] == 0

    def judge(self, batch: list[Mutant]) -> Iterator[tuple[Mutant, str]]:
        """The first file alone: it catches most, and pytest reads the others for as long as that takes."""
        for mutant in batch:
            first, others = SOURCES[mutant.file].tests[:1], SOURCES[mutant.file].tests[1:]
            passed = self._pass(first, mutant)
            if passed and others:
                passed = self._pass(others, mutant)
                if not passed and tuple(others) not in self.sound:
                    assert self._pass(others, None), f"{others} fail without a mutant"
                self.sound.add(tuple(others))
            yield mutant, "survived" if passed else "caught"

    def batches(self, todo: list[Mutant]) -> Iterator[list[Mutant]]:
        for mutant in todo:
            yield [mutant]


def _replace(mutant: Mutant) -> None:
    """Runs the mutant's module in place of the one that is loaded, of which others hold classes."""
    module = importlib.import_module(mutant.file.removesuffix(".py").replace("/", "."))
    classes = {name: kind for name, kind in vars(module).items() if isinstance(kind, type)}
    exec(mutated((ROOT / mutant.file).read_text(), [mutant]), vars(module))
    for name, kind in classes.items():
        for key, value in vars(vars(module)[name]).items():
            if kind.__module__ == module.__name__ and callable(value):
                setattr(kind, key, value)
    if module.__package__ == reference.__name__:
        for name in vars(module).keys() & vars(reference).keys():
            setattr(reference, name, vars(module)[name])


def _sample(mutants: list[Mutant], size: int | None, seed: int) -> list[Mutant]:
    """All, or so many of a file's, in their order."""
    if size is None or len(mutants) <= size:
        return mutants
    chosen = random.Random(seed).sample(range(len(mutants)), size)
    return [mutants[k] for k in sorted(chosen)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["kernels", "twins", "modules", "all"])
    parser.add_argument("--list", action="store_true", help="print the mutants and run none")
    parser.add_argument("--only", default="", help="those whose name has this regular expression in it")
    parser.add_argument("--sample", type=int, help="so many of each file, in place of all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--results", type=Path, help="a file of verdicts, one JSON line each, to go on from")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    wanted = {
        kind: [
            mutant
            for source in sources
            for mutant in _sample(
                [mutant for mutant in mutants_of(source) if re.search(options.only, mutant.id)],
                options.sample,
                options.seed,
            )
        ]
        for kind, sources in (("kernels", KERNELS), ("twins", TWINS), ("modules", MODULES))
        if options.kind in (kind, "all")
    }
    names = [mutant.id for mutants in wanted.values() for mutant in mutants]
    if options.list:
        print(*names, f"{len(names)} mutants", sep="\n")
        return 0
    lines = options.results.read_text().splitlines() if options.results and options.results.exists() else []
    verdicts: dict[str, str] = dict(json.loads(line) for line in lines)
    deadline = time.monotonic() + options.seconds
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        for kind, mutants in wanted.items():
            todo = [mutant for mutant in mutants if mutant.id not in verdicts]
            if not todo:
                continue
            files = {mutant.file for mutant in todo}
            benches = {"kernels": Kernels, "twins": Twins, "modules": Modules}
            bench = benches[kind](Path(folder) / kind, files)
            for batch in bench.batches(todo):
                if time.monotonic() > deadline:
                    break
                for mutant, verdict in bench.judge(batch):
                    verdicts[mutant.id] = verdict
                    if options.results:
                        with options.results.open("a") as file:
                            file.write(json.dumps([mutant.id, verdict]) + "\n")
    return report({name: verdicts.get(name, "not run") for name in names})


def report(verdicts: dict[str, str]) -> int:
    count = Counter(verdicts.values())
    survivors = [name for name, what in verdicts.items() if what == "survived" and name not in EQUIVALENT]
    wrong = [name for name, what in verdicts.items() if what in ("caught", "rejected") and name in EQUIVALENT]
    print(*survivors, *(f"said to be equivalent, but caught: {name}" for name in wrong), sep="\n")
    print(
        f"{len(verdicts)} mutants: {count['caught']} caught by the tests, {count['rejected']} by the compiler, "
        f"{count['survived'] - len(survivors)} proved equivalent, {len(survivors)} survived, {count['not run']} not run"
    )
    return bool(survivors or wrong)


if __name__ == "__main__":
    sys.exit(main())
