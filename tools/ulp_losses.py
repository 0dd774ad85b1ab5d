"""The worst errors of fastopt.losses in units of the last place: values and gradients, of every loss, against mpmath.

    python -m tools.ulp_losses [SAMPLES]

So many samples (300 where not said) of each kind in tests/losses/exact.py: sure and right, sure and wrong, undecided,
shifted, of extreme sizes. Prints the table of docs/losses.md.
"""

from __future__ import annotations

import sys

import numpy as np

from tests.losses.exact import CASES, KINDS, measure


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print("| loss | float32: value | gradient | float64: value | gradient |\n|---|--:|--:|--:|--:|")
    for case in CASES:
        cells = []
        for dtype in (np.float32, np.float64):
            found = [measure(case, kind, samples, dtype, 0) for kind in KINDS]
            cells += [f"{max(e.value for e in found):.1f}", f"{max(e.gradient for e in found):.1f}"]
        print(f"| `{case.loss.__name__}`{case.id.removeprefix(case.loss.__name__)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
