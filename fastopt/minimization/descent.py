"""Descent by line searches: a direction, a step along it, and again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastopt.base import memory
from fastopt.base.arguments import one_of
from fastopt.base.tree import Array
from fastopt.core import _core
from fastopt.engine.numpy_plan import ReferenceVectors
from fastopt.minimization import line_search
from fastopt.minimization.box_vectors import BoxVectors
from fastopt.minimization.line_search import Found
from fastopt.minimization.progress import STUCK, Progress

Evaluate: TypeAlias = Callable[[Array, Array], float]
"""(x, g) -> loss: writes the gradient at x to g."""
Direct: TypeAlias = Callable[[Array, Array, Array], None]
"""(x, g, d): writes a direction to d."""

SEARCHES: dict[str, Callable[..., Found]] = {
    "strong_wolfe": line_search.strong_wolfe,
    "backtracking": line_search.backtracking,
    "bracketing": line_search.bracketing,
}
SEARCH_OPTIONS = {"strong_wolfe": ("c1", "c2"), "backtracking": ("c1", "shrink"), "bracketing": ("tolerance",)}
COARSE = 2.0**-19
"""The relative rounding error of a loss in float32."""
ENDLESS = 3
"""So many line searches in a row that never came to a point where the loss rises say that it has no lower bound."""
EVALUATIONS = {"strong_wolfe": 25, "backtracking": 60, "bracketing": 60}


def search_options(owner: str, own: tuple[str, ...], name: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a line search, checked by trying it out; others raise."""
    one_of("line_search", name, tuple(SEARCHES))
    for option in options:
        if option not in SEARCH_OPTIONS[name]:
            hint = HINTS.get(option, f"it takes {', '.join((*own, *SEARCH_OPTIONS[name]))}")
            raise TypeError(f"{owner} with line_search={name!r} has no {option!r}: {hint}")
    slope = {} if name == "bracketing" else {"slope": -1.0}
    SEARCHES[name](lambda alpha: (0.0, 0.0) if name == "strong_wolfe" else 0.0, value=0.0, **slope, **options)
    return options


HINTS = {
    "lr": "the line search finds the step",
    "max_iter": "called max_iterations here",
    "maxiter": "called max_iterations here",
    "max_eval": "called max_evaluations here",
    "maxfun": "called max_evaluations here",
    "maxfev": "called max_evaluations here",
    "history_size": "called history here",
    "maxcor": "called history here",
    "memory_size": "called history here",
    "tolerance_grad": "called gtol here",
    "tolerance_change": "ftol here is on the change of the loss",
    "line_search_fn": "called line_search here",
    "tol": "give gtol or ftol",
    "args": "make a function of x alone, with a lambda or functools.partial",
    "bounds": "minimize has them, with method='lbfgs'",
    "constraints": "there are no constraints here",
    "options": "give them as keywords of their own",
}


class Tried(NamedTuple):
    """A point that a line search tried."""

    alpha: float
    value: float
    slope: float


