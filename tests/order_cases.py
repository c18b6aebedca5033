"""Which solvers the order tests measure, with which options and stochasticities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import sdekit
from sdekit.testing import ObservedOrder, OrderProblem, observed_order, order_problems

__all__ = ["CASES", "DETERMINISTIC", "FALLING", "LIMITED", "STRONG", "WEAK", "OrderCase"]


_STEPPERS = (
    *("milstein", "milstein_stratonovich", "euler_heun", "stochastic_heun", "stochastic_midpoint"),
    *("reversible_heun", "sea", "slowrk", "spark", "shark_general", "log_ode"),
)
"""Methods for SDEs that make no plans."""
_WEAK_TWO = ("platen_weak2", "dri1", "ri5")
_SPECIAL = (  # for drifts of a kind
    *("exponential_euler_maruyama", "tamed_euler_maruyama"),
    *("implicit_euler_maruyama", "theta_maruyama"),
)
_SRK = ("sra2", "sra3", "sosra", "sosra2", "sriw1", "sriw2", "sosri2")
_AREA = ("sra1", "shark", "exp_sra")  # those that use the area of the path


def FALLING(t: float) -> float:
    """A stochasticity that varies over the grid of every process."""
    return 0.3 + t / (1 + t)


ROTATED = (
    "preconditioned_adams",
    *("dpm_solver_2", "dpm_solver_3", "dpmpp_2s", "dpmpp_3m", "unipc"),
    *("euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"),
    *("lms", "deis", "ipndm", "ipndm_v", "pndm", "plms", "gradient_estimation", "heunpp2"),
    *("sa_solver", "seeds_2", "seeds_3", "er_sde", "dpm_2_ancestral"),
    *("res_2s", "exp_heun_2_x0", "etdrk3", "res_3s", "etdrk4", "hochbruck_ostermann"),
    *("dpmpp_3s", "dpm_fast", "dpm_adaptive"),
)
"""Solvers with many options: what they share with others is measured there on all grids."""


@dataclass(frozen=True)
class OrderCase:
    """A solver, and with what its order is measured."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    kind: str = "deterministic"
    tau: float | Callable[[float], float] | None = None
    steps: tuple[int, ...] | None = None
    on: str | None = None
    """The problem, where the standard one is too easy for a high order to show above rounding. Such a case is measured
    on one family of grids: on the others the slopes meet rounding before they settle. That the order is right is proven
    by rooted trees, in tests/solvers/test_pairs.py."""

    @property
    def solver(self) -> Any:
        return sdekit.solvers.get(self.name, **dict(self.options))

    def observe(
        self, problem: OrderProblem | None = None, grid: str | None = None, steps: tuple[int, ...] | None = None
    ) -> ObservedOrder:
        problem = order_problems()[self.on] if problem is None and self.on is not None else problem
        return observed_order(self.solver, self.kind, problem, grid, steps or self.steps, stochasticity=self.tau)

    @property
    def limited(self) -> bool:
        """Whether something limits it to less than an interior step has, mostly its first or last step."""
        return self.solver.declared.note.startswith("limited by")

    @property
    def rotated(self) -> bool:
        """Whether it is of a solver with many variants, which are measured on one process and family in turn."""
        return self.name in ROTATED

    @property
    def default(self) -> bool:
        """Whether it is the solver that the bare name stands for."""
        return self.solver == type(self.solver)()

    def __str__(self) -> str:
        options = ",".join(f"{k}={v}" for k, v in self.options)
        tau = "" if self.tau is None else f",tau={'function' if callable(self.tau) else self.tau}"
        return f"{self.name}({options}){tau}"


def _case(name: str, kind: str = "deterministic", tau: Any = None, **options: Any) -> OrderCase:
    # Four calls a step settle at few steps; functions of t are slow to plan.
    steps = (10, 20, 40, 80) if name == "rk4" else (20, 40, 80, 160) if callable(tau) else None
    if options.get("churn", 0) > 10:
        steps = (160, 320, 640)  # more than 97 steps, below which gamma is cut at sqrt(2) - 1
    return OrderCase(name, tuple(options.items()), kind, tau, steps)


