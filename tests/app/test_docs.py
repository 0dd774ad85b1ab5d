"""Every Python block of the README and the docs runs when it is pasted alone, and prints what is said there."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fastopt.core import _core

# Not of what the tests need: where one is missing, the blocks that import it are skipped.
OTHERS = ("torch", "lightning", "accelerate")
pytestmark = pytest.mark.skipif(not _core.threads_available(), reason="the pages show a build with threads")
ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


class Block(NamedTuple):
    where: str
    source: str
    said: str | None
    """What the page says that it prints, in a block of text right after it."""


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        found = list(re.finditer(r"^```(\w+)\n(.*?)^```", text, re.M | re.S))
        for block, following in itertools.pairwise([*found, None]):
            if block and block[1] == "python":
                line = text.count("\n", 0, block.start()) + 1
                said = following[2] if following and following[1] == "text" else None
                yield Block(f"{page.relative_to(ROOT).as_posix()}:{line}", block[2], said)


@pytest.mark.parametrize("block", list(blocks()), ids=lambda block: block.where)
def test_a_block_runs_alone(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OTHERS:
        if re.search(rf"^(import|from) {name}\b", block.source, re.M):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.source, block.where, "exec"), namespace)
    if block.said is not None:
        assert printed.getvalue() == block.said
    lines = iter(printed.getvalue().splitlines())
    for expected in re.findall(r"print\(.*\)  # (.*)$", block.source, re.M):
        assert expected in lines, f"{expected!r} was not printed"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", re.sub(r"```.*?```|\$\$.*?\$\$", "", page.read_text(), flags=re.S)):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link