class Descent:
    """Where a descent is, and how it goes on: by L-BFGS with `history` > 0, else along -g or what `direct` gives.

    `within` are its vectors where it has bounds.
    """

    def __init__(
        self,
        n: int,
        dtype: Any,
        evaluate: Evaluate,
        search: str,
        options: dict[str, Any],
        *,
        history: int = 0,
        direct: Direct | None = None,
        within: BoxVectors | None = None,
        backend: str = "c",
    ) -> None:
        vectors: Any = _core.Vectors if backend == "c" else ReferenceVectors
        self.vectors: Any = within or vectors(n, dtype, history, memory.zeros)
        self._within = within
        self.value = math.nan
        self.steepest = self.norm = math.nan
        self.evaluations = 0
        self.progress = Progress()
        self.cut = False
        self._met_finite = self._met_nonfinite = self._met_minus_infinity = False
        self._endless = 0
        self._longest = (0.0, math.nan)
        self._evaluate = evaluate
        self._search = SEARCHES[search]
        self._options = options
        self._most = EVALUATIONS[search]
        self._slopes = search == "strong_wolfe"
        self._sloped = search != "bracketing"
        self._quasi = history > 0
        self._direct = direct
        self._last: tuple[float, float] | None = None
        self._slope = math.nan
        self._tried: list[Tried] = []
        self._lowest: tuple[Tried, Array, Array] | None = None
        self._lowest_is_kept = False

    def start(self) -> bool:
        """Evaluates at vectors.x; returns whether loss and gradient are finite there, as they must be."""
        v = self.vectors
        self.value = self._evaluate(v.x, v.g)
        self.evaluations += 1
        self._last = None
        self._tried = []
        self._met_minus_infinity, self._endless, self.cut = False, 0, False
        self.steepest, self.norm = v.steepness()
        finite = math.isfinite(self.value) and math.isfinite(self.steepest)
        if finite:
            self.progress.begin(self.value, self.steepest)
        return finite

    def iterate(self, max_evaluations: float = math.inf) -> bool:
        """One direction and one line search, of no more than so many evaluations; False where it finds no lower point,
        and is where it was. Then `cut` says whether more evaluations might have found one."""
        if self.over:
            return False
        v = self.vectors
        if self._direct is None:
            slope = v.direct()
        else:
            self._direct(v.x, v.g, v.d)
            slope = v.slope()
        self._met_finite = self._met_nonfinite = False
        found = self._along(slope, max_evaluations)
        if v.count and not self._moves(found):
            v.forget()
            slope = v.direct()
            found = self._along(slope, max_evaluations - found.evaluations)
        if not self._moves(found):
            if not (self.cut or self.all_nonfinite):
                self.progress.stick()
            return False
        farthest, slope_there = self._longest
        falls = not found.success and found.alpha == farthest and slope_there < 0
        self._endless = self._endless + 1 if falls else 0
        self._take(found.alpha)
        v.accept()
        self._last = (found.alpha, slope)
        self.steepest, self.norm = v.steepness()
        self.value, slope_there = self._tried[-1].value, self._tried[-1].slope
        self.progress.advance(self.value, self.steepest, -found.alpha * (slope + slope_there) / 2)
        return True

    @property
    def over(self) -> bool:
        """Whether it would come no further from here."""
        return self.progress.over or self._endless == ENDLESS

    @property
    def all_nonfinite(self) -> bool:
        """Whether the last line search met nothing finite, but for steps so short that they changed nothing."""
        return self._met_nonfinite and not self._met_finite

    @property
    def without_bound(self) -> str | None:
        """Why a descent that has ended seems to be one of a loss without a lower bound, or None."""
        if self._endless == ENDLESS:
            return f"the loss went on falling to the end of {ENDLESS} line searches: it seems to have no lower bound"
        if self._met_minus_infinity:
            return "the loss is -inf at a step tried: it seems to have no lower bound"
        return None

    def why_not_lower(self) -> str:
        """Why a descent ended at a point where no tolerance is met and more evaluations would not help."""
        if self.without_bound:
            return self.without_bound
        noise = self.progress.rounding.of(self.value)
        rounding = f"by more than its rounding error, about {noise:.2g}"
        if not self._tried and self.progress.idle == STUCK:
            return "no lower loss was found by the step before, and nothing has changed since"
        if self.progress.idle != STUCK:
            return (
                f"nothing improves any more: the loss does not fall {rounding}, max|gradient| gets no smaller, and the "
                "steps lead nowhere"
            )
        if self._uphill():
            return "no lower loss was found: it rises where the gradient says that it falls, so the gradient is wrong"
        hidden = f"no step tried lowers the loss {rounding}"
        if np.array_equal(self.vectors.trial_x, self.vectors.x):
            return f"no lower loss was found: {hidden}, and shorter ones change no parameter, or the gradient is wrong"
        return f"no lower loss was found: {hidden}, which hides a further decrease, or the gradient is wrong"

    def _uphill(self) -> bool:
        """Whether the loss rose in proportion to steps too short for its slope to change, and not by its rounding."""
        clear = COARSE * abs(self.value)
        short = [tried for tried in self._tried if abs(tried.slope - self._slope) <= 0.1 * abs(self._slope)]
        rises = [tried for tried in short if tried.value - self.value > clear]
        steps = [tried.alpha for tried in rises]
        if len(rises) < 3 or max(steps) < 10 * min(steps):
            return False
        rates = [(tried.value - self.value) / tried.alpha for tried in rises]
        return max(rates) < 1.5 * min(rates)

    def _moves(self, found: Found) -> bool:
        """A search may fail and yet go down; by less than the rounding error of the loss it does not."""
        return found.success or self.value - found.value > self.progress.rounding.of(self.value)

    def _along(self, slope: float, max_evaluations: float) -> Found:
        self.cut = max_evaluations < 1
        if not -math.inf < slope < 0 or self.cut:
            return Found(0.0, self.value, 0, False)
        self._slope, self._tried, self._lowest = slope, [], None
        self._longest, self._met_minus_infinity = (0.0, math.nan), False
        options = dict(self._options, max_evaluations=self._most)
        # Where there is no evaluation left to come back to the lowest point, it is kept.
        self._lowest_is_kept = max_evaluations <= self._most
        if self._lowest_is_kept:
            options["max_evaluations"] = int(max_evaluations)
        if self._slopes:
            options["rounding"] = self.progress.rounding.relative
            if self._within is not None:
                options["longest"] = self._within.longest()
        if self._sloped:
            options["slope"] = slope
        along = self._try if self._slopes else self._loss
        first, assumed = self._first_step(slope), self.progress.rounding.relative
        found = self._search(along, first, value=self.value, **options)
        if self.progress.rounding.relative > assumed and not self._moves(found):
            # Its values have shown that the loss is coarser than was thought: with that known, once more.
            spent = found.evaluations
            found = self._along(slope, max_evaluations - spent)
            return found._replace(evaluations=found.evaluations + spent)
        self.cut = not found.success and found.evaluations >= max_evaluations
        if self._lowest is not None and not found.success:
            return found._replace(alpha=self._lowest[0].alpha, value=self._lowest[0].value)
        return found

    def _first_step(self, slope: float) -> float:
        """1 where the direction has a length of its own, or bounds on all sides give it one. Along -g one of length 1
        at most, then what promises the decrease of the step before (Nocedal & Wright, 2006, p. 59)."""
        if self.vectors.count or self._direct is not None or (self._within is not None and self._within.closed):
            return 1.0
        if self._last is not None and not self._quasi:
            alpha, last = self._last
            again = alpha * (last / slope)
            if 0 < again < math.inf:
                return again
        return 1 / self.norm if self.norm > 1 else 1.0

    def _take(self, alpha: float) -> None:
        """Comes back to the point tried at alpha."""
        if self._tried[-1].alpha == alpha:
            return
        if self._lowest is not None and self._lowest[0].alpha == alpha:
            tried, x, g = self._lowest
            self.vectors.trial_x[...], self.vectors.trial_g[...] = x, g
            self._tried.append(tried)
        else:
            self._try(alpha)

    def _try(self, alpha: float) -> tuple[float, float]:
        v = self.vectors
        v.move(alpha)
        value = self._evaluate(v.trial_x, v.trial_g)
        slope = v.trial_slope()
        self.evaluations += 1
        self.progress.rounding.note(value)
        if alpha > self._longest[0]:
            self._longest = (alpha, slope)
        self._tried.append(Tried(alpha, value, slope))
        if not math.isfinite(value + slope):
            self._met_nonfinite = True
            self._met_minus_infinity |= value == -math.inf
            return value, slope
        if value != self.value:
            self._met_finite = True
        if self._lowest_is_kept and value < (self.value if self._lowest is None else self._lowest[0].value):
            self._lowest = self._tried[-1], v.trial_x.copy(), v.trial_g.copy()
        return value, slope

    def _loss(self, alpha: float) -> float:
        value, slope = self._try(alpha)
        return value if math.isfinite(slope) else math.nan
