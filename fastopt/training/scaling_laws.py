"""Scaling laws: how a loss falls with the size of a data set or of a model, and where it ends.

    fit = fastopt.scaling.fit_power_law(n, loss)
    print(fit)                       # L_inf, K and alpha with their standard errors
    fit.predict(10 * n[-1])          # the loss to expect of ten times as much
    fit.gap_ratio(10)                # the share of the gap to L_inf that then remains

The laws are those of Kaplan et al. (2020) and Hoffmann et al. (2022), fitted as the latter do: Huber's loss of the
difference of logarithms, from several starts. Fits need SciPy and pictures matplotlib: pip install 'fastopt[scaling]'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from fastopt.base.arguments import axes_like, doubles
from fastopt.base.tree import Array

TUNING = 1.345
"""Huber's delta in standard deviations of the noise: 95% as efficient as least squares where the noise is normal."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class PowerLaw:
    """L(n) = L_inf + K n^-alpha, as `fit_power_law` found it.

    L_inf, K, alpha : the parameters, with standard errors in L_inf_stderr, K_stderr and alpha_stderr.
    noise : the standard deviation of log(loss) around the law, from the median of the residuals.
    n, loss : the data of the fit.
    """

    L_inf: float
    K: float
    alpha: float
    L_inf_stderr: float
    K_stderr: float
    alpha_stderr: float
    noise: float
    n: Array = field(repr=False)
    loss: Array = field(repr=False)

    def predict(self, n: ArrayLike) -> Any:
        """The loss at n, a number or an array of any shape, all above 0; a float or a float64 array like it."""
        return self.L_inf + _term(self.K, self.alpha, _positive("n", n))

    def gap_ratio(self, c: float) -> float:
        """c^-alpha: the share of the gap L(n) - L_inf that remains when n becomes c n. The same for every n."""
        return float(_positive("c", c, shape=()) ** -self.alpha)

    def plot(self, ax: Any = None) -> Any:
        """Draws the data, the law, on to ten times the largest n, and L_inf with its standard error; logarithmic axes.

        ax : matplotlib axes to draw on; None makes a figure of its own, without pyplot.

        Returns the axes: ``fit.plot().figure.savefig("fit.png")``. Raises ImportError without matplotlib.
        """
        ax = _axes() if ax is None else axes_like("ax", ax)
        n = np.geomspace(self.n.min(), 10 * self.n.max(), 200)
        curve = self.predict(n)
        law = f"${self.L_inf:.3g} + {self.K:.3g}\\,n^{{-{self.alpha:.3g}}}$"
        ax.axhspan(self.L_inf - self.L_inf_stderr, self.L_inf + self.L_inf_stderr, color=_GREEN, alpha=0.2, lw=0)
        ax.axhline(self.L_inf, color=_GREEN, ls="--", label=f"$L_\\infty$ = {self.L_inf:.3g} ± {self.L_inf_stderr:.1g}")
        ax.plot(n, curve, color=_BLUE, label=law)
        ax.plot(self.n, self.loss, "o", color=_ORANGE, label="measured")
        ax.set(xscale="log", yscale="log", xlabel="n", ylabel="loss")
        ax.set_ylim(bottom=0.9 * max(self.L_inf - self.L_inf_stderr, curve[-1] / 2))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
        ax.legend()
        return ax

    def __str__(self) -> str:
        return _describe("L_inf + K n^-alpha", self, ("L_inf", "K", "alpha"))


@dataclass(frozen=True)
class JointPowerLaw:
    """L(n, p) = L_inf + K n^-alpha + C p^-beta, as `fit_joint_power_law` found it; fields as in `PowerLaw`."""

    L_inf: float
    K: float
    alpha: float
    C: float
    beta: float
    L_inf_stderr: float
    K_stderr: float
    alpha_stderr: float
    C_stderr: float
    beta_stderr: float
    noise: float
    n: Array = field(repr=False)
    p: Array = field(repr=False)
    loss: Array = field(repr=False)

    def predict(self, n: ArrayLike, p: ArrayLike) -> Any:
        """The loss at n and p, numbers or arrays that broadcast, all above 0; a float or a float64 array."""
        return self.L_inf + _term(self.K, self.alpha, _positive("n", n)) + _term(self.C, self.beta, _positive("p", p))

    def __str__(self) -> str:
        return _describe("L_inf + K n^-alpha + C p^-beta", self, ("L_inf", "K", "alpha", "C", "beta"))


