"""The rows of a plan. One row is one model call.

    base, point = kick(base)                                    optional: noise that enters before the call
    E      = p * data(t, point) + q * noise(t, point)           what the method extrapolates
    base', point' = combinations of (base; E of this row and of earlier rows; this step's noises)

`base` is the committed state, `point` is where the model is called next. A combination that is None leaves base as it
is, or makes point equal to the new base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sdekit.affine import Level
from sdekit.plan.coefficients import Coefficient

__all__ = ["DATA", "NOISE", "Combination", "Row", "combine", "commit", "commit_history", "outputs_of", "stage"]

DATA = (1.0, 0.0)
NOISE = (0.0, 1.0)


@dataclass(frozen=True, init=False)
class Combination:
    """base * x + sum outputs_j E_j + sum noises_k z_k.

    Args:
        base: the coefficient of the committed state.
        outputs: pairs (age, coefficient); age 0 is this row's E, 1 the previous row's.
        noises: pairs (stream, coefficient); the step's noise of that stream, a standard normal.
    """

    base: Coefficient
    outputs: tuple[tuple[int, Coefficient], ...] = ()
    noises: tuple[tuple[int, Coefficient], ...] = ()

    def __init__(
        self,
        base: Coefficient,
        outputs: tuple[tuple[int, Coefficient], ...] = (),
        noises: tuple[tuple[int, Coefficient], ...] = (),
    ) -> None:
        # The one that is generated for a frozen class sets each field by a call: a tenth of the time of planning.
        fields = self.__dict__
        fields["base"], fields["outputs"], fields["noises"] = base, outputs, noises

    def coefficients(self) -> Iterator[Coefficient]:
        """All of them, base first."""
        yield self.base
        for _, c in (*self.outputs, *self.noises):
            yield c


@dataclass(frozen=True, init=False)
class Row:
    """One model call at time t and what is made of it.

    Args:
        t, alpha, sigma: where the model is called.
        weights: (p, q) with E = p data + q noise.
        base: the new committed state, or None to keep it.
        point: the next point, or None for the new base.
        step: the index of the step that this row belongs to; a step's last row leaves `point` at the next grid time.
        kick: a change of base before the call, a combination of base and noises only.
    """

    t: float
    alpha: float
    sigma: float
    weights: tuple[float, float]
    base: Combination | None
    point: Combination | None
    step: int
    kick: Combination | None = None

    def __init__(
        self,
        t: float,
        alpha: float,
        sigma: float,
        weights: tuple[float, float],
        base: Combination | None,
        point: Combination | None,
        step: int,
        kick: Combination | None = None,
    ) -> None:
        fields = self.__dict__  # as for a combination
        fields["t"], fields["alpha"], fields["sigma"], fields["weights"] = t, alpha, sigma, weights
        fields["base"], fields["point"], fields["step"], fields["kick"] = base, point, step, kick

    def combinations(self) -> Iterator[Combination]:
        """Those of kick, base and point that are not None."""
        return (c for c in (self.kick, self.base, self.point) if c is not None)


def outputs_of(ages: Sequence[int], weights: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """The outputs of a combination, without zero terms: a weight for each of the ages, which ascend, or the first."""
    pairs = zip(ages, weights)  # noqa: B905  # to say that lengths may differ costs half as much again
    return tuple([(age, w) for age, w in pairs if w != 0.0]) if 0.0 in weights else tuple(pairs)


def commit_history(
    step: int,
    at: Level,
    weights: tuple[float, float],
    base: float,
    ages: Sequence[int],
    outputs: Sequence[float],
    std: float,
) -> Row:
    """As `commit`, of outputs by their ages as for `outputs_of` and one noise: what planning makes most of."""
    combination = Combination(base, outputs_of(ages, outputs), ((0, std),) if std != 0.0 else ())
    return Row(at.t, at.alpha, at.sigma, weights, combination, None, step)


def combine(
    base: Coefficient,
    outputs: Mapping[int, Coefficient] | None = None,
    noises: Mapping[int, Coefficient] | None = None,
) -> Combination:
    """A combination without its zero terms."""
    return Combination(base, _terms(outputs), _terms(noises))


def _terms(terms: Mapping[int, Coefficient] | None) -> tuple[tuple[int, Coefficient], ...]:
    if not terms:
        return ()
    items = terms.items() if len(terms) == 1 else sorted(terms.items())
    # No comparison with zero for a direction or a block: they are kept whatever they hold.
    return tuple([(k, c) for k, c in items if c.__class__ is not float or c != 0.0])


def commit(
    step: int,
    at: Level,
    weights: tuple[float, float],
    base: Coefficient,
    outputs: Mapping[int, Coefficient],
    noises: Mapping[int, Coefficient] | None = None,
    *,
    kick: Combination | None = None,
) -> Row:
    """A row that ends its step: base and point move together."""
    return Row(at.t, at.alpha, at.sigma, weights, combine(base, outputs, noises), None, step, kick)


def stage(
    step: int,
    at: Level,
    weights: tuple[float, float],
    base: Coefficient,
    outputs: Mapping[int, Coefficient],
    noises: Mapping[int, Coefficient] | None = None,
    *,
    kick: Combination | None = None,
) -> Row:
    """A row inside a step: base stays, point moves to the next stage."""
    return Row(at.t, at.alpha, at.sigma, weights, None, combine(base, outputs, noises), step, kick)
