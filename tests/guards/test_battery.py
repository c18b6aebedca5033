"""Bad input in every place that takes input: one error of sdekit before the first model call, in three parts.

Each entry says where it strikes, which argument the message must begin with, and what of the value it must show. The
score at the end is the one that is promised: none silently wrong, all in three parts.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import sdekit
from sdekit.errors import SdekitError

NAN, INF = math.nan, math.inf
VP, EDM = sdekit.VP(), sdekit.EDM()
CALLS: list[int] = []
LINEAR = torch.nn.Linear(3, 3)
X, GRID = torch.ones(4, 3), [0.9, 0.5, 0.1]
PLAN = sdekit.solvers.get("ddim").plan(VP, GRID).to_json()


def net(x, t):
    CALLS.append(1)
    return torch.tanh(x)


MODEL = sdekit.Model(net, VP)
ODE = sdekit.make_ode(lambda t, x: net(x, t))
SDE = sdekit.make_sde(lambda t, x: net(x, t), lambda t, x: torch.ones_like(x))


def solve(dynamics: Any = MODEL, x: Any = X, times: Any = GRID, solver: Any = "heun", **options: Any) -> Any:
    return sdekit.solve(dynamics, x, times, solver, **options)


def sample(model: Any = MODEL, shape: Any = (4, 3), solver: Any = "heun", steps: Any = 3, **options: Any) -> Any:
    return sdekit.sample(model, shape, solver, steps, **options)


def affine(t_min: Any, t_max: Any, schedule: Any = VP.schedule) -> Any:
    return sdekit.AffineSDE(schedule=schedule, t_min=t_min, t_max=t_max, domain=(0.0, 1.0), default_grid="uniform")


class Bad(NamedTuple):
    label: str
    run: Callable[[], Any]
    argument: str
    shows: str


def bad(argument: str, shows: str, run: Callable[[], Any], label: str = "") -> Bad:
    return Bad(f"{label or argument}: {shows}", run, argument, shows)


STATES = [
    bad("x", "int", lambda: solve(x=3)),
    bad("x", "list", lambda: solve(x=[[1.0, 2.0]])),
    bad("x", "ndarray", lambda: solve(x=np.ones((2, 3)))),
    bad("x", "NoneType", lambda: solve(x=None)),
    bad("x", "torch.int64", lambda: solve(x=torch.ones(4, 3, dtype=torch.int64))),
    bad("x", "torch.complex64", lambda: solve(x=torch.ones(4, 3, dtype=torch.complex64))),
    bad("x", "torch.bool", lambda: solve(x=torch.ones(4, 3, dtype=torch.bool))),
    bad("x", "torch.uint8", lambda: solve(ODE, x=torch.ones(4, 3, dtype=torch.uint8), solver="rk4")),
    bad("x", "shape ()", lambda: solve(x=torch.tensor(1.0))),
    bad("x", "sparse", lambda: solve(x=torch.eye(3).to_sparse())),
    bad("x", "meta", lambda: solve(x=torch.ones(4, 3, device="meta"))),
    bad("x", "sample 2", lambda: solve(x=torch.tensor([[1.0], [2.0], [NAN]]))),
    bad("x", "sample 0", lambda: solve(ODE, x=torch.tensor([[INF], [2.0]]))),
    bad("x0", "torch.int64", lambda: VP.simulate(torch.ones(2, dtype=torch.int64), [0.1, 0.5])),
    bad("x0", "list", lambda: VP.perturb(0.5, [1.0], torch.ones(1))),
    bad("noise", "shape (3,)", lambda: VP.perturb(0.5, X, torch.ones(3)), "perturb"),
    bad("noise", "float", lambda: VP.perturb(0.5, X, 1.0), "perturb"),
    bad("t", "1.5", lambda: VP.perturb(1.5, X, X), "perturb"),
    bad("t", "shape (2,)", lambda: VP.perturb(torch.tensor([0.1, 0.2]), X, X), "perturb"),
    bad("t", "nan", lambda: VP.perturb(NAN, X, X), "perturb"),
    bad("t_to", "0.1", lambda: VP.transition(0.5, 0.1)),
    bad("t_from", "-1", lambda: VP.transition(-1.0, 0.1)),
]
DYNAMICS = [
    bad("dynamics", "function", lambda: solve(net)),
    bad("dynamics", "NoneType", lambda: solve(None)),
    bad("dynamics", "class VP", lambda: solve(sdekit.VP)),
    bad("dynamics", "Linear", lambda: solve(LINEAR)),
    bad("solver", "'huen'", lambda: solve(solver="huen")),
    bad("solver", "''", lambda: solve(solver="")),
    bad("solver", "'HEUN'", lambda: solve(solver="HEUN")),
    bad("solver", "NoneType", lambda: solve(solver=None)),
    bad("solver", "int", lambda: solve(solver=3)),
    bad("solver", "Heun", lambda: solve(solver=type(sdekit.solvers.get("heun")))),
    bad("solver", "'heun' for _FunctionSDE", lambda: solve(SDE, solver="heun")),
    bad("solver", "'ddim' for _FunctionODE", lambda: solve(ODE, solver="ddim")),
    bad("stochasticity", "1.0 with solver 'heun'", lambda: solve(VP.reverse(MODEL))),
    bad("stochasticity", "0.5 with solver 'ddpm'", lambda: solve(VP.reverse(MODEL, 0.5), solver="ddpm")),
    bad("stochasticity", "-1", lambda: VP.reverse(MODEL, -1)),
    bad("stochasticity", "nan", lambda: VP.reverse(MODEL, NAN)),
    bad("stochasticity", "'1'", lambda: solve(VP.reverse(MODEL, lambda t: "1"), solver="euler_maruyama")),
    bad("stochasticity", "True", lambda: VP.reverse(MODEL, True)),
    bad("stochasticity", "-0.5 at t =", lambda: solve(VP.reverse(MODEL, lambda t: -0.5), solver="euler_maruyama")),
    bad("score", "int", lambda: VP.reverse(3)),
    bad("score", "EDM", lambda: VP.reverse(sdekit.Model(net, EDM))),
    bad("divergence", "'exactly'", lambda: SDE.reverse(lambda t, x: x, divergence="exactly")),
    bad("divergence", "None", lambda: SDE.probability_flow(lambda t, x: x, None)),
    bad("seed", "-1", lambda: SDE.reverse(lambda t, x: x, seed=-1)),
    bad("times", "0.9 down to 0.1", lambda: solve(VP, solver="euler_maruyama")),
    bad("times", "increasing times", lambda: solve(times=[0.1, 0.9], solver="ddpm")),
    bad("drift", "float", lambda: sdekit.make_ode(1.0)),
    bad("diffusion", "NoneType", lambda: sdekit.make_sde(lambda t, x: x, None)),
    bad("drift", "(x, t)", lambda: sdekit.make_ode(lambda x, t: x)),
    bad("noise_type", "'diag'", lambda: sdekit.make_sde(lambda t, x: x, lambda t, x: x, "diag")),
    bad("sde_type", "'itô'", lambda: sdekit.make_sde(lambda t, x: x, lambda t, x: x, sde_type="itô")),
    bad("Mine.noise_type", "'diagnal'", lambda: type("Mine", (sdekit.SDE,), {"noise_type": "diagnal"})),
    bad("Mine.drift", "override", lambda: type("Mine", (sdekit.VP,), {"drift": lambda self, t, x: x})),
]
GRIDS = [
    bad("times", "1 point", lambda: solve(times=[0.5])),
    bad("times", "0.5, 0.5 at indices 0, 1", lambda: solve(times=[0.5, 0.5])),
    bad("times", "0.5, 0.7 at indices 1, 2", lambda: solve(times=[0.9, 0.5, 0.7])),
    bad("times", "nan at index 1", lambda: solve(times=[0.9, NAN])),
    bad("times", "2.0 at index 0", lambda: solve(times=[2.0, 0.1])),
    bad("times", "'0.9'", lambda: solve(times=["0.9", "0.1"])),
    bad("times", "float", lambda: solve(times=0.9)),
    bad("times", "shape (2, 1)", lambda: solve(times=torch.tensor([[0.9], [0.1]]))),
    bad("times", "0.1 at indices 1, 2", lambda: VP.simulate(X, [0.2, 0.5, 0.1])),
    bad("steps", "0", lambda: solve(times=[0.9, 0.1], steps=0)),
    bad("steps", "-3", lambda: solve(ODE, times=[0.9, 0.1], steps=-3)),
    bad("steps", "2.5", lambda: solve(times=[0.9, 0.1], steps=2.5)),
    bad("steps", "nan", lambda: sample(steps=NAN)),
    bad("steps", "True", lambda: solve(times=[0.9, 0.1], steps=True)),
    bad("steps", "'10'", lambda: sample(steps="10")),
    bad("steps", "a grid of 3 times", lambda: solve(steps=5)),
    bad("t_end", "sigma = 0", lambda: solve(times=[0.9, 0.0], steps=5)),
    bad("grid", "'karass'", lambda: sdekit.grids.get("karass")),
    bad("grid", "'karass'", lambda: sample(grid="karass"), "sample"),
    bad("grid", "0.1, 0.9", lambda: sample(grid=[0.1, 0.9])),
    bad("grid", "NoneType", lambda: sample(grid=lambda process, steps: None)),
    bad("karras(rhoo=)", "'rhoo'", lambda: sdekit.grids.get("karras", rhoo=3.0)),
    bad("rho", "0", lambda: sdekit.grids.karras(EDM, 5, rho=0)),
    bad("rho", "nan", lambda: sdekit.grids.karras(EDM, 5, rho=NAN)),
    bad("rho", "'7'", lambda: sdekit.grids.karras(EDM, 5, rho="7")),
    bad("steps", "0", lambda: sdekit.grids.uniform(VP, 0), "grids"),
    bad("process", "str", lambda: sdekit.grids.uniform("vp", 5)),
    bad("t_start, t_end", "2.0", lambda: sdekit.grids.uniform(VP, 5, t_start=2.0)),
    bad("t_start, t_end", "0.1, 0.5", lambda: sdekit.grids.uniform(VP, 5, t_start=0.1, t_end=0.5)),
    bad("t_start", "'1'", lambda: sdekit.grids.uniform(VP, 5, t_start="1")),
    bad("t_start", "alpha = 0", lambda: sdekit.grids.half_log_snr(sdekit.RectifiedFlow(), 5, t_end=0.1)),
    bad("append_zero", "'yes'", lambda: sdekit.grids.uniform(VP, 5, append_zero="yes")),
    bad("append_zero", "VE", lambda: sdekit.grids.uniform(sdekit.VE(), 5, append_zero=True)),
]
OPTIONS = [
    bad("rtol", "0", lambda: solve(rtol=0)),
    bad("rtol", "-0.1", lambda: solve(rtol=-0.1)),
    bad("rtol", "nan", lambda: solve(rtol=NAN)),
    bad("rtol", "2", lambda: solve(rtol=2)),
    bad("rtol", "'1e-3'", lambda: solve(rtol="1e-3")),
    bad("atol", "-1.0", lambda: solve(ODE, atol=-1.0)),
    bad("atol", "inf", lambda: solve(atol=INF)),
    bad("atol", "1e-06 with a fixed-step solver", lambda: solve(atol=1e-6)),
    bad("max_nfe", "0", lambda: solve(max_nfe=0)),
    bad("max_nfe", "3, with a solve of 4", lambda: solve(max_nfe=3)),
    bad("max_nfe", "1.5", lambda: solve(max_nfe=1.5)),
    bad("seed", "-1", lambda: solve(seed=-1)),
    bad("seed", "1.5", lambda: solve(seed=1.5)),
    bad("seed", "'0'", lambda: solve(seed="0")),
    bad("seed", "True", lambda: solve(seed=True)),
    bad("seed", str(2**64), lambda: solve(seed=2**64, solver="ddpm")),
    bad("seed", "nan", lambda: sample(seed=NAN)),
    bad("seed", "tensor", lambda: sample(seed=torch.tensor(1.5))),
    bad("noise", "'stap'", lambda: solve(noise="stap", solver="ddpm")),
    bad("noise", "'stap'", lambda: solve(noise="stap"), "deterministic"),
    bad("noise", "int", lambda: solve(noise=3)),
    bad("noise", "StepNoise", lambda: solve(noise=__import__("sdekit.noise").noise.StepNoise)),
    bad("sample_ids", "list", lambda: solve(sample_ids=[0, 1, 2, 3])),
    bad("sample_ids", "3 ids", lambda: solve(sample_ids=torch.arange(3))),
    bad("sample_ids", "negative", lambda: solve(sample_ids=-torch.arange(4))),
    bad("sample_ids", "torch.float32", lambda: solve(sample_ids=torch.ones(4))),
    bad("sample_ids", "noise='plain'", lambda: solve(sample_ids=torch.arange(4), noise="plain", solver="ddpm")),
    bad("save", "0.51", lambda: solve(save=[0.51])),
    bad("save", "'al'", lambda: solve(save="al")),
    bad("save", "5", lambda: solve(save=5)),
    bad("on_failure", "'ignore'", lambda: solve(on_failure="ignore")),
    bad("on_failure", "None", lambda: solve(on_failure=None)),
    bad("checks", "'ful'", lambda: solve(checks="ful")),
    bad("checks", "True", lambda: solve(checks=True)),
    bad("callback", "int", lambda: solve(callback=3)),
    bad("progress", "str", lambda: solve(progress="bar")),
    bad("stepps", "argument", lambda: solve(stepps=3)),
    bad("tolerance", "argument", lambda: solve(ODE, tolerance=3)),
    bad("t", "argument", lambda: sdekit.solve(MODEL, X, GRID, "heun", t=1)),
]
SAMPLING = [
    bad("model", "function", lambda: sample(net)),
    bad("model", "VP", lambda: sample(VP)),
    bad("shape", "4", lambda: sample(shape=4)),
    bad("shape", "()", lambda: sample(shape=())),
    bad("shape", "(-1, 3)", lambda: sample(shape=(-1, 3))),
    bad("shape", "(2.0, 3)", lambda: sample(shape=(2.0, 3))),
    bad("shape", "'43'", lambda: sample(shape="43")),
    bad("shape", "4", lambda: VP.sample_prior(4), "prior"),
    bad("shape", "(2, -1)", lambda: VP.sample_prior((2, -1)), "prior"),
    bad("dtype", "torch.int32", lambda: VP.sample_prior((2, 1), dtype=torch.int32), "prior"),
    bad("dtype", "torch.int32", lambda: sample(dtype=torch.int32)),
    bad("dtype", "'float32'", lambda: sample(dtype="float32")),
    bad("device", "'gpu'", lambda: sample(device="gpu")),
    bad("batch_size", "0", lambda: sample(batch_size=0)),
    bad("batch_size", "2.5", lambda: sample(batch_size=2.5)),
    bad("sample_ids", "(3,)", lambda: sample(sample_ids=[0, 1, 2])),
    bad("sample_ids", "'abcd'", lambda: sample(sample_ids="abcd")),
    bad("sample_ids", "float32", lambda: sample(sample_ids=[0.0, 1, 2, 3])),
    bad("sample_ids", "negative", lambda: sample(sample_ids=[-1, 1, 2, 3])),
    bad("x_start, t_start", "one of them", lambda: sample(x_start=X)),
    bad("x_start", "(2, 3)", lambda: sample(x_start=torch.ones(2, 3), t_start=0.5)),
    bad("x_start", "list", lambda: sample(x_start=[1.0], t_start=0.5)),
    bad("t_start", "nan", lambda: sample(x_start=X, t_start=NAN)),
    bad("t_start", "'0.5'", lambda: sample(x_start=X, t_start="0.5")),
    bad("t_start", "0.4", lambda: sample(x_start=X, t_start=0.4, grid=GRID)),
    bad("conditioning", "list", lambda: sample(conditioning=[1])),
    bad("label", "argument", lambda: sample(conditioning={"label": 1}, seed=0)),
    bad("conditionin", "argument", lambda: sample(conditionin={})),
    bad("save", "argument", lambda: sample(save="all")),
    bad("rtol", "0.1", lambda: sample(rtol=0.1)),
]
MODELS = [
    bad("net", "int", lambda: sdekit.Model(3, VP)),
    bad("net", "(t, x)", lambda: sdekit.Model(lambda t, x: x, VP)),
    bad("net", "(x)", lambda: sdekit.Model(lambda x: x, VP)),
    bad("process", "str", lambda: sdekit.Model(net, "vp")),
    bad("process", "ABCMeta", lambda: sdekit.Model(net, sdekit.VP)),
    bad("predicts", "'epsilon'", lambda: sdekit.Model(net, VP, "epsilon")),
    bad("predicts", "'nois'", lambda: sdekit.Model(net, VP, "nois")),
    bad("predicts", "'data' together", lambda: sdekit.Model(net, EDM, "data", precondition="edm")),
    bad("precondition", "'emd'", lambda: sdekit.Model(net, EDM, precondition="emd")),
    bad("time_map", "int", lambda: sdekit.Model(net, VP, time_map=1000)),
    bad("time_map", "NoneType", lambda: solve(sdekit.Model(net, VP, time_map=lambda t: None))),
    bad("time_map", "shape (2,)", lambda: solve(sdekit.Model(net, VP, time_map=lambda t: torch.ones(2)))),
    bad("time_map", "NaN", lambda: solve(sdekit.Model(net, VP, time_map=lambda t: t * NAN))),
    bad("output", "str", lambda: sdekit.Model(net, VP, output="sample")),
    bad("dtype", "'float32'", lambda: sdekit.Model(net, VP, dtype="float32"), "Model"),
    bad("dtype", "torch.int64", lambda: sdekit.Model(net, VP, dtype=torch.int64), "Model"),
    bad("want", "'datum'", lambda: MODEL.predict("datum", 0.5, X)),
    bad(
        "model", "alpha = 0", lambda: solve(sdekit.Model(net, sdekit.RectifiedFlow()), times=[1.0, 0.5], solver="ddim")
    ),
]
PROCESSES = [
    bad("beta_min, beta_max", "20.0, 0.1", lambda: sdekit.VP(20.0, 0.1)),
    bad("beta_min", "nan", lambda: sdekit.VP(NAN)),
    bad("beta_max", "'20'", lambda: sdekit.VP(0.1, "20")),
    bad("beta_min", "1000", lambda: sdekit.VP(10**400)),
    bad("sigma_min", "0", lambda: sdekit.VE(0, 50.0)),
    bad("sigma_min, sigma_max", "5.0, 1.0", lambda: sdekit.VE(5.0, 1.0)),
    bad("sigma_max", "inf", lambda: sdekit.VE(0.1, INF)),
    bad("theta", "-1", lambda: sdekit.OrnsteinUhlenbeck(-1)),
    bad("sigma", "0", lambda: sdekit.OrnsteinUhlenbeck(1.0, 0)),
    bad("sigma", "None", lambda: sdekit.Heat(None)),
    bad("sigma", "True", lambda: sdekit.Heat(True)),
    bad(
        "schedule",
        "str",
        lambda: sdekit.AffineSDE(schedule="vp", t_min=0.1, t_max=1.0, domain=(0.0, 1.0), default_grid="uniform"),
    ),
    bad("t_min, t_max", "0.9, 0.1", lambda: affine(0.9, 0.1)),
    bad("t_max", "nan", lambda: affine(0.1, NAN)),
]
SOLVERS = [
    bad("solver", "'dpmpp2m'", lambda: sdekit.solvers.get("dpmpp2m")),
    bad("solver", "int", lambda: sdekit.solvers.get(5)),
    bad("solver", "'nope'", lambda: sdekit.solvers.info("nope")),
    bad("heun(clok=)", "'clok'", lambda: sdekit.solvers.get("heun", clok="t")),
    bad("ddim(self=)", "'self'", lambda: sdekit.solvers.get("ddim", self=1)),
    bad("clock", "'tau'", lambda: sdekit.solvers.get("heun", clock="tau")),
    bad("clock", "None", lambda: sdekit.solvers.get("rk4", clock=None)),
    bad("eta", "1.5", lambda: sdekit.solvers.get("ddim", eta=1.5)),
    bad("eta", "nan", lambda: sdekit.solvers.get("ddim", eta=NAN)),
    bad("eta", "'1'", lambda: sdekit.solvers.get("ddim", eta="1")),
    bad("eta", "True", lambda: sdekit.solvers.get("ddim", eta=True)),
    bad("eta", "-1", lambda: sdekit.solvers.get("dpmpp_2m_sde", eta=-1)),
    bad("variance", "'betatilde'", lambda: sdekit.solvers.get("ddpm", variance="betatilde")),
    bad("churn", "-1", lambda: sdekit.solvers.get("edm_heun", churn=-1)),
    bad("churn", "inf", lambda: sdekit.solvers.get("edm_heun", churn=INF)),
    bad("s_max", "0.5", lambda: sdekit.solvers.get("edm_heun", s_min=1.0, s_max=0.5)),
    bad("s_max", "nan", lambda: sdekit.solvers.get("edm_heun", s_max=NAN)),
    bad("s_max", "'80'", lambda: sdekit.solvers.get("edm_heun", s_max="80")),
    bad("order", "0", lambda: sdekit.solvers.get("exp_adams", order=0)),
    bad("order", "2.0", lambda: sdekit.solvers.get("exp_adams", order=2.0)),
    bad("prediction", "'x0'", lambda: sdekit.solvers.get("exp_adams", prediction="x0")),
    bad("starter", "'rk'", lambda: sdekit.solvers.get("exp_adams", starter="rk")),
    bad(
        "starter",
        "'single_step' with",
        lambda: sdekit.solvers.get("exp_adams", order=3, starter="single_step").plan(VP, GRID, 1.0),
    ),
    bad("final_order", "0", lambda: sdekit.solvers.get("dpmpp_2m", final_order=0)),
    bad("final_order", "3", lambda: sdekit.solvers.get("dpmpp_2m", final_order=3)),
    bad("second", "'midpoint'", lambda: sdekit.solvers.get("dpmpp_2m", second="midpoint")),
    bad("second", "['half']", lambda: sdekit.solvers.get("dpmpp_2m_sde", second=["half"])),
    bad("process", "str", lambda: sdekit.solvers.get("ddim").plan("vp", GRID)),
    bad("name", "'heun'", lambda: sdekit.solvers.register("heun")(type(sdekit.solvers.get("heun")))),
    bad("register", "int", lambda: sdekit.solvers.register("mine")(int)),
    bad("register", "3", lambda: sdekit.grids.register("mine")(3)),
    bad("name", "3", lambda: sdekit.grids.register(3)(lambda process, steps: None)),
    bad("times", "nan at index 1", lambda: sdekit.solvers.get("ddim").plan(VP, [0.9, NAN]), "plan"),
]
PLANS = [
    bad("text", "JSONDecodeError", lambda: sdekit.Plan.from_json("{")),
    bad("text", "TypeError", lambda: sdekit.Plan.from_json(None)),
    bad("text", "KeyError", lambda: sdekit.Plan.from_json("{}")),
    bad("text", "TypeError", lambda: sdekit.Plan.from_json("[1]"), "list"),
    bad("text", "version 99", lambda: sdekit.Plan.from_json(PLAN.replace('"version": 1', '"version": 99'))),
    bad("text", "RecursionError", lambda: sdekit.Plan.from_json("[" * 100_000)),
    bad("plan rows", "nan", lambda: sdekit.Plan.from_json(PLAN.replace('"alpha": ', '"alpha": NaN, "was": ', 1))),
    bad("plan rows", "steps [5, 1]", lambda: sdekit.Plan.from_json(PLAN.replace('"step": 0', '"step": 5'))),
    bad(
        "plan times, rows",
        "1 times",
        lambda: sdekit.Plan.from_json(PLAN.replace('"times": [0.9, 0.5, 0.1]', '"times": [0.9]')),
    ),
    bad(
        "plan times",
        "0.1, 0.5",
        lambda: sdekit.Plan.from_json(PLAN.replace('"times": [0.9, 0.5, 0.1]', '"times": [0.9, 0.1, 0.5]')),
    ),
    bad(
        "plan times",
        "nan",
        lambda: sdekit.Plan.from_json(PLAN.replace('"times": [0.9, 0.5, 0.1]', '"times": [0.9, NaN, 0.1]')),
    ),
    bad("text", "0.5", lambda: sdekit.Plan.from_json(PLAN.replace('"step": 0', '"step": 0.5')), "fraction"),
    bad(
        "coefficient",
        "'1'",
        lambda: sdekit.Plan.from_json(PLAN.replace('"base": {"base": ', '"base": {"base": "1", "was": ', 1)),
    ),
    bad("times", "another grid", lambda: solve(times=[0.9, 0.1], solver=sdekit.Plan.from_json(PLAN)), "plan"),
    bad("plan", "VP", lambda: solve(sdekit.Model(net, sdekit.VP(0.2)), solver=sdekit.Plan.from_json(PLAN))),
]
TARGETS = [
    bad("weights", "-1", lambda: sdekit.targets.GaussianMixture([-1.0, 2.0], [[0.0], [1.0]], 1.0)),
    bad("weights", "0", lambda: sdekit.targets.GaussianMixture([0.0, 1.0], [[0.0], [1.0]], 1.0)),
    bad("weights", "(3,)", lambda: sdekit.targets.GaussianMixture([1.0] * 3, [[0.0], [1.0]], 1.0)),
    bad("weights", "str", lambda: sdekit.targets.GaussianMixture("ab", [[0.0], [1.0]], 1.0)),
    bad("means", "NaN", lambda: sdekit.targets.GaussianMixture([1.0], [[NAN]], 1.0)),
    bad("means", "(2,)", lambda: sdekit.targets.GaussianMixture([1.0, 1.0], [0.0, 1.0], 1.0)),
    bad("means", "NoneType", lambda: sdekit.targets.GaussianMixture([1.0], None, 1.0)),
    bad("covariances", "-0.5", lambda: sdekit.targets.GaussianMixture([1.0], [[0.0]], -0.5)),
    bad("covariances", "(3,)", lambda: sdekit.targets.GaussianMixture([1.0], [[0.0]], [1.0, 1.0, 1.0])),
    bad("covariances", "symmetric", lambda: sdekit.targets.GaussianMixture(
        [1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]])),
]  # fmt: skip
BATTERY = [*STATES, *DYNAMICS, *GRIDS, *OPTIONS, *SAMPLING, *MODELS, *PROCESSES, *SOLVERS, *PLANS, *TARGETS]


class Verdict(NamedTuple):
    silent: bool
    complaint: str


@functools.cache
def judge(entry: Bad) -> Verdict:
    """Run one entry; an empty complaint means one error of sdekit, in three parts, before the first model call."""
    CALLS.clear()
    state = torch.get_rng_state()
    try:
        entry.run()
    except SdekitError as error:
        text, complaints = str(error), []
        if not text.startswith(f"{entry.argument}: got "):
            complaints.append("argument")
        if entry.shows not in str(error.got):
            complaints.append("value")
        if not (error.expected and error.fix and error.fix[0].isupper() and error.fix[-1] in ".?"):
            complaints.append("cure")
        if text != f"{error.argument}: got {error.got}; expected {error.expected}. {error.fix}":
            complaints.append("form")
        if CALLS:
            complaints.append(f"{len(CALLS)} model calls")
        if not torch.equal(torch.get_rng_state(), state):
            complaints.append("random numbers drawn")
        return Verdict(False, f"{', '.join(complaints)}: {text}" if complaints else "")
    except Exception as error:  # noqa: BLE001 - a foreign error is a finding, not a failure of the judge
        return Verdict(False, f"foreign {type(error).__name__}: {error}")
    return Verdict(True, "no error")


@pytest.mark.parametrize("entry", BATTERY, ids=lambda entry: entry.label)
def test_bad_input_gives_one_clear_error(entry):
    assert not judge(entry).complaint


def test_score(capsys):
    verdicts = [judge(entry) for entry in BATTERY]
    silent, three = sum(v.silent for v in verdicts), sum(not v.complaint for v in verdicts)
    with capsys.disabled():
        sys.stdout.write(f"\nbad inputs: {len(verdicts)}; silently wrong: {silent}; in three parts: {three}\n")
    assert len(verdicts) >= 112 and silent == 0 and three == len(verdicts)


def test_judge_tells_bad_from_good():
    """The judge itself: an entry that raises nothing, something else, too late, or without its parts is found."""

    def late():
        net(X, X)
        solve(seed=-1)

    for entry in (
        bad("x", "1", lambda: None),
        bad("x", "1", lambda: [][0]),
        bad("seed", "-1", late),
        bad("sead", "-1", lambda: solve(seed=-1)),
        bad("seed", "-2", lambda: solve(seed=-1)),
    ):
        assert judge(entry).complaint