class Line(NamedTuple):
    """y = a x + b, as `least_squares_line` found it, with the standard errors of both."""

    a: float
    b: float
    a_stderr: float
    b_stderr: float


def fit_power_law(n: ArrayLike, loss: ArrayLike) -> PowerLaw:
    """Fits L(n) = L_inf + K n^-alpha with L_inf >= 0, K > 0 and alpha > 0 to losses measured at sizes n.

    n, loss : 1-d, of one length, at least 5 points at 4 different n or more; finite and above 0.

    Minimises the sum of Huber's loss of r = log L(n) - log(loss), which is the square up to delta and the absolute
    value beyond: a run that went wrong pulls no harder than one at delta. delta is 1.345 s, s the noise, estimated as
    median |r| / 0.6745 of all but the smallest 3, as many as there are parameters. It tries four starts, and gives the
    same fit for the same data.

    The standard errors are the roots of the diagonal of

        k^2 (sum psi^2 / (m - q)) / mean(psi')^2 (J^T J)^-1,    k = 1 + q/m (1 - mean(psi')) / mean(psi')

    (Huber 1981, section 7.6): J the Jacobian of r, psi = clip(r, -delta, delta), psi' = |r| <= delta, m points, q
    parameters. In simulations they are 10% too small with 20 points and 30% with 12. K is uncertain by a factor rather
    than a difference: where K_stderr is not well below K, read it on a logarithmic scale.

    Raises ValueError where the data do not determine L_inf: where refits with L_inf = 0, no floor at all, and with half
    the smallest fitted loss are both no worse at 95% (by the increase of Huber's loss, a robust likelihood ratio). And
    where the 95% interval of alpha (Student's t) reaches 0. A narrow range of n and noise as large as the bend do this.
    A straight line in log-log gives L_inf near 0 where the range is so wide, and the noise so small, that half the
    smallest loss would have shown as a bend, and is refused elsewhere. ImportError without SciPy.
    """
    sizes, losses = _data(5, n=n, loss=loss)
    return PowerLaw(**_fit([("n", sizes, "K", "alpha")], losses), n=sizes, loss=losses)


def fit_joint_power_law(n: ArrayLike, p: ArrayLike, loss: ArrayLike) -> JointPowerLaw:
    """Fits L(n, p) = L_inf + K n^-alpha + C p^-beta to losses measured at n examples and p parameters, say.

    n, p, loss : 1-d, of one length, at least 7 points, 4 different n and 4 different p or more; finite and above 0. n
        and p must vary independently: along a line log p = a + b log n the two terms are one.

    Method, standard errors and refusals as in `fit_power_law`, beta as alpha. The law of Hoffmann et al. (2022).
    """
    sizes, parameters, losses = _data(7, n=n, p=p, loss=loss)
    found = _fit([("n", sizes, "K", "alpha"), ("p", parameters, "C", "beta")], losses)
    return JointPowerLaw(**found, n=sizes, p=parameters, loss=losses)


def least_squares_line(x: ArrayLike, y: ArrayLike) -> Line:
    """The line y = a x + b of least squares in closed form: a = cov(x, y)/var(x), b = mean(y) - a mean(x).

    x, y : 1-d, of one length, at least 3 finite points, x not all equal.

    With s^2 = (sum of squared residuals) / (m - 2) and S = sum (x - mean(x))^2, the standard error of a is s / sqrt(S)
    and that of b is s sqrt(1/m + mean(x)^2 / S).
    """
    x, y = _data(3, positive=False, x=x, y=y)
    if x.min() == x.max():
        raise ValueError(f"every x is {x[0]:g}: a line needs at least two different x")
    with np.errstate(over="ignore", invalid="ignore"):
        dx, dy = x - x.mean(), y - y.mean()
        unit = np.abs(dx).max()  # so that squares neither overflow nor vanish
        dx = dx / unit
        spread = float(dx @ dx)
        slope = float(dx @ dy) / spread
        residual = dy - slope * dx
        s = math.sqrt(float(residual @ residual) / (len(x) - 2))
        a, mean = slope / unit, x.mean() / unit
        line = Line(
            float(a),
            float(y.mean() - slope * mean),
            float(s / math.sqrt(spread) / unit),
            float(s * np.sqrt(1 / len(x) + mean * mean / spread)),
        )
    if not np.isfinite(line).all():
        raise ValueError("x and y are too large: their squares overflow float64; divide them by a constant")
    return line


