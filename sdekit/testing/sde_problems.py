"""SDEs of every noise class on which orders of convergence are measured, path by path.

Most have a closed form, as a function of the path: see `sdekit.testing.sde_images`. For the others the reference is the
ordinary equation dx = f dt + g dP along a piecewise linear path P: three pieces in each cell of a fine grid, which have
the cell's W and H and the conditional mean, given these, of the integral of B^2 (Foster, dos Reis and Strange,
arXiv:2210.17543). With h the length of a cell, W / 2 + H = a + c / 2 and (W / 2 + H)^2 + c^2 / 12 = W^2 / 3 + W H +
6/5 H^2 + h / 15 give c^2 = W^2 + 12/5 H^2 + 4/5 h. Where the noise commutes it is of strong order 3/2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from sdekit.calculus import LocalNoise
from sdekit.errors import InterfaceError, OptionError, UnknownNameError, suggest
from sdekit.noise_class import noise_classes
from sdekit.processes import VP
from sdekit.reverse import convert_to
from sdekit.sde import SDE, make_sde
from sdekit.shapes import finite_number, time_like
from sdekit.targets import GaussianMixture
from sdekit.testing.nonlinear import exact_problems
from sdekit.testing.problems import places
from sdekit.testing.sde_images import Base, Coordinatewise, Heisenberg, ImageMap, ImageSDE, Linear, Sheared, Twisted
from sdekit.testing.sde_path import SampledPath
from sdekit.times import check_count

__all__ = ["SDEProblem", "sde_problems"]

Solution = Callable[[Tensor, SampledPath], Tensor]


@dataclass(frozen=True, eq=False)
class SDEProblem:
    """An SDE, a time interval run in one direction, and starts.

    Args:
        name: for tables.
        sde: in either calculus.
        times: the first and the last time, in the direction in which the SDE is solved.
        start: n -> (n, *shape) float64 starts, the same at each call.
        exact: the solution (n, *shape) at the last time, as a function of the starts and of a `SampledPath` from the
            first time to the last; None where there is none in closed form.
        twin: the same SDE in the other calculus; by default it is derived.

    Raises:
        InterfaceError: for what is not an SDE.
        OptionError: for equal times.
    """

    name: str
    sde: SDE
    times: tuple[float, float]
    start: Callable[[int], Tensor]
    exact: Solution | None = None
    twin: SDE | None = None

    def __post_init__(self) -> None:
        for argument, value in (("sde", self.sde), ("twin", self.twin)):
            if not isinstance(value, SDE) and not (argument == "twin" and value is None):
                raise InterfaceError(argument, got=type(value).__name__, expected="an SDE", fix="Pass one.")
        if finite_number("times", self.times[0]) == finite_number("times", self.times[1]):
            raise OptionError("times", got=repr(self.times), expected="two different times", fix="Change one.")

    @property
    def down(self) -> bool:
        """Whether time runs downwards."""
        return self.times[1] < self.times[0]

    @cached_property
    def motions(self) -> int:
        """How many Brownian motions drive one sample."""
        x = self.start(1)
        if self.sde.noise_type != "general":
            return math.prod(x.shape[1:])
        return LocalNoise(self.sde, time_like(self.times[0], x), x).g.shape[-1]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The noise classes of the SDE, the most special first."""
        return noise_classes(self.sde, self.start(1), self.motions)

    @property
    def noise(self) -> str:
        """The most special noise class."""
        return self.classes[0]

    def form(self, calculus: str) -> SDE:
        """The SDE in a calculus, "ito" or "stratonovich", for its direction of time."""
        if self.sde.additive or self.sde.sde_type == calculus:
            return self.sde
        return self.twin or convert_to(self.sde, calculus, self.down)

    def grid(self, family: str, steps: int, seed: int = 0) -> list[float]:
        """steps + 1 times from the first to the last.

        Args:
            family: "uniform"; "random", a smooth random map of it; "irregular", independent random steps.
            steps: the number of steps.
            seed: for the random ones.

        Raises:
            UnknownNameError: for an unknown family, with near names.
            OptionError: for fewer than one step.
        """
        check_count("steps", steps)
        first, last = self.times
        if family == "uniform":
            parts = [k / steps for k in range(steps + 1)]
        elif family in ("random", "irregular"):
            parts = places(family, steps, seed)
        else:
            known = ("irregular", "random", "uniform")
            expected = "a family of grids that needs no process"
            raise UnknownNameError("grid", got=repr(family), expected=expected, fix=suggest(str(family), known))
        return [first, *(first + (last - first) * u for u in parts[1:-1]), last]

    def solution(self, x: Tensor, path: SampledPath) -> Tensor:
        """The end of each path: the closed form, or the reference where there is none."""
        return along_pieces(self.form("stratonovich"), x, path) if self.exact is None else self.exact(x, path)


