"""The table at the end of a run with benchmarks enabled: see bench/README.md for its columns."""

from __future__ import annotations

from typing import Any

from bench import ROWS

OTHERS = {"threads": "kernel, threads", "tuned": "tuned NumPy", "numpy": "reference"}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not ROWS:
        return
    width = max(map(len, ROWS))
    lines = [
        f"{'':<{width}} {'kernel':>10} {'':>8}" + "".join(f"{title:>20}" for title in OTHERS.values()),
        f"{'':<{width}} {'ns/element':>10} {'GB/s':>8}" + f"{'ns/element':>13}{'ratio':>7}" * len(OTHERS),
    ]
    for group, found in sorted(ROWS.items()):
        line = f"{group:<{width}} " + ("{:>10.3f} {:>8.1f}".format(*found["c"]) if "c" in found else f"{'':>19}")
        for name in OTHERS:
            line += f"{found[name][0]:>13.3f}" if name in found else f"{'':>13}"
            line += f"{found[name][0] / found['c'][0]:>7.2f}" if name in found and "c" in found else f"{'':>7}"
        lines.append(line.rstrip())
    for line in ["", *lines]:
        terminalreporter.write_line(line)
