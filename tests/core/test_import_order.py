"""The order of the folders: what imports what, so that a concept's place tells what it may know. No arrow runs up."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

# From the bottom; folders of one line do not know each other.
ORDER = [
    ["base"],
    ["core"],
    ["reference", "schedules"],
    ["engine"],
    ["around", "saving"],
    ["losses"],
    ["minimization"],
    ["optimizers"],
    ["training"],
    ["app"],
    ["torch"],
]
LEVEL = {folder: level for level, folders in enumerate(ORDER) for folder in folders}
# minimize looks up the optimizer that its method names when it is called.
ALLOWED = {("fastopt/minimization/minimize.py", "optimizers")}


def imported(source: str) -> Iterator[str]:
    """The modules of fastopt that a file imports, anywhere in it, under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "fastopt" else [node.module]
            )
            yield from (name for name in names if name.split(".")[0] == "fastopt")
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "fastopt")


def arrows_up(path: str, source: str) -> list[str]:
    """What a file imports that stands above it, or beside it in another folder."""
    folder = path.split("/")[1]
    found = []
    for module in imported(source):
        parts = module.split(".")
        target = parts[1] if len(parts) > 1 else "the package"
        up = target not in LEVEL or LEVEL[target] >= LEVEL[folder]
        if folder != "app" and target != folder and up and (path, target) not in ALLOWED:
            found.append(f"{path} imports {module}")
    return found


@pytest.mark.parametrize("folder", LEVEL)
def test_no_import_runs_up(folder: str) -> None:
    paths = sorted((ROOT / "fastopt" / folder).rglob("*.py"))
    assert paths
    assert [arrow for path in paths for arrow in arrows_up(str(path.relative_to(ROOT)), path.read_text())] == []


def test_the_core_knows_base_alone() -> None:
    for path in (ROOT / "fastopt/core").glob("*.p[xy][xi]"):
        modules = re.findall(r"^\s*(?:from|import|cimport) (fastopt[.\w]*)", path.read_text(), re.M)
        assert [m for m in modules if not m.startswith(("fastopt.base", "fastopt.core"))] == [], path.name


def test_an_arrow_that_runs_up_is_seen() -> None:
    assert arrows_up("fastopt/base/tree.py", "from fastopt.engine import rule") == [
        "fastopt/base/tree.py imports fastopt.engine"
    ]
    assert arrows_up("fastopt/around/sam.py", "def f():\n    import fastopt") != []
    assert arrows_up("fastopt/saving/file.py", "from fastopt.around import sam") != []
    assert arrows_up("fastopt/engine/rule.py", "from fastopt.engine import program") == []


def test_kernels_know_nothing_of_how_they_are_run() -> None:
    """But the floating-point mode and the pool, which losses.c and vectors.c take themselves."""
    for path in sorted((ROOT / "csrc/kernels").rglob("*.[ch]")):
        of_run = re.findall(r'#include "run/(\w+\.h)"', path.read_text())
        assert set(of_run) <= ({"fpu.h", "pool.h"} if path.suffix == ".c" else set()), path.name


@pytest.mark.parametrize("folder", ["fastopt", "csrc"])
def test_every_file_says_what_it_is_for(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix in (".py", ".c", ".h", ".pyx", ".pxi", ".pxd") and path.name not in ("_core.c",):
            text = re.sub(r"^#(define|ifndef).*\n|^# cython.*\n|^\s*\n", "", path.read_text(), flags=re.M)
            assert text.startswith(('"""', "/*", "# ", "``")), f"{path} says nothing of itself"
