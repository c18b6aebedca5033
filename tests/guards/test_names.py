"""No name is guessed, no option swallowed: typos are refused with the right spelling, and each option does something.

Without `suggest` the share of right suggestions is 0; with difflib alone it falls short on short names ("em", "rk4").
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import string
from collections.abc import Iterator

import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError, SdekitError, UnknownNameError, suggest
from sdekit.parameterisation import PREDICTIONS
from sdekit.registry import Registry, check_options
from tests.option_effects import ADAPTIVE_EFFECTS, EFFECTS, SDE_EFFECTS

SOLVERS = [i.name for i in sdekit.solvers.available()]
ALIASES = {alias: i.name for i in sdekit.solvers.available() for alias in i.aliases}
GRIDS = sdekit.grids.available()
OPTIONS = {n: [f.name for f in dataclasses.fields(type(sdekit.solvers.get(n)))] for n in SOLVERS}
KEYWORDS = {
    f.__name__: [p.name for p in inspect.signature(f).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for f in (sdekit.solve, sdekit.sample)
}
LETTERS = string.ascii_lowercase + "_0"
VP = sdekit.VP()
MODEL = sdekit.Model(lambda x, t: torch.tanh(x), VP)


def typos(name: str) -> Iterator[str]:
    """Every deletion, swap of neighbours, replacement and insertion of one character."""
    found = set()
    for i in range(len(name) + 1):
        found |= {name[:i] + c + name[i:] for c in LETTERS}
        if i < len(name):
            found |= {name[:i] + name[i + 1 :]} | {name[:i] + c + name[i + 1 :] for c in LETTERS}
        if i + 1 < len(name):
            found.add(name[:i] + name[i + 1] + name[i] + name[i + 2 :])
    return iter(sorted(found - {name, ""}))


def score(names: list[str], known: list[str]) -> float:
    """The share of typos of `names` whose suggestion contains the right one; other known names are no typos.

    One of nineteen that are next to each other in the alphabet: there are thousands.
    """
    right = total = 0
    for name in names:
        for typo in itertools.islice(typos(name), 0, None, 19):
            if typo in known:
                continue
            total += 1
            right += repr(name) in suggest(typo, known)
    return right / max(total, 1)


@pytest.mark.parametrize(
    "names, known",
    [
        (SOLVERS, [*SOLVERS, *ALIASES]),
        ([*ALIASES], [*SOLVERS, *ALIASES]),
        (GRIDS, GRIDS),
        (sorted({o for options in OPTIONS.values() for o in options}), None),
        (KEYWORDS["solve"], KEYWORDS["solve"]),
        (list(PREDICTIONS), list(PREDICTIONS)),
    ],
    ids=["solvers", "aliases", "grids", "options", "keywords", "predictions"],
)
def test_typos_get_the_right_suggestion(names, known):
    assert score(names, names if known is None else known) >= 0.95


def _refused(call, kind=UnknownNameError):
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("name", SOLVERS)
def test_lookups_suggest(name):
    """End to end for a few typos of each; `suggest` itself has seen many more."""
    for typo in [t for t in typos(name) if t not in SOLVERS and t not in ALIASES][::40]:
        for call in (
            lambda t=typo: sdekit.solvers.get(t),
            lambda t=typo: sdekit.solvers.info(t),
            lambda t=typo: sdekit.solve(MODEL, torch.ones(2, 1), [0.9, 0.1], t),
            lambda t=typo: sdekit.sample(MODEL, (2, 1), t),
        ):
            message = _refused(call)
            assert message.startswith(f"solver: got {typo!r}") and repr(name) in message


@pytest.mark.parametrize("name", GRIDS)
def test_grid_lookups_suggest(name):
    for typo in [t for t in typos(name) if t not in GRIDS][::40]:
        for call in (lambda t=typo: sdekit.grids.get(t), lambda t=typo: sdekit.sample(MODEL, (2, 1), grid=t)):
            assert repr(name) in _refused(call)


@pytest.mark.parametrize("name", [n for n in SOLVERS if OPTIONS[n]])
def test_option_lookups_suggest(name):
    for option in OPTIONS[name]:
        for typo in [t for t in typos(option) if t not in OPTIONS[name]][::20]:
            message = _refused(lambda t=typo: sdekit.solvers.get(name, **{t: 1}))
            assert message.startswith(f"{name}({typo}=): got {typo!r}") and repr(option) in message


@pytest.mark.parametrize("function", [sdekit.solve, sdekit.sample], ids=["solve", "sample"])
def test_unknown_keywords_are_refused(function):
    calls = []
    model = sdekit.Model(lambda x, t, label=None: calls.append(1) or x, VP)
    arguments = {
        sdekit.solve: (model, torch.ones(2, 1), [0.9, 0.1], "heun"),
        sdekit.sample: (model, (2, 1), "heun", 2),
    }[function]
    known = set(KEYWORDS["solve"]) | set(inspect.signature(sdekit.sample).parameters) | {"label"}
    for keyword in KEYWORDS[function.__name__]:
        for typo in [t for t in typos(keyword) if t not in known and t.isidentifier()][::25]:
            message = _refused(lambda t=typo: function(*arguments, **{t: 1}))
            assert message.startswith(f"{typo}: got an argument that") and repr(keyword) in message
    assert not calls


def test_keywords_of_the_network_pass():
    seen = []
    model = sdekit.Model(lambda x, t, label=None: seen.append(label) or x, VP)
    sdekit.solve(model, torch.ones(2, 1), [0.9, 0.1], "ddim", label="a")
    sdekit.sample(model, (2, 1), "ddim", 1, conditioning={"label": "b"})
    anything = sdekit.Model(lambda x, t, **more: seen.append(more["label"]) or x, VP)
    sdekit.solve(anything, torch.ones(2, 1), [0.9, 0.1], "ddim", label="c")
    assert seen == ["a", "b", "c"]
    for name in ("x", "t"):  # which the solver passes
        if name == "t":
            assert "argument" in _refused(lambda: sdekit.solve(model, torch.ones(2, 1), [0.9, 0.1], "ddim", t=1))
    assert "'label'" in _refused(lambda: sdekit.sample(model, (2, 1), "ddim", 1, conditioning={"lable": 1}))


def test_aliases_are_the_same_solver():
    assert {"em", "k_heun", "edm", "k_dpmpp_2m", "dpm_2", "UniPC", "euler_a", "dpmpp_2s_a"} <= set(ALIASES)
    for alias, name in ALIASES.items():
        assert sdekit.solvers.get(alias) == sdekit.solvers.get(name)
        assert sdekit.solvers.info(alias).name == name
    for alias in ("logsnr", "lambda", "polyexponential"):
        grid = sdekit.grids.get(alias)(sdekit.EDM(), 5)
        assert grid.shape == (6,)


def test_every_solver_option_is_listed_here():
    options = {(name, option) for name, options in OPTIONS.items() for option in options}
    assert set(EFFECTS) | set(ADAPTIVE_EFFECTS) | set(SDE_EFFECTS) == options


@pytest.mark.parametrize("name, option", SDE_EFFECTS)
def test_every_sde_option_changes_a_result(name, option):
    def diffusion(t, x):
        return torch.stack([x.cos(), x.flip(1)], -1) if option == "area" else 1 + 0.3 * x.sin()

    kind = "general" if option == "area" else "diagonal"
    sde = sdekit.make_sde(lambda t, x: -(x**3), diffusion, kind)  # type: ignore[arg-type]
    x = torch.tensor([[0.3, -0.5], [1.1, 0.7]], dtype=torch.float64)

    def end(**options):
        return sdekit.solve(sde, x, [0.0, 0.3, 0.5], sdekit.solvers.get(name, **options), seed=0).x

    change = SDE_EFFECTS[name, option]
    if option == "tolerance":
        with pytest.raises(SdekitError, match="Newton"):
            end(iterations=2, **change)
        assert torch.equal(end(tolerance=1e-3), end())
    else:
        assert not torch.equal(end(), end(**({"tolerance": 1.0} if option == "iterations" else {}), **change))
    assert f"{option}=" in sdekit.solvers.get(name).label


@pytest.mark.parametrize("name, option", EFFECTS)
def test_every_solver_option_changes_a_result(name, option):
    changed, company = EFFECTS[name, option]
    model = sdekit.targets.GaussianMixture([1.0, 1.0], [[1.0], [-1.0]], 0.2).under(VP)
    x, times = torch.tensor([[0.3], [1.1]], dtype=torch.float64), [0.9, 0.6, 0.4, 0.2, 0.1]

    def end(**options):
        return sdekit.solve(model, x, times, sdekit.solvers.get(name, **options), seed=0).x

    assert not torch.equal(end(**company), end(**company, **changed))
    default = {f.name: f.default for f in dataclasses.fields(type(sdekit.solvers.get(name)))}[option]
    assert torch.equal(end(**company), end(**{**company, option: default}))
    assert f"{option}=" in sdekit.solvers.get(name).label


@pytest.mark.parametrize("name, option", ADAPTIVE_EFFECTS)
def test_every_adaptive_option_changes_an_adaptive_result(name, option):
    model = sdekit.targets.GaussianMixture([1.0, 1.0], [[1.0], [-1.0]], 0.2).under(VP)
    x = torch.tensor([[0.3], [1.1]], dtype=torch.float64)

    def end(rtol, **options):
        return sdekit.solve(model, x, [0.9, 0.1], sdekit.solvers.get(name, **options), rtol=rtol).x

    change = ADAPTIVE_EFFECTS[name, option]
    same = torch.allclose(end(1e-4), end(1e-4, **change), rtol=0, atol=1e-13)  # the model's products know the batch
    assert same == (option == "compact")
    assert torch.equal(end(None), end(None, **change))  # fixed steps
    assert f"{option}=" in sdekit.solvers.get(name).label


@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_option_changes_a_grid(name):
    function = sdekit.grids.get(name)
    edm = sdekit.EDM()
    values = {"t_start": 10.0, "t_end": 0.1, "append_zero": True, "rho": 3.0, "power": 3.0, "shift": 5.0, "alpha": 2.0}
    values |= {"beta": 0.9, "beta_min": 1.0, "beta_max": 10.0, "threshold": 0.1, "linear_steps": 1, "timesteps": 7}
    values |= {"offset": 0, "model": "sdxl"}
    options = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert set(options) <= set(values)
    for option in options:
        assert not torch.equal(function(edm, 5), function(edm, 5, **{option: values[option]}))
        assert torch.equal(
            sdekit.grids.get(name, **{option: values[option]})(edm, 5), function(edm, 5, **{option: values[option]})
        )


def test_every_option_of_solve_and_sample_does_something():
    """One line for each; that the list is whole is checked at the end."""
    x, ends, seen = torch.linspace(-1, 1, 4)[:, None].double(), [0.9, 0.1], []
    solve = {"dynamics": MODEL, "x": x, "times": ends, "solver": "ddpm", "steps": 4, "seed": 0}

    def run(**options):
        return sdekit.solve(**{**solve, **options})

    base = run()

    def differs(**options):
        return not torch.equal(run(**options).x, base.x)

    done = {
        "steps": differs(steps=5),
        "seed": differs(seed=1),
        "noise": differs(noise="plain"),
        "sample_ids": differs(sample_ids=torch.arange(4) + 1),
        "max_nfe": bool(_refused(lambda: run(max_nfe=3), SdekitError)),
        "rtol": bool(_refused(lambda: run(rtol=0.1), SdekitError)),
        "atol": bool(_refused(lambda: run(atol=0.1), SdekitError)),
        "save": len(run(save="all").xs) == 5,
        "on_failure": run(x=x * torch.nan, on_failure="mask").status.tolist() == [1] * 4,
        "checks": run(x=x * torch.nan, checks="off").success,
        "callback": run(callback=lambda info: seen.append(info) or True).steps.tolist() == [1] * 4,
        "progress": run(progress=type("Bar", (), {"update": lambda self, n: seen.append(n)})()).success,
        "gradients": bool(_refused(lambda: run(gradients="adjoint"), SdekitError)),
    }
    fall = {"dynamics": sdekit.make_ode(lambda t, x: -torch.ones_like(x)), "solver": "rk45", "rtol": 1e-6}
    fall |= {"times": [0.0, 3.0], "steps": None, "seed": None}
    done |= {
        "dense": run(**fall, dense=True).dense is not None,
        "event": not torch.equal(run(**fall, event=lambda t, x: x[:, 0]).x, run(**fall).x),
        "jump_times": not torch.equal(run(**fall, jump_times=[1.0]).steps, run(**fall).steps),
        "step_times": not torch.equal(run(**fall, step_times=[1.0]).steps, run(**fall).steps),
    }
    assert len(seen) == 5
    assert set(done) == set(KEYWORDS["solve"]) and all(done.values()), done

    def draw(**options):
        arguments = {"model": MODEL, "shape": (4, 1), "solver": "ddpm", "steps": 4, "seed": 0, **options}
        return sdekit.sample(**arguments)

    w = torch.tensor(1.0, requires_grad=True)
    scaled = sdekit.Model(lambda x, t, c=1.0: torch.tanh(w * x) * c, VP)
    first = draw()
    many = []
    draws = {
        "grid": not torch.equal(draw(grid="uniform"), first),
        "seed": not torch.equal(draw(seed=1), first),
        "sample_ids": torch.equal(draw(sample_ids=[3, 2, 1, 0]), first.flip(0)),
        "batch_size": draw(batch_size=3, callback=lambda i: many.append(len(i.x))) is not None and set(many) == {3},
        "x_start": torch.equal(draw(x_start=x[:, :1] * 0, t_start=0.5), draw(x_start=x * 0, t_start=0.5)),
        "t_start": not torch.equal(draw(x_start=x, t_start=0.5), draw(x_start=x, t_start=0.6)),
        "conditioning": not torch.equal(draw(model=scaled, conditioning={"c": 2.0}), draw(model=scaled)),
        "grad": draw(model=scaled, grad=True).requires_grad and not draw(model=scaled).requires_grad,
        "device": draw(device="cpu").device.type == "cpu",
        "dtype": draw(dtype=torch.float64).dtype == torch.float64,
    }
    assert set(draws) == set(KEYWORDS["sample"]) and all(draws.values()), draws


def test_registry_and_options():
    registry = Registry("thing")
    registry.register("one", 1, ("uno", "eins"))
    assert registry.get("uno") == 1 and registry.resolve("eins") == "one" and len(registry) == 1
    assert "It takes none" in suggest("x", [])
    assert suggest("zzzzzz", ["one", "two"]) == "Use one of: one, two."
    assert suggest("ONE", ["one"]) == "Did you mean 'one'?"
    for typo in ("ek", "me", "e", "xem", "em_"):  # too short to share many letters
        assert suggest(typo, ["em", "heun", "rk4"]) == "Did you mean 'em'?"
    for name in ("one", "uno"):
        with pytest.raises(SdekitError, match="name: got"):
            registry.register("two", 2, (name,))
    assert "two" not in list(registry)
    with pytest.raises(UnknownNameError, match="Did you mean 'one'"):
        registry.get("oen")
    for name in (1, None, ["one"], b"one"):
        with pytest.raises(InterfaceError, match="thing: got"):
            registry.get(name)
    check_options("f", lambda *, a, b=1: None, {"a": 1})
    with pytest.raises(UnknownNameError, match=r"f\(aa=\)"):
        check_options("f", lambda *, a: None, {"aa": 1})
