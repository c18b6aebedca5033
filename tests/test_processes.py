"""Processes: marginals composed from transitions, exact simulation, priors, ends, identity."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor

import sdekit
from sdekit import (
    EDM,
    SDE,
    VE,
    VP,
    AffineSDE,
    DiscreteVP,
    Heat,
    OrnsteinUhlenbeck,
    RectifiedFlow,
    SubVP,
    VPCosine,
)
from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.math.philox import PRIOR_STREAM, SIMULATE_STREAM, normals

PROCESSES = [
    VP(),
    VP(0.0, 12.0),
    VPCosine(),
    VPCosine(0.0),
    DiscreteVP((0.01, 0.02, 0.1, 0.5, 0.9)),
    SubVP(),
    VE(0.02, 30.0),
    EDM(),
    RectifiedFlow(),
    OrnsteinUhlenbeck(0.8, 1.1),
    Heat(1.7),
]
F64 = torch.float64


def falling(t: Tensor) -> Tensor:
    return -0.4 - 2 * t


def rising(t: Tensor) -> Tensor:
    return 0.5 + torch.sin(t)


DERIVED = AffineSDE(falling, rising, t_min=1e-3, t_max=1.2)


@pytest.fixture(params=[*PROCESSES, DERIVED], ids=repr)
def process(request) -> AffineSDE:
    return request.param


def grid(process: AffineSDE, n: int = 7) -> Tensor:
    """From the clean end of the domain to t_max, denser at the clean end, both ends included."""
    return process.domain[0] + (process.t_max - process.domain[0]) * torch.linspace(0, 1, n, dtype=F64) ** 2


def test_transitions_compose_and_carry_the_marginals(process: AffineSDE) -> None:
    t = grid(process)
    for i in range(len(t) - 1):
        for j in range(i + 1, len(t)):
            scale, std = process.transition(t[i], t[j])
            assert float(scale * process.alpha(t[i])) == pytest.approx(
                float(process.alpha(t[j])), rel=1e-13, abs=1e-300
            )
            variance = (scale * process.sigma(t[i])) ** 2 + std**2
            assert float(variance) == pytest.approx(float(process.sigma(t[j]) ** 2), rel=1e-13)
            for k in range(i + 1, j):
                (s1, v1), (s2, v2) = process.transition(t[i], t[k]), process.transition(t[k], t[j])
                assert float(s1 * s2) == pytest.approx(float(scale), rel=1e-13, abs=1e-300)
                assert float((s2 * v1) ** 2 + v2**2) == pytest.approx(float(std**2), rel=1e-13)


def test_a_transition_to_the_same_time_changes_nothing(process: AffineSDE) -> None:
    t = grid(process)
    scale, std = process.transition(t, t)
    assert torch.equal(scale, torch.ones_like(t)) and torch.equal(std, torch.zeros_like(t))


def test_a_transition_from_data_is_the_marginal(process: AffineSDE) -> None:
    t = grid(process)[1:]
    scale, std = process.transition(torch.zeros_like(t), t)
    # VE begins with noise: what is there at t = 0 is not added again.
    added = torch.sqrt(process.sigma(t) ** 2 - process.sigma(0.0) ** 2)
    assert torch.allclose(scale, process.alpha(t), rtol=1e-14, atol=0)
    assert torch.allclose(std, added, rtol=1e-13, atol=0)


def test_transitions_agree_with_the_sde_over_short_times(process: AffineSDE) -> None:
    # scale = 1 + f h and std^2 = g^2 h to first order, at h = 1e-6 of the range.
    t = grid(process)[1:-1]
    h = 1e-6 * (process.t_max - process.domain[0])
    scale, std = process.transition(t, t + h)
    assert torch.allclose((scale - 1) / h, process.drift_coefficient(t + h / 2), rtol=1e-4, atol=1e-8)
    assert torch.allclose(std**2 / h, process.diffusion_coefficient(t + h / 2) ** 2, rtol=1e-3)


def test_a_path_is_the_transitions_applied_to_its_own_noise(process: AffineSDE) -> None:
    x0 = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 0.0]], dtype=F64)
    t = grid(process, 4)
    path = process.simulate(x0, t, seed=5)
    assert path.shape == (4, 3, 2) and torch.equal(path[0], x0)
    ids = torch.arange(3)
    for i in range(3):
        scale, std = process.transition(t[i], t[i + 1])
        z = normals(5, ids, i, 2, stream=SIMULATE_STREAM, dtype=F64)
        torch.testing.assert_close(path[i + 1], scale * path[i] + std * z, rtol=1e-14, atol=1e-14)


def test_simulated_moments_equal_the_marginals(process: AffineSDE) -> None:
    # 20 000 paths: the mean's standard error is std / 141, a standard deviation's is std / 200.
    n, t = 20_000, grid(process, 4)
    path = process.simulate(torch.full((n, 1), 1.5, dtype=F64), t, seed=11)
    first_sigma = float(process.sigma(t[0]))
    for i in range(1, 4):
        scale, std = (float(v) for v in process.transition(t[0], t[i]))
        assert abs(float(path[i].mean()) - scale * 1.5) < 4.5 * std / math.sqrt(n)
        assert abs(float(path[i].std()) / std - 1) < 4.5 / math.sqrt(2 * n)
    assert first_sigma == 0 or isinstance(process, VE)
    # Two times of one path: Cov(x_s, x_t) = scale Var(x_s).
    scale, _ = process.transition(t[1], t[2])
    a, b = path[1] - path[1].mean(), path[2] - path[2].mean()
    floor = 4.5 * float(a.std() * b.std()) / math.sqrt(n)
    assert abs(float((a * b).mean() - scale * (a * a).mean())) < floor


def test_a_path_depends_on_seed_and_row_alone(process: AffineSDE) -> None:
    x0, t = torch.ones(4, 3), grid(process, 4)
    path = process.simulate(x0, t, seed=1)
    assert torch.equal(path[:, :2], process.simulate(x0[:2], t, seed=1))
    assert not torch.equal(path, process.simulate(x0, t, seed=2))
    torch.manual_seed(3)
    first = process.simulate(x0, t)
    torch.manual_seed(3)
    assert torch.equal(first, process.simulate(x0, t))


def test_perturb_is_the_marginal_at_one_time_or_one_per_sample(process: AffineSDE) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 4, 5, generator=generator, dtype=F64)
    times = grid(process, 5)[1:4]
    want = process.alpha(times)[:, None, None] * x0 + process.sigma(times)[:, None, None] * noise
    assert torch.equal(process.perturb(times, x0, noise), want)
    assert torch.equal(process.perturb(times[:, None, None], x0, noise), want)
    assert torch.equal(process.perturb(float(times[1]), x0, noise)[1], want[1])
    assert torch.equal(process.perturb(times[1], x0, noise)[1], want[1])
    half = process.perturb(times[1], x0.bfloat16(), noise.bfloat16())
    assert half.dtype == torch.bfloat16
    # Computed in float32 and rounded once.
    single = process.perturb(times[1], x0.bfloat16().float(), noise.bfloat16().float())
    assert torch.equal(half, single.bfloat16())


def test_perturb_at_the_exact_ends() -> None:
    x0, noise = torch.full((1, 2), 3.0), torch.full((1, 2), 7.0)
    for p in (VPCosine(), VPCosine(0.0), SubVP(), DiscreteVP([0.1, 0.2]), DERIVED):
        assert torch.equal(p.perturb(0.0, x0, noise), x0)
    assert torch.equal(VPCosine().perturb(1.0, x0, noise), noise)
    flow = RectifiedFlow()
    assert torch.equal(flow.perturb(0.0, x0, noise), x0)
    assert torch.equal(flow.perturb(1.0, x0, noise), noise)
    assert torch.equal(VP().perturb(0.0, x0, noise), x0)


def test_drift_and_diffusion_are_f_x_and_g(process: AffineSDE) -> None:
    x, t = torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(0)), grid(process, 5)[1:4]
    assert torch.equal(process.drift(t, x), process.drift_coefficient(t)[:, None] * x)
    assert torch.equal(process.diffusion(t, x), process.diffusion_coefficient(t)[:, None])
    assert process.diffusion(t[0], x).shape == ()
    assert process.drift(t.float()[0], x.half()).dtype == torch.float32
    assert process.noise_type == "scalar" and process.additive and process.sde_type == "ito"


def test_schedule_functions_keep_shapes_and_answer_in_float64(process: AffineSDE) -> None:
    for name in ("alpha", "sigma", "log_alpha", "log_sigma", "half_log_snr", "rho", "drift_coefficient",
                 "diffusion_coefficient", "alpha_rate", "sigma_rate"):  # fmt: skip
        function = getattr(process, name)
        for t in (0.5, torch.tensor(0.5), torch.full((2, 3), 0.5), torch.full((0,), 0.5)):
            value = function(t)
            assert value.dtype == F64 and value.shape == getattr(t, "shape", ())
    assert process.time_at(torch.zeros(2, 1)).shape == (2, 1)


def test_levels_are_the_schedule_as_floats_with_exact_ends(process: AffineSDE) -> None:
    t = grid(process)
    for time, level in zip(t.tolist(), process.levels(t), strict=True):
        assert level.t == time
        names = ("alpha", "sigma", "half_log_snr", "alpha_rate", "sigma_rate")
        assert [getattr(level, n) for n in names] == [float(getattr(process, n)(time)) for n in names]
        assert level.rho == pytest.approx(float(process.rho(time)), rel=1e-15)
        if level.sigma > 0 and level.alpha > 0:
            g = float(process.diffusion_coefficient(time))
            assert level.half_variance_rate == pytest.approx(g**2 / (2 * level.sigma), rel=1e-14)
    lam = torch.tensor([-1.0, 0.5, 2.0], dtype=F64)
    for wanted, level in zip(lam.tolist(), process.levels_at(lam), strict=True):
        assert level.half_log_snr == pytest.approx(wanted, abs=2e-14)


def test_singular_levels() -> None:
    start, end = RectifiedFlow().levels([1.0, 0.0])
    assert (start.alpha, start.sigma, start.half_log_snr, start.rho) == (0.0, 1.0, -math.inf, math.inf)
    assert (end.alpha, end.sigma, end.half_log_snr, end.rho) == (1.0, 0.0, math.inf, 0.0)
    assert start.half_variance_rate == math.inf and end.half_variance_rate == 1.0
    # alpha underflows to 0 long before the process ends: nothing overflows, nothing is finite and wrong.
    (far,) = OrnsteinUhlenbeck(1.0, 1.0).levels([1000.0])
    assert far.alpha == 0 and far.rho == math.inf and far.half_variance_rate == math.inf
    assert float(OrnsteinUhlenbeck(1.0, 1.0).sigma(1000.0)) == pytest.approx(math.sqrt(0.5), rel=1e-15)


def test_the_prior_is_keyed_by_seed_and_row(process: AffineSDE) -> None:
    mean, std = process.prior
    assert mean == 0.0 and std == float(process.sigma(process.t_max))
    x = process.sample_prior((5, 2, 3), seed=4, dtype=F64)
    z = normals(4, torch.arange(5), 0, 6, stream=PRIOR_STREAM, dtype=F64)
    assert torch.equal(x, std * z.reshape(5, 2, 3))
    assert torch.equal(process.sample_prior((2, 2, 3), seed=4, dtype=F64), x[:2])
    assert process.sample_prior((3,), seed=0).shape == (3,) and process.sample_prior((0, 4), seed=0).shape == (0, 4)
    assert process.sample_prior((3,), seed=0).dtype == torch.get_default_dtype()
    assert process.sample_prior((3,), seed=0, dtype=torch.bfloat16).dtype == torch.bfloat16
    torch.manual_seed(1)
    first = process.sample_prior((3,))
    torch.manual_seed(1)
    assert torch.equal(first, process.sample_prior((3,)))


def test_the_default_ends_lie_in_the_domain_and_the_default_grid_is_finite(process: AffineSDE) -> None:
    low, high = process.domain
    assert low <= process.t_min < process.t_max <= high
    times = sdekit.grids.get(process.default_grid)(process, 10)
    assert torch.isfinite(times).all() and float(times[0]) == process.t_max and float(times[-1]) == process.t_min


def test_equal_parameters_make_equal_processes(process: AffineSDE) -> None:
    if process is DERIVED:
        same = AffineSDE(falling, rising, t_min=1e-3, t_max=1.2)
        assert repr(same) == "AffineSDE(falling, rising, t_data=0.0, t_min=0.001, t_max=1.2)"
    else:
        same = eval(repr(process), vars(sdekit))
    assert same == process and hash(same) == hash(process) and repr(same) == repr(process)
    for other in (pickle.loads(pickle.dumps(process)), copy.deepcopy(process)):
        assert other == process and hash(other) == hash(process) and repr(other) == repr(process)
        assert torch.equal(other.half_log_snr(0.3), process.half_log_snr(0.3))
    assert sum(p == process for p in [*PROCESSES, DERIVED]) == 1
    assert process != "a process"
    with pytest.raises(AttributeError):
        process.t_min = 0.5  # type: ignore[misc]


def test_repr_shows_every_parameter() -> None:
    assert repr(VP()) == "VP(beta_min=0.1, beta_max=20.0)" and repr(EDM()) == "EDM()"
    assert repr(OrnsteinUhlenbeck(2.0, 3.0)) == "OrnsteinUhlenbeck(theta=2.0, sigma=3.0)"
    assert repr(VPCosine()) == "VPCosine(s=0.008)" and repr(SubVP()) == "SubVP(beta_min=0.1, beta_max=20.0)"
    assert repr(DiscreteVP([0.1, 0.2])) == "DiscreteVP(betas=(0.1, 0.2))"
    assert repr(DiscreteVP([0.1] * 999 + [0.2])) == "DiscreteVP(betas=<1000 numbers from 0.1 to 0.2>)"
    p = VP()
    shown = repr(AffineSDE(schedule=p.schedule, t_min=0.1, t_max=1.0))
    assert shown == "AffineSDE(schedule=VPSchedule(beta_min=0.1, beta_max=20.0), t_min=0.1, t_max=1.0)"


def test_betas_come_as_a_list_a_tensor_or_an_array() -> None:
    betas = [0.1, 0.25, 0.5]
    p = DiscreteVP(betas)
    assert p == DiscreteVP(tuple(betas)) == DiscreteVP(torch.tensor(betas, dtype=F64))
    assert p == DiscreteVP(torch.tensor(betas, dtype=F64).numpy()) and p != DiscreteVP(betas[:2])
    # Values are taken as they are in their precision.
    assert DiscreteVP(torch.tensor(betas)) != p == DiscreteVP(torch.tensor(betas, dtype=F64).numpy())
    assert (p.t_min, p.t_max, p.domain) == (1.0, 3.0, (0.0, 3.0))
    assert torch.equal(p.timestep(torch.tensor([1.0, 3.0])), torch.tensor([0.0, 2.0]))
    for bad, error in (([0.1], OptionError), ("abc", InterfaceError), (None, InterfaceError), (["0.1"], InterfaceError),
                       (torch.ones(2, 2), OptionError), ([0.1, 1.5], OptionError)):  # fmt: skip
        with pytest.raises(error, match="betas"):
            DiscreteVP(bad)  # type: ignore[arg-type]


def test_a_network_of_a_ddpm_is_called_with_its_timesteps() -> None:
    seen = []
    process = DiscreteVP(torch.linspace(1e-4, 0.02, 1000, dtype=F64))
    model = sdekit.Model(lambda x, t: seen.append(t[0].item()) or 0 * x, process, time_map=process.timestep)
    times = torch.tensor([1000.0, 500.0, 1.0], dtype=F64)
    sdekit.sample(model, (2, 3), "ddim", grid=times, seed=0)
    assert seen == [999.0, 499.0]


def test_the_dynamics_of_an_affine_process_are_final() -> None:
    class Allowed(VP):
        pass

    assert Allowed().drift is not None

    class Mixin:
        def drift(self, t: Tensor, x: Tensor) -> Tensor:
            return x

    for name in ("drift", "diffusion"):
        with pytest.raises(InterfaceError, match=f"Mine.{name}.*Derive from sdekit.SDE"):
            type("Mine", (VP,), {name: lambda self, t, x: x})
    with pytest.raises(InterfaceError, match=r"Mine\.drift"):
        type("Mine", (Mixin, VP), {})
    assert issubclass(AffineSDE, SDE)


def test_bad_times_states_and_shapes_are_named() -> None:
    p, x = VP(), torch.zeros(2, 3)
    for t in (-0.1, 1.1, math.nan, torch.tensor([0.5, 2.0])):
        with pytest.raises(OptionError, match=r"times in \[0.0, 1.0\]"):
            p.perturb(t, x, x)
    with pytest.raises(ShapeError, match="noise"):
        p.perturb(0.5, x, torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="t: got shape"):
        p.perturb(torch.tensor([0.1, 0.2, 0.3]), x, x)
    with pytest.raises(InterfaceError, match="x0"):
        p.perturb(0.5, x.long(), x.long())
    with pytest.raises(OptionError, match="t_to >= t_from"):
        p.transition(0.5, 0.2)
    with pytest.raises(OptionError, match="t_to"):
        p.transition(0.5, 1.2)
    for times in ([0.5, 0.5], [0.5, 0.1]):
        with pytest.raises(OptionError, match="increasing"):
            p.simulate(x, times, seed=0)
    for times in ([0.5], [[0.1, 0.2]]):
        with pytest.raises((OptionError, InterfaceError), match="times"):
            p.simulate(x, times, seed=0)  # type: ignore[arg-type]
    for shape in ((), (-1, 2), (1.5,), (True,)):
        with pytest.raises(ShapeError, match="shape"):
            p.sample_prior(shape, seed=0)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="t_to"):
        VPCosine().transition(0.5, 1.2)
    with pytest.raises(OptionError, match="t_min, t_max"):
        AffineSDE(schedule=p.schedule, t_min=0.5, t_max=0.2, domain=(0.0, 1.0), default_grid="uniform")


BATCHED = {
    "vp": sdekit.VP(),
    "ve": sdekit.VE(),
    "edm": sdekit.EDM(),
    "rectified flow": sdekit.RectifiedFlow(),
    "cosine": sdekit.VPCosine(),
    "sub-vp": sdekit.SubVP(),
    "ornstein-uhlenbeck": sdekit.OrnsteinUhlenbeck(),
    "heat": sdekit.Heat(),
    "discrete": sdekit.DiscreteVP(torch.linspace(1e-4, 0.02, 1000)),
    "f and g": sdekit.AffineSDE(lambda t: -t, lambda t: torch.sqrt(0.1 + 2 * t), t_min=1e-3, t_max=3.0),
}
FUNCTIONS = ("alpha", "sigma", "log_alpha", "log_sigma", "half_log_snr", "drift_coefficient", "diffusion_coefficient")


@pytest.mark.parametrize("name", BATCHED)
def test_a_time_does_not_know_of_the_others(name):
    process = BATCHED[name]
    t = process.t_min + (process.t_max - process.t_min) * torch.linspace(0.02, 0.98, 203, dtype=torch.float64)
    for function, values in [(getattr(process, f), t) for f in FUNCTIONS] + [
        (process.time_at, process.half_log_snr(t))
    ]:
        for size in (1, 7, 64):
            assert torch.equal(torch.cat([function(v.clone()) for v in values.split(size)]), function(values)), function
