"""Every Python block of the README and the docs runs, in order, and prints what its comments say."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from fastopt.core import _core

pytestmark = pytest.mark.skipif(not _core.threads_available(), reason="the pages show a build with threads")
ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec("import numpy as np, fastopt\nparams = [np.ones(3)]\np = [np.ones(3)]", namespace)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.M | re.S)
    for (kind, block), (following, text) in zip(blocks, [*blocks[1:], ("", "")], strict=False):
        if kind != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, str(page), "exec"), namespace)
        if following == "text":
            assert printed.getvalue() == text
        lines = iter(printed.getvalue().splitlines())
        for expected in re.findall(r"print\(.*\)  # (.*)$", block, re.M):
            assert expected in lines, f"{expected!r} was not printed"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", re.sub(r"```.*?```|\$\$.*?\$\$", "", page.read_text(), flags=re.S)):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link