def _deterministic() -> list[OrderCase]:
    cases = [_case(n, clock=c) for n in ("euler", "midpoint", "heun", "rk4") for c in ("rho", "t")]
    cases += [_case("ralston"), _case("ralston", clock="t"), _case("kutta3"), _case("kutta3", clock="t")]
    cases += [_case(n) for n in (*_STEPPERS, *_SRK)]
    # It evaluates beyond its steps: on other grids, outside the domain of the process.
    cases += [OrderCase("sosri", steps=(40, 80, 160), on="vp")]
    cases += [_case("bosh3", clock=c) for c in ("rho", "t")]
    for name, steps in {"rk45": (40, 80, 160), "tsit5": (40, 80, 160), "dop853": (8, 12, 16, 24)}.items():
        cases += [OrderCase(name, steps=steps, on="sharp")]
    cases += [_case(n) for n in (*_WEAK_TWO, *_SPECIAL)]
    cases += [_case("ddim"), _case("edm_heun"), _case("euler_maruyama", tau=0.0), _case("dpmpp_2m")]
    cases += [_case("dpmpp_2m", second="exact"), _case("dpmpp_2m", final_order=1)]
    for prediction in ("data", "noise"):
        cases += [_case("exp_adams", order=p, prediction=prediction) for p in (1, 2, 3, 4, 5)]
        started = {"prediction": prediction, "starter": "single_step"}
        cases += [_case("exp_adams", order=p, **started) for p in (3, 4, 5)]
        cases += [_case("exp_adams", order=3, final_order=1, **started)]
        cases += [_case("exp_adams", order=4, final_order=2, **started)]
    return cases + _multistep() + _dpm_solvers() + _unipc() + _exponential_runge_kutta() + _preconditioned()


def _dpm_solvers() -> list[OrderCase]:
    cases = [_case(n, **o) for n in ("dpm_solver_2", "dpmpp_2s") for o in ({}, {"second": "exact"}, {"r1": 0.3})]
    cases += [_case("dpmpp_2s", final_order=1), _case("dpm_solver_2", r1=1.0, prediction="data")]
    cases += [_case("dpm_solver_3", third=k, prediction=p) for k in ("line", "parabola") for p in ("noise", "data")]
    cases += [_case("dpm_solver_3"), _case("dpm_solver_3", r2=0.6), _case("dpm_solver_3", r1=0.3, r2=0.8)]
    cases += [_case("dpm_solver_3", final_order=1), _case("dpm_solver_3", final_order=2)]
    cases += [_case("dpm_adaptive"), _case("dpm_adaptive", order=2)]
    cases += [_case("dpmpp_3m"), _case("dpmpp_3m", starter="single_step")]
    cases += [_case("dpmpp_3m", as_released=True, starter="single_step"), _case("dpmpp_3m", final_order=1)]
    cases += [_case("dpmpp_3m_sde", eta=0.0), _case("seeds_2", tau=0.0), _case("seeds_3", tau=0.0)]
    cases += [_case("seeds_2", tau=0.0, r=1.0, second="exact"), _case("res_multistep_ancestral", eta=0.0)]
    cases += [_case("dpm_2_ancestral", eta=0.0), _case("er_sde", noise_scale="ode")]
    cases += [_case("er_sde", noise_scale="ode", order=p) for p in (1, 2)]
    # With more steps the terms of order 3, of the first steps, and of order 4 nearly cancel on some grids.
    cases += [OrderCase("sa_solver", steps=(20, 40, 80, 160))]
    cases += [_case("sa_solver", mode="pece"), _case("sa_solver", prediction="noise")]
    cases += [_case("sa_solver", predictor_order=p, corrector_order=q) for p, q in ((1, 0), (1, 2), (2, 3), (3, 0))]
    cases += [_case(n, eta=0.0) for n in ("euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde")]
    cases += [_case(n, tau=0.0) for n in _AREA]
    return cases


def _exponential_runge_kutta() -> list[OrderCase]:
    cases = [_case(n) for n in ("res_2s", "exp_heun_2_x0", "etdrk3", "res_3s", "etdrk4", "hochbruck_ostermann")]
    cases += [_case("res_2s", prediction="noise"), _case("exp_heun_2_x0", second="half")]
    cases += [_case("etdrk3", c2=0.3, c3=0.9), _case("etdrk3", prediction="noise")]
    cases += [_case("res_3s", c3=0.75, as_released=True), _case("etdrk4", prediction="noise")]
    cases += [_case("etdrk4", form="cox_matthews"), _case("hochbruck_ostermann", prediction="noise")]
    cases += [_case("dpmpp_3s"), _case("dpmpp_3s", second="half"), _case("dpmpp_3s", third="parabola")]
    cases += [_case("dpm_solver_3", third="corrected", r1=0.2, r2=0.9)]
    fast = [_case("dpm_fast", third="line"), _case("dpm_fast", tail="full", prediction="data")]
    cases = [replace(c, steps=(20, 40, 80)) for c in cases] + [replace(c, steps=(39, 78, 156)) for c in fast]
    # Numbers of calls that leave nothing modulo 3, where the released tail is of orders 2 and 1.
    return [*cases, replace(_case("dpm_fast"), steps=(60, 120, 240))]


