"""The C core without Python (tests/c): the same bits from every compiler and on every architecture, and the pool under
load. The program itself compares instruction sets, numbers of threads and layouts."""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

import fastopt
from fastopt.core import _core

ROOT = Path(__file__).parent.parent.parent
KERNELS = ROOT / "csrc/kernels/kernels.c"
SOURCES = [*sorted({*ROOT.glob("csrc/**/*.c")} - {KERNELS}), *sorted(ROOT.glob("tests/core/c/*.c"))]
SYSTEM = os.environ.get("CC", "cc")


def tool(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"{' or '.join(names)} is not installed")
    return found


@functools.cache
def folder() -> Path:
    made = tempfile.TemporaryDirectory()
    atexit.register(made.cleanup)
    return Path(made.name)


def compiled(compiler: str, output: Path, *more: str) -> str:
    """With the flags of the extension module."""
    warnings = ["-Wall", "-Wextra", "-Wdouble-promotion", "-Werror"] if os.environ.get("FASTOPT_WERROR") == "1" else []
    command = [compiler, *fastopt.info().flags.split(), *warnings, f"-I{ROOT / 'csrc'}", *more, "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(output)


@functools.cache
def kernels(compiler: str) -> str:
    """The one file that takes long, which knows nothing of threads."""
    return compiled(compiler, folder() / f"{len(os.listdir(folder()))}.o", "-c", str(KERNELS))


@functools.cache
def build(compiler: str, *more: str) -> str:
    """The core and the check, as a program."""
    program = folder() / str(len(os.listdir(folder())))
    return compiled(compiler, program, *more, *map(str, SOURCES), kernels(compiler), "-lm")


def same_tool(compiler: str) -> str:
    """The system's compiler, where this is that one by another name."""
    system = tool(SYSTEM)
    return system if os.path.realpath(system) == os.path.realpath(compiler) else compiler


def run(*command: str) -> list[str]:
    """The lines with hashes, of a run without a failure."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith("FAILED")]
    assert done.returncode == 0, (done.returncode, failed[:20], done.stderr[-2000:])
    assert re.match(r"[1-9]\d* passed, 0 failed", lines[-1])
    return [line for line in lines if line.startswith("hash ")]


@functools.cache
def hashes() -> list[str]:
    """Those of the system's compiler, with the pool driven long."""
    return run(build(tool(SYSTEM), "-pthread"))


def test_every_kernel_norm_and_step_and_the_pool() -> None:
    for name in _core.KERNELS:
        assert sum(line.startswith(f"hash kernel {name} ") for line in hashes()) == 4
    assert len(hashes()) == len({line.rsplit(" ", 1)[0] for line in hashes()})


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_every_compiler_gives_the_same_bits(compiler: str) -> None:
    assert run(build(same_tool(tool(compiler)), "-pthread"), "100", "2") == hashes()


def test_without_threads() -> None:
    assert run(build(tool(SYSTEM), "-DFO_NO_THREADS")) == hashes()


def test_aarch64_gives_the_same_bits() -> None:
    """Subnormals kept. No forks: qemu cannot start a thread in a forked child."""
    emulator = tool("qemu-aarch64", "qemu-aarch64-static")
    program = build(tool("aarch64-linux-gnu-gcc"), "-static", "-pthread")
    assert run(emulator, program, "50", "0") == hashes()
