"""Step-size controllers: how long the next step should be, from the errors of the last ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdekit.errors import InterfaceError, OptionError, suggest

__all__ = ["CONTROLLERS", "Controller", "as_controller"]


@dataclass(frozen=True)
class Controller:
    """A digital filter for step sizes.

    With the error estimates e_n <= 1 of accepted steps, in units of the tolerance, which fall as h^k, and the ratios
    r_n = h_n / h_{n-1}, the next step is

        h_{n+1} = h_n safety (1/e_n)^{b1/k} (1/e_{n-1})^{b2/k} (1/e_{n-2})^{b3/k} r_n^{-a2} r_{n-1}^{-a3},

    the change held within [least, most]. After a rejected step it is the elementary h safety e^{-1/k}, and the step
    after that does not grow. (Soederlind, ACM Trans. Math. Software 29, 2003.)

    Args:
        beta: b1, b2, b3.
        alpha: a2, a3.
        safety: in (0, 1).
        least, most: the largest changes of a step, least < 1 < most.

    Raises:
        OptionError: for numbers that could not control a step.
    """

    beta: tuple[float, float, float] = (1.0, 0.0, 0.0)
    alpha: tuple[float, float] = (0.0, 0.0)
    safety: float = 0.9
    least: float = 0.2
    most: float = 10.0

    def __post_init__(self) -> None:
        for name, values, count in (("beta", self.beta, 3), ("alpha", self.alpha, 2)):
            if not isinstance(values, tuple) or len(values) != count or not all(map(_is_number, values)):
                got, expected = repr(values), f"{count} finite numbers"
                raise OptionError(f"Controller({name}=)", got=got, expected=expected, fix="Pass a tuple of floats.")
        if sum(self.beta) <= 0:
            raise OptionError(
                "Controller(beta=)",
                got=f"{self.beta}, whose sum is not positive",
                expected="a positive sum, without which the error is not driven to the tolerance",
                fix="Use one of: " + ", ".join(CONTROLLERS) + ".",
            )
        sizes = (self.safety, self.least, self.most)
        if not all(map(_is_number, sizes)) or not (0 < self.safety < 1 and 0 < self.least < 1 < self.most):
            raise OptionError(
                "Controller(safety=, least=, most=)",
                got=f"{self.safety!r}, {self.least!r}, {self.most!r}",
                expected="0 < safety < 1 and 0 < least < 1 < most",
                fix="The defaults are 0.9, 0.2 and 10.",
            )

    @classmethod
    def pid(cls, proportional: float, integral: float, derivative: float = 0.0) -> Controller:
        """The filter with b1 = kP + kI + kD, b2 = -(kP + 2 kD), b3 = kD."""
        for name, value in (("proportional", proportional), ("integral", integral), ("derivative", derivative)):
            if not _is_number(value):
                raise OptionError(name, got=repr(value), expected="a finite number", fix="Pass a float.")
        kp, ki, kd = float(proportional), float(integral), float(derivative)
        return cls((kp + ki + kd, -(kp + 2 * kd), kd))

    @property
    def remembers(self) -> bool:
        """Whether the next step depends on more than the last one."""
        return any(self.beta[1:]) or any(self.alpha)

    def after_rejection(self, error: np.ndarray, order: int) -> np.ndarray:
        """The factor, < 1, of a step that is repeated; error (n,), > 1."""
        return np.maximum(self.safety * error ** (-1.0 / order), self.least)

    def after_acceptance(
        self, error: np.ndarray, step: np.ndarray, history: np.ndarray | None, order: int
    ) -> np.ndarray:
        """The factor of the next step; error (n,), <= 1, and step (n,), > 0. Samples are independent.

        Args:
            history: (4, n): the logarithms of the errors of the two steps before, and their lengths, 0 where there was
                none; not read by a filter without memory.
        """
        # By logarithms: a power costs as much as two of them.
        growth = _logarithm(error)
        growth *= -self.beta[0] / order
        if history is not None and self.remembers:
            error_1, error_2, step_1, step_2 = history
            for beta, past in ((self.beta[1], error_1), (self.beta[2], error_2)):
                if beta:
                    growth += past * (-beta / order)
            factor = np.exp(growth, out=growth)
            for alpha, last, before in ((self.alpha[0], step, step_1), (self.alpha[1], step_1, step_2)):
                if alpha:
                    factor *= np.divide(last, before, out=np.ones_like(step), where=before > 0) ** -alpha
        else:
            factor = np.exp(growth, out=growth)
        factor *= self.safety
        np.maximum(factor, self.least, out=factor)
        return np.minimum(factor, self.most, out=factor)

    def remember(self, error: np.ndarray, step: np.ndarray, history: np.ndarray, which: np.ndarray | None) -> None:
        """Write the step into the history, for the samples of which (n,) is true; None for all."""
        where: Any = True if which is None else which
        if self.beta[2]:
            np.copyto(history[1], history[0], where=where)
        np.copyto(history[0], _logarithm(error), where=where)
        if any(self.alpha):
            np.copyto(history[3], history[2], where=where)
            np.copyto(history[2], step, where=where)

    @staticmethod
    def no_history(count: int) -> np.ndarray:
        """Of samples that have not made a step."""
        return np.zeros((4, count))


_FLOOR = 1e-10  # of an error: a step without any is no reason for one without bound


def _logarithm(error: np.ndarray) -> np.ndarray:
    out = np.maximum(error, _FLOOR)
    return np.log(out, out=out)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


CONTROLLERS: dict[str, Controller] = {
    "cautious": Controller((0.85, -0.2, 0.0), safety=0.8),
    "i": Controller(),
    "pi": Controller((3 / 5, -1 / 5, 0.0)),
    "dopri5": Controller((0.85, -0.2, 0.0)),
    "pi33": Controller((2 / 3, -1 / 3, 0.0)),
    "pid": Controller((1 / 18, 1 / 9, 1 / 18)),
    "h211pi": Controller((1 / 6, 1 / 6, 0.0)),
    "h211b": Controller((1 / 4, 1 / 4, 0.0), (1 / 4, 0.0)),
}
"""By name: the elementary controller, Soederlind's PI.4.2, the one of Hairer's code dopri5 (Hairer, Norsett and Wanner,
Solving Ordinary Differential Equations II, IV.2, with beta = 0.04), and Soederlind's PI.3.3, H312PID, H211PI and H211b
with b = 4. Hairer's with a safety of 0.8, "cautious", rejects less and takes fewest calls for an error:
benchmarks/controllers.py prints what each takes."""


def as_controller(controller: str | Controller) -> Controller:
    """A controller by name, or as it is. Raises OptionError or InterfaceError."""
    if isinstance(controller, Controller):
        return controller
    if not isinstance(controller, str):
        got = type(controller).__name__
        fix = "Use sdekit.solvers.Controller(...) or a name: " + ", ".join(CONTROLLERS) + "."
        raise InterfaceError("controller", got=got, expected="a name or a Controller", fix=fix)
    if controller not in CONTROLLERS:
        expected = ", ".join(CONTROLLERS)
        raise OptionError("controller", got=repr(controller), expected=expected, fix=suggest(controller, CONTROLLERS))
    return CONTROLLERS[controller]