def _fit(variables: list[tuple[str, Array, str, str]], loss: Array) -> dict[str, Any]:
    """The fields of a fit by name, of a law with one term for each (variable, its values, its factor, its power)."""
    try:
        from scipy.special import stdtrit
    except ImportError as e:
        raise ImportError(f"fitting a scaling law needs SciPy: pip install 'fastopt[scaling]' ({e})") from None
    for name, values, _, _ in variables:
        if len(np.unique(values)) < 4:
            _refuse("L_inf", f"{len(np.unique(values))} different {name}, of 4 that it takes", name)
    logs = np.stack([np.log(values) for _, values, _, _ in variables])
    centres = logs.mean(axis=1)
    offsets = logs - centres[:, None]
    if np.linalg.matrix_rank(offsets, tol=1e-6 * np.abs(offsets).max()) < len(variables):
        _refuse("L_inf", "log p follows log n along a line, so that their terms are one", "n at fixed p")
    unit = float(np.median(loss))
    law = _Law(offsets, np.log(loss / unit))
    m, q = len(loss), 1 + 2 * len(variables)

    # The first round is nearly least absolute deviations (delta as in Hoffmann et al.), and robust before s is known.
    best = min((law.minimise(x, 1e-3) for x in _starts(offsets, loss / unit)), key=lambda found: float(found.cost))
    for _ in range(3):
        noise = float(np.median(np.sort(np.abs(law.residuals(best.x)))[q:]) / 0.6745)
        noise = max(noise, float(np.finfo(float).eps))
        delta = TUNING * noise
        best = law.minimise(best.x, delta)

    x, r = best.x, law.residuals(best.x)
    inside = float(np.mean(np.abs(r) <= delta))
    psi = np.clip(r, -delta, delta)
    variance = float(psi @ psi) / (m - q) / inside**2
    covariance = (1 + q / m * (1 - inside) / inside) ** 2 * variance * _inverse_square(law.jacobian(x))
    errors = np.sqrt(np.diag(covariance))
    t = float(stdtrit(m - q, (1 + CONFIDENCE) / 2))
    for i, (name, _, _, power) in enumerate(variables):
        value, error = x[2 + 2 * i], t * errors[2 + 2 * i]
        if not error < value:
            _refuse(power, f"the 95% interval of {power}, {value:.3g} ± {error:.2g}, reaches 0", name)
    half = float(np.exp(r + law.target).min()) / 2
    worse = t**2 * variance * inside / 2
    if all(law.minimise(np.array([floor, *x[1:]]), delta, held=1).cost - best.cost <= worse for floor in (0, half)):
        _refuse("L_inf", f"0 fits as well as half the smallest loss, {half * unit:.3g}, and {x[0] * unit:.3g}")

    fields = {"L_inf": x[0] * unit, "L_inf_stderr": errors[0] * unit, "noise": noise}
    for k, centre, (_, _, factor, power) in zip(range(1, q, 2), centres, variables, strict=True):
        to_log_factor = np.array([1.0, centre])  # log factor = log term + power * centre, and its error by the same map
        fields[factor] = unit * math.exp(x[k] + x[k + 1] * centre)
        variance = to_log_factor @ covariance[k : k + 2, k : k + 2] @ to_log_factor
        fields[f"{factor}_stderr"] = fields[factor] * math.sqrt(variance)
        fields[power], fields[f"{power}_stderr"] = x[k + 1], errors[k + 1]
    return {name: float(value) for name, value in fields.items()}


class _Law:
    """The law as a function of x = (L_inf, log of the term at the geometric mean of its variable, power, ...).

    These are far less correlated than L_inf, K and alpha.
    """

    def __init__(self, offsets: Array, target: Array) -> None:
        """offsets : logarithms of the variables from their means, a row each. target : the logarithms of the losses."""
        self.offsets = offsets
        self.target = target

    def terms(self, x: Array) -> Array:
        return np.asarray(np.exp(np.clip(x[1::2, None] - x[2::2, None] * self.offsets, -600, 600)))

    def residuals(self, x: Array) -> Array:
        return np.asarray(np.log(x[0] + self.terms(x).sum(axis=0)) - self.target)

    def jacobian(self, x: Array) -> Array:
        each = self.terms(x)
        columns = np.empty((len(self.target), len(x)))
        columns[:, 0] = 1
        columns[:, 1::2] = each.T
        columns[:, 2::2] = (-each * self.offsets).T
        return np.asarray(columns / (x[0] + each.sum(axis=0))[:, None])

    def minimise(self, x: Array, delta: float, held: int = 0) -> Any:
        """SciPy's result, from x, for all but the first `held` parameters."""
        from scipy.optimize import least_squares

        lower = np.full(len(x), -np.inf)
        lower[0] = lower[2::2] = 0
        return least_squares(
            lambda free: self.residuals(np.concatenate([x[:held], free])),
            x[held:],
            lambda free: self.jacobian(np.concatenate([x[:held], free]))[:, held:],
            (lower[held:], np.inf),
            loss="huber",
            f_scale=delta,
            x_scale="jac",
            xtol=1e-12,
            ftol=1e-14,
            gtol=1e-14,
            max_nfev=500,
        )


