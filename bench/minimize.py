"""fastopt.minimize beside SciPy's L-BFGS-B, with the same gtol and ftol=0:

    python -m bench.minimize speed             evaluations and time to the minimum, a table
    python -m bench.minimize problems          the problems of Moré, Garbow & Hillstrom, a table
    python -m bench.minimize nist              NIST's nonlinear regressions, by every method, tables
    python -m bench.minimize bounded           the bounded problems of Hock & Schittkowski, a table
    python -m bench.minimize picture FILE.png  loss against evaluations for several methods

The tables and the picture are those of docs/minimize.md and docs/lbfgs.md. Run with OPENBLAS_NUM_THREADS=1: the matrix
products of the regression are the user's function, and not what is compared.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize

import fastopt
from tests.minimization import hock_schittkowski
from tests.minimization.mgh import PROBLEMS
from tests.minimization.nist import REGRESSIONS, Regression

Array = Any
Function = Callable[[Array], tuple[float, Array]]

ROUNDS = 15
GAPS = (1e-2, 1e-4, 1e-6, 1e-8)
SAME = {"gtol": 1e-6, "ftol": 0.0}


def rosenbrock(x: Array) -> tuple[float, Array]:
    a, b = x[1:] - x[:-1] ** 2, 1 - x[:-1]
    g = np.zeros_like(x)
    g[1:] = 200 * a
    g[:-1] -= 400 * x[:-1] * a + 2 * b
    return 100 * float(a @ a) + float(b @ b), g


def logistic(rows: int = 2000, features: int = 500, l2: float = 1e-3) -> Function:
    """A regression on features whose sizes fall from 1 to 0.03."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, features)) * np.logspace(0, -1.5, features)
    y = np.where(X @ rng.standard_normal(features) * 2 + rng.standard_normal(rows) > 0, 1.0, -1.0)

    def fun_and_grad(w: Array) -> tuple[float, Array]:
        margin = y * (X @ w)
        e = np.exp(-np.abs(margin))
        loss = float(np.mean(np.log1p(e) + np.maximum(-margin, 0)) + l2 / 2 * (w @ w))
        return loss, X.T @ (-y * np.where(margin > 0, e, 1) / (1 + e)) / rows + l2 * w

    return fun_and_grad


CASES: dict[str, tuple[Function, Array]] = {
    "Rosenbrock, n = 1000": (rosenbrock, np.tile([-1.2, 1.0], 500)),
    "logistic regression, 500 features": (logistic(), np.zeros(500)),
}


class Traced:
    """A function that notes every loss it gave."""

    def __init__(self, f: Function) -> None:
        self.f, self.losses = f, list[float]()

    def __call__(self, x: Array) -> tuple[float, Array]:
        loss, g = self.f(x)
        self.losses.append(loss)
        return loss, g

    def to(self, goal: float) -> int | None:
        """Evaluations until a loss no larger than the goal."""
        return next((k for k, loss in enumerate(self.losses, 1) if loss <= goal), None)


def ours(f: Function, x0: Array, gtol: float = SAME["gtol"]) -> Any:
    return fastopt.minimize(f, x0, gtol=gtol, ftol=SAME["ftol"], max_iterations=100000)


def theirs(f: Function, x0: Array, gtol: float = SAME["gtol"]) -> Any:
    options = {"gtol": gtol, "ftol": SAME["ftol"], "maxiter": 100000, "maxfun": 10**6}
    return optimize.minimize(f, x0, jac=True, method="L-BFGS-B", options=options)