def _multistep() -> list[OrderCase]:
    names = ("lms", "deis", "ipndm", "ipndm_v", "pndm", "plms", "gradient_estimation", "heunpp2")
    cases = [_case(n) for n in names]
    # Noise predictions settle late: the weights of the past grow with the order.
    started = [_case("lms", order=4, starter="single_step")]
    cases += [replace(c, steps=(160, 320, 640)) for c in started]
    started = [_case("lms", order=3, starter="single_step")]
    started += [_case("deis", order=3, clock=c, starter="single_step") for c in ("t", "rho", "lambda")]
    cases += [replace(c, steps=(80, 160, 320)) for c in started]
    cases += [_case("deis", order=4, starter="single_step", final_order=1)]
    cases += [_case("ipndm", order=p) for p in (1, 2, 3)] + [_case("pndm", order=2), _case("plms", order=2)]
    cases += [_case("ipndm_v", as_released=True), _case("gradient_estimation", gamma=1.5)]
    return cases


def _unipc() -> list[OrderCase]:
    cases = [_case("unipc"), _case("unipc", prediction="noise"), _case("unipc", final_order=1)]
    cases += [_case("unipc", order=p, variant=v) for p in (1, 2) for v in ("bh1", "exact")]
    cases += [_case("unipc", order=p, prediction=k) for p, k in ((1, "data"), (3, "data"), (4, "noise"), (5, "data"))]
    started = {"starter": "single_step"}
    cases += [_case("unipc", order=p, prediction=k, **started) for p in (3, 4, 5) for k in ("data", "noise")]
    cases += [_case("unipc", order=4, final_order=2, **started)]
    cases += [_case("unipc", **o) for o in ({"lower_order_final": True}, {"correct_last": True})]
    cases += [_case("unipc", final_order=1, correct_last=True), _case("unipc", variant="exact", as_released=True)]
    for corrector in ("pece", "none"):
        cases += [_case("unipc", order=p, corrector=corrector) for p in (1, 2)]
        cases += [_case("unipc", order=4, corrector=corrector, **started)]
    return cases


def _weak() -> list[OrderCase]:
    cases = [_case("ddim", "weak", eta=0.5), _case("ddim", "weak", eta=1.0)]
    cases += [_case("ddpm", "weak"), _case("ddpm", "weak", variance="beta")]
    cases += [_case("edm_heun", "weak", churn=4.0), _case("edm_heun", "weak", churn=4.0, s_min=0.3, s_max=2.0)]
    cases += [_case("edm_heun", "weak", churn=40.0)]
    cases += [_case("dpmpp_2m_sde", "weak"), _case("dpmpp_2m_sde", "weak", second="exact")]
    cases += [_case("dpmpp_2m_sde", "weak", eta=0.5)]
    cases += [_case("dpmpp_3m_sde", "weak", **o) for o in ({}, {"as_released": True}, {"as_released": "diffusers"})]
    cases += [_case("predictor_corrector", "weak", predictor=p) for p in ("ancestral", "ddim")]
    cases += [_case("predictor_corrector", "weak"), _case("annealed_langevin", "weak")]
    cases += [_case("predictor_corrector", "weak", corrections=2, corrector="euler")]
    cases += [_case("er_sde", "weak"), *(_case("er_sde", "weak", order=p, noise_scale="sde_3") for p in (1, 2))]
    cases += [_case("dpm_2_ancestral", "weak"), _case("dpm_2_ancestral", "weak", eta=0.5)]
    cases += [_case("euler_ancestral", "weak", eta=eta, clock="t") for eta in (0.5, 1.0)]
    cases += [_case("ddpm", "weak", variance="range")]
    cases += [_case("ddpm", "weak", variance="analytic", posterior_variance=0.1)]
    cases += [_case("sa_solver", "weak", tau) for tau in (0.5, 1.0, FALLING)]
    cases += [_case("sa_solver", "weak", 1.0, **o) for o in ({"mode": "pece"}, {"prediction": "noise"})]
    cases += [_case("sa_solver", "weak", 1.0, predictor_order=1, corrector_order=q) for q in (0, 1, 2)]
    cases += [_case(n, "weak", tau) for n in ("seeds_2", "seeds_3") for tau in (0.5, 1.0, FALLING)]
    cases += [_case(n, "weak", 1.0, prediction="noise") for n in ("seeds_2", "seeds_3")]
    cases += [_case("seeds_2", "weak", 1.0, second="exact"), _case("seeds_3", "weak", 1.0, r2=0.9)]
    for tau in (0.5, 1.0, FALLING):
        cases += [_case("dpmpp_2m", "weak", tau), _case("dpmpp_2m", "weak", tau, second="exact")]
        cases += [_case("exp_adams", "weak", tau, order=p, prediction=q) for p in (1, 2, 3) for q in ("data", "noise")]
    # At stochasticity 0 this is the deterministic method, seen through the law of its output.
    cases += [_case("euler_maruyama", "weak", tau) for tau in (0.0, 0.5, 1.0, FALLING)]
    cases += [_case("exp_adams", "weak", 1.0, order=5)]
    cases += [_case("dpmpp_3m", "weak", tau) for tau in (0.5, 1.0, FALLING)]
    cases += [_case("dpmpp_3m", "weak", tau, as_released=True) for tau in (1.0, FALLING)]
    cases += [_case(n, "weak", **o) for n in ("euler_ancestral", "dpmpp_2s_ancestral") for o in ({}, {"eta": 0.5})]
    cases += [_case("dpmpp_sde", "weak", **o) for o in ({}, {"eta": 0.5}, {"r1": 0.3})]
    cases += [_case(n, "weak", tau) for n in _AREA for tau in (0.5, 1.0, FALLING)]
    cases += [_case("res_multistep_ancestral", "weak", eta=eta) for eta in (1.0, 0.5)]
    cases += [_case("seeds_2", "weak", tau, r=1.0, second="exact") for tau in (1.0, 0.5)]
    return cases + _kicked()