def _starts(offsets: Array, loss: Array) -> list[Array]:
    """Four guesses of L_inf; for each, a plane through the logarithms of what is above it, shared among the terms."""
    starts = []
    for floor in (0.0, 0.5, 0.9, 0.99):
        above = np.log(loss - floor * loss.min())
        plane = np.linalg.lstsq(np.vstack([np.ones(len(loss)), -offsets]).T, above, rcond=None)[0]
        x = np.empty(1 + 2 * len(offsets))
        x[0] = floor * loss.min()
        x[1::2] = plane[0] - math.log(len(offsets))
        x[2::2] = np.maximum(plane[1:] * len(offsets), 0.01)
        starts.append(x)
    return starts


def _inverse_square(jacobian: Array) -> Array:
    """(J^T J)^-1; infinite where the data leave a direction open."""
    scale = np.abs(jacobian).max(axis=0)
    if scale.min() == 0:
        return np.full((len(scale), len(scale)), np.inf)
    _, singular, directions = np.linalg.svd(jacobian / scale, full_matrices=False)
    if singular[-1] < 1e-12 * singular[0]:
        return np.full((len(scale), len(scale)), np.inf)
    half = directions.T / singular / scale[:, None]
    return np.asarray(half @ half.T)


def _refuse(what: str, why: str, name: str = "n") -> NoReturn:
    raise ValueError(
        f"the data do not determine {what}: {why}. Measure more points, over a wider range of {name}, "
        "or with less noise (the mean of several seeds)"
    )


def _data(least: int, positive: bool = True, **arrays: ArrayLike) -> list[Array]:
    """Arguments as float64 arrays of one length."""
    found = [_positive(name, a) if positive else _finite(name, a) for name, a in arrays.items()]
    for name, a in zip(arrays, found, strict=True):
        if a.ndim != 1:
            raise ValueError(f"{name} has shape {a.shape}: expected a list of numbers (1-d)")
    lengths = ", ".join(f"{len(a)} {name}" for name, a in zip(arrays, found, strict=True))
    if len({len(a) for a in found}) > 1:
        raise ValueError(f"{lengths}: expected one of each for every point")
    if len(found[0]) < least:
        raise ValueError(f"{len(found[0])} points: expected at least {least}")
    return found


def _finite(name: str, a: ArrayLike, shape: tuple[int, ...] | None = None) -> Array:
    found = doubles(name, a)
    if shape is not None and found.shape != shape:
        raise ValueError(f"{name} has shape {found.shape}: expected a number")
    return found


def _positive(name: str, a: ArrayLike, shape: tuple[int, ...] | None = None) -> Array:
    found = _finite(name, a, shape)
    if not (found > 0).all():
        raise ValueError(f"{name} is {found[found <= 0][0]:g}{_at(found <= 0)}: expected numbers above 0")
    return found


def _at(where: Array) -> str:
    index = tuple(int(i) for i in np.argwhere(where)[0])
    return f" at index {index[0] if len(index) == 1 else index}" if index else ""


def _term(factor: float, power: float, a: Array) -> Any:
    found = factor * a**-power
    return found if found.ndim else float(found)


def _describe(law: str, fit: Any, names: tuple[str, ...]) -> str:
    found = [f"{name} = {getattr(fit, name):.4g} ± {getattr(fit, name + '_stderr'):.2g}" for name in names]
    return f"{law}: {', '.join(found)}; noise {fit.noise:.2%}, {len(fit.loss)} points"


_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"


def _axes() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError(f"a picture needs matplotlib: pip install 'fastopt[scaling]' ({e})") from None
    return Figure(figsize=(6.4, 4.4), layout="constrained").add_subplot()