def speed() -> None:
    sides = (ours, theirs)
    print("| problem | evaluations to f - f_min <= " + " | ".join(f"{gap:g}" for gap in GAPS), end="")
    print(" | to gtol | time to gtol | ratio of times |\n| --- |" + " --: |" * (len(GAPS) + 3))
    for name, (f, x0) in CASES.items():
        lowest = min(side(f, x0, 1e-10).fun for side in sides)
        traced = [Traced(f), Traced(f)]
        for side, trace in zip(sides, traced, strict=True):
            side(trace, x0)
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for side, found in zip(sides, times, strict=True):
                start = time.perf_counter()
                side(f, x0)
                found.append(time.perf_counter() - start)
        ratios = sorted(b / a for a, b in zip(*times, strict=True))
        counts = [[trace.to(lowest + gap) for gap in GAPS] + [len(trace.losses)] for trace in traced]
        cells = [f"{a} / {b}" for a, b in zip(*counts, strict=True)]
        cells.append(" / ".join(f"{1e3 * statistics.median(found):.3g} ms" for found in times))
        cells.append(f"{statistics.median(ratios):.2f} ({ratios[ROUNDS // 4]:.2f} to {ratios[-1 - ROUNDS // 4]:.2f})")
        print(f"| {name} | " + " | ".join(cells) + " |")


def at_minimum(value: float, minima: tuple[float, ...]) -> bool:
    return any(abs(value - minimum) <= 5e-6 * minimum + 1e-9 * (minimum == 0) for minimum in minima)


def problems(gtol: float = 1e-8) -> None:
    warnings.simplefilter("ignore")
    print("| problem | n | published | fastopt | evaluations | SciPy | evaluations |\n| --- |" + " --: |" * 6)
    reached, totals = [0, 0], [0, 0]
    for p in PROBLEMS:
        found = [side(p.fun_and_grad, p.x0, gtol) for side in (ours, theirs)]
        cells = []
        for k, result in enumerate(found):
            good = at_minimum(result.fun, p.minima)
            reached[k] += good
            totals[k] += result.nfev
            cells += [f"{result.fun:.6g}" if good else f"**{result.fun:.6g}**", str(result.nfev)]
        published = ", ".join(f"{minimum:g}" for minimum in p.minima)
        print(f"| {p.number} {p.name} | {p.x0.size} | {published} | " + " | ".join(cells) + " |")
    print(f"| at a published minimum | | {len(PROBLEMS)} | {reached[0]} | {totals[0]} | {reached[1]} | {totals[1]} |")


MOST = 5000


def least_squares(p: Regression, x0: Array) -> Any:
    """SciPy's, told that the loss is a sum of squares."""
    exact = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "x_scale": "jac", "max_nfev": MOST}
    return optimize.least_squares(lambda b: p.residuals(b)[0], x0, lambda b: p.residuals(b)[1], **exact)


def fastopts(method: str, hess: str | None = None) -> Callable[[Regression, Array], Any]:
    def run(p: Regression, x0: Array) -> Any:
        more = {} if hess is None else {"hess": getattr(p, hess)}
        return fastopt.minimize(p.fun_and_grad, x0, method, gtol=0, max_evaluations=MOST, **more)

    return run


def scipys(method: str, hess: str | None = None, **options: Any) -> Callable[[Regression, Array], Any]:
    def run(p: Regression, x0: Array) -> Any:
        more = {} if hess is None else {"hess": getattr(p, hess)}
        return optimize.minimize(p.fun_and_grad, x0, jac=True, method=method, options=options, **more)

    return run


SOLVERS = {
    "lbfgs": fastopts("lbfgs"),
    "newton": fastopts("newton", "hess"),
    "newton, 2JᵀJ": fastopts("newton", "gauss_newton"),
    "SciPy L-BFGS-B": scipys("L-BFGS-B", gtol=0, ftol=0, maxiter=MOST, maxfun=MOST),
    "SciPy BFGS": scipys("BFGS", gtol=0, maxiter=MOST),
    "SciPy trust-exact": scipys("trust-exact", "hess", gtol=0, maxiter=MOST),
    "SciPy trust-exact, 2JᵀJ": scipys("trust-exact", "gauss_newton", gtol=0, maxiter=MOST),
    "SciPy least_squares": least_squares,
}