def _preconditioned() -> list[OrderCase]:
    name = "preconditioned_adams"
    cases = [_case(name), _case(name, order=1), _case(name, order=2, form="data")]
    return [
        *cases,
        _case(name, order=4, starter="single_step"),
        _case(name, order=3, starter="single_step", clock="rho"),
    ]


def _kicked() -> list[OrderCase]:
    """Flows with noise kicks, of the flow's order: others are in test_splitting.py and test_restart.py."""
    rk4 = _case("splitting", "weak", inner="rk4", form="ancestral", stochasticity=0.5)
    late = [replace(c, steps=(40, 80, 160)) for c in (rk4, _case("restart", "weak"))]
    return [replace(_case("splitting", "weak"), steps=(20, 40, 80)), *late]


def _strong() -> list[OrderCase]:
    """Each with a clock: a stochasticity that is a function has one only in t."""
    cases = [_case("ddpm", "strong"), _case("ddpm", "strong", variance="beta")]
    cases += [_case(n, "strong", eta=eta) for n in ("ddim", "euler_ancestral") for eta in (1.0, 0.5)]
    cases += [_case("dpmpp_2m", "strong", tau) for tau in (0.2, 1.0)]
    cases += [_case("dpmpp_2m_sde", "strong"), _case("dpmpp_2m_sde", "strong", eta=0.5)]
    cases += [_case("euler_ancestral", "strong", eta=0.5, clock="t"), _case("ddpm", "strong", variance="range")]
    cases += [_case("sa_solver", "strong", 1.0), _case("seeds_2", "strong", 1.0)]
    cases += [_case("dpmpp_3m_sde", "strong"), _case("dpmpp_3m", "strong", 1.0), _case("exp_adams", "strong", 1.0)]
    cases += [_case("exp_adams", "strong", 0.5, prediction="noise", order=3)]
    cases += [_case(n, "strong", tau) for n in ("euler_maruyama", "sra1", "shark") for tau in (1.0, FALLING)]
    cases += [_case("exp_sra", "strong", tau) for tau in (0.2, 0.5, 1.0)]
    cases += [_case("res_multistep_ancestral", "strong", eta=eta) for eta in (1.0, 0.5)]
    cases += [_case(n, "strong", 1.0) for n in (*_WEAK_TWO, *_SPECIAL)]
    cases += [_case(n, "strong", 1.0) for n in (*_STEPPERS, *_SRK, "sosri")]
    return cases


DETERMINISTIC, WEAK, STRONG = _deterministic(), _weak(), _strong()
CASES = [*DETERMINISTIC, *WEAK]
# The fourth-order first steps limit order 6 to 5, but on these problems their error is too small to show.
# What limits dpm_fast changes with the number of steps modulo 3: see tests/solvers/test_fast.py.
LIMITED = [c for c in CASES if c.limited and c.solver.declared.deterministic != 5 and c.name != "dpm_fast"]