def along_pieces(sde: SDE, x: Tensor, path: SampledPath) -> Tensor:
    """The end of dx = f dt + g dP for a Stratonovich SDE, P piecewise linear.

    In each cell it goes by a, then by c while all of the cell's time passes, then by W - a - c. Each piece is one step
    of the classical Runge-Kutta method.
    """
    w, h, _ = path.areas
    spans = path.lengths[:, None, None]
    c = torch.where(w < 0, -1.0, 1.0) * torch.sqrt(w**2 + 2.4 * h**2 + 0.8 * spans)
    a = w / 2 + h - c / 2
    edges = path.edges.tolist()
    for i, (t, u) in enumerate(itertools.pairwise(edges)):
        for start, end, kick in ((t, t, a[i]), (t, u, c[i]), (u, u, w[i] - a[i] - c[i])):
            x = _piece(sde, start, end, x, kick)
    return x


def _piece(sde: SDE, t: float, u: float, x: Tensor, kick: Tensor) -> Tensor:
    """From t to u along a straight piece of the path."""

    def speed(part: float, x: Tensor) -> Tensor:
        now = x.new_tensor(t + part * (u - t))
        g = sde.diffusion(now, x)
        noise = torch.einsum("b...m,bm->b...", g, kick) if sde.noise_type == "general" else g * kick.view(x.shape)
        return noise if u == t else noise + (u - t) * sde.drift(now, x)

    k1 = speed(0.0, x)
    if sde.additive and u == t:
        return x + k1
    k2 = speed(0.5, x + k1 / 2)
    k3 = speed(0.5, x + k2 / 2)
    return x + (k1 + 2 * (k2 + k3) + speed(1.0, x + k3)) / 6


def _swing(t: Tensor) -> Tensor:
    return torch.stack([torch.cos(2 * t), 0.3 * torch.sin(t)], -1)