def nist() -> None:
    warnings.simplefilter("ignore")
    solved = {name: [[False, False] for _ in REGRESSIONS] for name in SOLVERS}
    counts = {name: list[int]() for name in SOLVERS}
    for name, solver in SOLVERS.items():
        for p, row in zip(REGRESSIONS, solved[name], strict=True):
            for k, x0 in enumerate(p.starts):
                try:
                    found = solver(p, x0)
                except Exception as error:
                    print(f"{name}, {p.name}, start {k + 1}: {error!r}", file=sys.stderr)
                    continue
                row[k] = p.is_solved(found.x)
                if row[k]:
                    counts[name].append(found.nfev)
    print("| method | solved | start 1 | start 2 | evaluations, median |\n| --- |" + " --: |" * 4)
    for name, rows in solved.items():
        first, second = (sum(column) for column in zip(*rows, strict=True))
        median = f"{statistics.median(counts[name]):.0f}" if counts[name] else ""
        print(f"| {name} | {first + second} | {first} | {second} | {median} |")
    print("\n| data set | " + " | ".join(SOLVERS) + " |\n| --- |" + " --- |" * len(SOLVERS))
    for i, p in enumerate(REGRESSIONS):
        marks = ["".join("+" if good else "-" for good in solved[name][i]) for name in SOLVERS]
        if set(marks) != {"++"}:
            print(f"| {p.name} | " + " | ".join(marks) + " |")


def bounded(gtol: float = 1e-8) -> None:
    warnings.simplefilter("ignore")
    print("| problem | n | published | fastopt | evaluations | SciPy | evaluations |\n| --- |" + " --: |" * 6)
    options = {"gtol": gtol, "ftol": 0.0, "maxfun": 10**6}
    for p in hock_schittkowski.PROBLEMS:
        more = {"jac": True, "method": "L-BFGS-B", "bounds": p.bounds, "options": options}
        found = fastopt.minimize(p.fun_and_grad, p.x0, bounds=p.bounds, gtol=gtol)
        cells = []
        for result in (found, optimize.minimize(p.fun_and_grad, p.x0, **more)):
            good = any(abs(result.fun - minimum) <= 1e-8 * max(1, abs(minimum)) for minimum in p.minima)
            cells += [f"{result.fun:.9g}" if good else f"**{result.fun:.9g}**", str(result.nfev)]
        published = ", ".join(f"{minimum:.9g}" for minimum in p.minima)
        print(f"| {p.number} | {p.x0.size} | {published} | " + " | ".join(cells) + " |")


def picture(out: str) -> None:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9.5, 3.8), layout="constrained")
    panels = drawn.subplots(1, 2)
    cases = {**CASES, "Rosenbrock, n = 100": (rosenbrock, np.tile([-1.2, 1.0], 50))}
    for axes, name in zip(panels, ("logistic regression, 500 features", "Rosenbrock, n = 100"), strict=True):
        f, x0 = cases[name]
        lowest = ours(f, x0, 1e-10).fun
        lr = 0.03 if "logistic" in name else 0.01
        for label, color, method, options in (
            ("L-BFGS", "#0b5fa5", "lbfgs", {}),
            ("gradient descent, strong Wolfe", "#c8501e", "gradient_descent", {}),
            (f"Adam, lr={lr}", "#555555", "adam", {"lr": lr}),
        ):
            trace = Traced(f)
            fastopt.minimize(trace, x0, method, max_evaluations=2000, **options)
            gap = np.maximum(np.minimum.accumulate(trace.losses) - lowest, 1e-12)
            axes.loglog(np.arange(1, gap.size + 1), gap, label=label, color=color)
        axes.set(title=name, xlabel="evaluations of loss and gradient", ylabel="lowest loss so far, above the minimum")
        axes.set_ylim(bottom=1e-13)
        axes.grid(color="0.9")
        axes.legend(loc="lower left", frameon=False)
    drawn.savefig(out, dpi=110)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:] or ["speed"]
    commands = {"speed": speed, "problems": problems, "nist": nist, "bounded": bounded, "picture": picture}
    commands[command](*arguments)
