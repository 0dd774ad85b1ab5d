"""The table at the end of a run with benchmarks enabled: see bench/README.md for its columns."""

from __future__ import annotations

from typing import Any

import pytest

from bench import ROWS


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, {})
    if not rows:
        return
    write = terminalreporter.write_line
    write("")
    write(f"{'case, dtype, size':<44} {'kernel':>10} {'':>8} {'NumPy tuned':>20} {'reference':>20}")
    write(f"{'':<44} {'ns/element':>10} {'GB/s':>8} {'ns/element':>12} {'ratio':>7} {'ns/element':>12} {'ratio':>7}")
    for group, found in rows.items():
        kernel = found.get("c")
        line = f"{group:<44} " + (f"{kernel[0]:>10.3f} {kernel[1]:>8.1f}" if kernel else " " * 19)
        for name in ("tuned", "numpy"):
            if name not in found:
                line += " " * 21
                continue
            ns = found[name][0]
            line += f" {ns:>12.3f} " + (f"{ns / kernel[0]:>7.1f}" if kernel else " " * 7)
        write(line.rstrip())