def _matrix(*rows: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    """These numbers times 1 + 0.3 sin 2 t."""
    return lambda t: torch.tensor(rows, dtype=torch.float64) * (1 + 0.3 * torch.sin(2 * t))[..., None, None]


def _constant(*values: Any) -> Callable[[Tensor], Tensor]:
    whole = torch.tensor(values, dtype=torch.float64)
    return lambda t: whole.expand(*t.shape, *whole.shape)


_SINH = Coordinatewise(torch.sinh, torch.asinh, torch.cosh, torch.sinh)
_ASINH = Coordinatewise(torch.asinh, torch.sinh, lambda y: torch.rsqrt(1 + y * y), lambda y: -y / (1 + y * y) ** 1.5)
_EXP = Coordinatewise(torch.exp, torch.log, torch.exp, torch.exp)
_SAME = Coordinatewise(torch.clone, torch.clone, torch.ones_like, torch.zeros_like)


def _image(
    name: str, base: Base, image: ImageMap, noise_type: Literal["diagonal", "general"], down: bool, **declared: bool
) -> SDEProblem:
    size = len(base.matrix) if isinstance(base, Linear) else 3

    def start(n: int) -> Tensor:
        return image.forward(_normals(n, size))

    def exact(x: Tensor, path: SampledPath) -> Tensor:
        return image.forward(base.solution(image.inverse(x), path))

    sde, twin = (ImageSDE(base, image, noise_type, c, down, **declared) for c in ("ito", "stratonovich"))
    return SDEProblem(name, sde, _between(down), start, exact, twin)


def _between(down: bool) -> tuple[float, float]:
    return (1.2, 0.3) if down else (0.3, 1.2)


def _normals(n: int, size: int) -> Tensor:
    z = torch.randn(n, size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return 0.4 + 0.3 * z


def _additive(name: str, down: bool) -> SDEProblem:
    """Two coupled coordinates, and a matrix that changes in time. A linear drift would show order 2 for 3/2."""

    def drift(t: Tensor, x: Tensor) -> Tensor:
        (u, v), s = x.unbind(1), t.reshape(-1)
        return torch.stack([torch.sin(3 * v) - u + torch.cos(s), torch.sin(2 * u + s) - v], 1)

    def diffusion(t: Tensor, x: Tensor) -> Tensor:
        s = t.reshape(-1, 1)
        rows = x.new_tensor([[0.8, 0.5], [-0.4, 0.9]]) * torch.stack([1 + 0.5 * torch.sin(3 * s), torch.cos(s)], -1)
        return rows.to(x.dtype).expand(len(x), 2, 2)

    sde = make_sde(drift, diffusion, "general", additive=True)
    return SDEProblem(name, sde, _between(down), lambda n: _normals(n, 2))


def _sine(name: str, down: bool) -> SDEProblem:
    """dx = -sin(3 x) dt + (0.6 + 0.4 sin(2 x + t)) dW in each of two coordinates."""
    half = -0.5 if down else 0.5

    def drift(t: Tensor, x: Tensor) -> Tensor:
        return -torch.sin(3 * x)

    def diffusion(t: Tensor, x: Tensor) -> Tensor:
        return 0.6 + 0.4 * torch.sin(2 * x + t)

    def corrected(t: Tensor, x: Tensor) -> Tensor:
        return drift(t, x) - half * diffusion(t, x) * (0.8 * torch.cos(2 * x + t))

    sde, twin = make_sde(drift, diffusion), make_sde(corrected, diffusion, sde_type="stratonovich")
    return SDEProblem(name, sde, _between(down), lambda n: _normals(n, 2), twin=twin)


def _reversed_mixtures() -> dict[str, SDEProblem]:
    """Reverse diffusions of Gaussian mixtures by their exact scores: of VP, and of its image under sinh."""
    target = GaussianMixture([0.4, 0.6], [[-0.8, 0.3], [0.7, -0.5]], [[0.15, 0.3], [0.25, 0.1]])
    model = target.under(VP())
    plain = VP().reverse(model)
    bent = exact_problems()["sinh"]
    back = bent.sde.reverse(lambda t, x: bent.score(t, x))
    return {
        "reverse mixture": SDEProblem(
            "reverse mixture",
            # As a stepper sees it: plans are another route.
            make_sde(plain.drift, plain.diffusion, "scalar", additive=True),  # type: ignore[union-attr]
            (0.6, 0.2),
            lambda n: model.sample(0.6, n, 3),
        ),
        "reverse mixture, sinh": SDEProblem(
            "reverse mixture, sinh",
            back,  # type: ignore[arg-type]
            (0.8, 0.3),
            lambda n: bent.sample(0.8, n, 3),
        ),
    }


def _both_ways() -> dict[str, Callable[[str, bool], SDEProblem]]:
    """Problems by name, as functions of their name and of whether time runs downwards."""
    coupled, apart = ((-0.5, 0.4), (0.8, -1.0)), ((-0.5, 0.0), (0.0, -1.0))
    one, full = _matrix((1.0,), (0.5,)), _matrix((0.8, 0.4), (-0.5, 0.6))
    diagonal = _matrix((1.0, 0.0), (0.0, 0.8))
    still = Linear(((0.0, 0.0), (0.0, 0.0)), _constant(0.2, 0.3), _constant((0.6, 0.0), (0.0, 0.5)))
    shifted = Linear(((0.0,),), _constant(1.0), _constant((1.0,)))
    return {
        "additive": _additive,
        "scalar": lambda n, d: _image(n, Linear(coupled, _swing, one), Sheared(), "general", d),
        "diagonal": lambda n, d: _image(n, Linear(apart, _swing, diagonal), _ASINH, "diagonal", d),
        "commutative": lambda n, d: _image(n, Linear(coupled, _swing, full), Sheared(), "general", d, commutative=True),
        "general": lambda n, d: _image(n, Heisenberg(), Twisted(), "general", d),
        "sine": _sine,
        "ornstein-uhlenbeck": lambda n, d: _image(
            n, Linear(apart, _swing, diagonal), _SAME, "diagonal", d, additive=True
        ),
        "geometric": lambda n, d: _image(n, still, _EXP, "diagonal", d),
        "sinh": lambda n, d: _image(n, shifted, _SINH, "diagonal", d),
    }


def sde_problems() -> dict[str, SDEProblem]:
    """The catalogue, by name.

    "additive", "scalar", "diagonal", "commutative" and "general" are what a declared order on that noise class is held
    against: nonlinear and non-autonomous, each of that class and no more special one. All but "additive" have closed
    forms, as do "ornstein-uhlenbeck", "geometric" (Brownian motion) and "sinh", x = sinh(W + t + a). "sine" is dx =
    -sin(3 x) dt + (0.6 + 0.4 sin(2 x + t)) dW. Each of these runs upwards, and as "..., down" downwards. "reverse
    mixture" and "reverse mixture, sinh" are the reverse diffusions of Gaussian mixtures, with additive and with
    diagonal noise.
    """
    return dict(_catalogue())


@cache
def _catalogue() -> dict[str, SDEProblem]:
    makers = _both_ways()
    found = {name: make(name, False) for name, make in makers.items()}
    found |= {f"{name}, down": make(f"{name}, down", True) for name, make in makers.items()}
    return found | _reversed_mixtures()
