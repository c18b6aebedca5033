"""Plans check their rows, count their calls, and survive the way through JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle

import numpy as np
import pytest

from sdekit import EDM, VP, Plan, RectifiedFlow, solvers
from sdekit.affine import Level
from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.plan import DATA, NOISE, Block, Combination, Direction, Row, combine, commit, stage
from sdekit.solvers import PlanSolver

LEVEL = Level(0.5, 0.8, 0.6, 0.3, -0.1, 0.2)
COEFFICIENTS = [0.1, -1 / 3, 1e-300, Direction(np.array([0.1, 1 / 3])), Block(np.array([[1.0, 0.1], [0.0, 1 / 7]]))]
NAMES = [i.name for i in solvers.available() if isinstance(solvers.get(i.name), PlanSolver)]


def plan(*rows: Row, times=(1.0, 0.5), clock=None) -> Plan:
    return Plan("mine", tuple(times), rows, (0.5, 0.9), (0.9, 0.3), "VP()", clock)


def one(**changes) -> Row:
    return dataclasses.replace(commit(0, LEVEL, DATA, 1.0, {0: 0.5}), **changes)


def test_combinations_drop_zero_terms_and_sort_the_others() -> None:
    c = combine(0.0, {2: 0.5, 0: 0.0, 1: Direction([0.0])}, {1: 0.0, 0: 2.0})
    assert c == Combination(0.0, ((1, Direction([0.0])), (2, 0.5)), ((0, 2.0),))
    assert list(c.coefficients()) == [0.0, Direction([0.0]), 0.5, 2.0]


def test_commit_moves_both_and_stage_only_the_point() -> None:
    a, b = commit(3, LEVEL, NOISE, 1.0, {0: 0.5}), stage(3, LEVEL, NOISE, 1.0, {0: 0.5}, {0: 1.0})
    assert (a.t, a.alpha, a.sigma, a.weights, a.step, a.point) == (0.5, 0.8, 0.6, NOISE, 3, None)
    assert b.base is None and b.point == combine(1.0, {0: 0.5}, {0: 1.0})


@pytest.mark.parametrize(
    "rows, words",
    [
        ([], "a row at least"),
        ([one(step=1)], r"steps \[1\]"),
        ([one(), one(step=2)], r"steps \[0, 2\]"),
        ([one(t=math.nan)], "a call at t = nan"),
        ([one(weights=(math.inf, 0.0))], "weights"),
        ([one(base=combine(math.nan))], "undefined coefficient in row 0, step 0, t = 0.5"),
        ([one(base=combine(1.0, {0: math.inf}))], "infinite"),
        ([one(base=combine(1.0, None, {0: math.inf}))], "infinite"),
        ([one(base=combine(1.0, {1: 0.5}))], "older than the first call"),
        ([one(base=combine(1.0, {-1: 0.5}))], "older than the first call"),
        ([one(), one(step=0, point=combine(1.0, {2: 0.5}))], "older"),
        ([one(kick=combine(1.0, {0: 0.5}))], "outputs in the kick"),
        ([one(kick=combine(math.inf))], "infinite"),
    ],
)
def test_rows_that_mean_nothing_are_refused(rows, words: str) -> None:
    times = (1.0, 0.5) if len({r.step for r in rows}) < 2 else (1.0, 0.7, 0.5)
    with pytest.raises(OptionError, match=words):
        plan(*rows, times=times)


def test_a_singular_call_names_solvers_that_take_the_limit() -> None:
    with pytest.raises(OptionError, match=r"where sigma = 0.*ddim, dpmpp_2m"):
        solvers.get("heun", clock="t").plan(VP(), [1.0, 0.5, 0.0])
    assert solvers.get("heun", clock="t").plan(RectifiedFlow(), [1.0, 0.5, 0.0]).nfe == 4
    assert solvers.get("dpmpp_2m").plan(VP(), [1.0, 0.5, 0.0]).nfe == 2


def test_calls_memory_and_last_use_are_read_off_the_rows() -> None:
    times = np.linspace(0.9, 0.1, 7)
    for name, options, nfe, memory in (
        ("euler", {}, 6, 1),
        ("heun", {}, 12, 2),
        ("midpoint", {}, 12, 1),
        ("rk4", {}, 24, 4),
        ("dpmpp_2m", {}, 6, 2),
        ("exp_adams", {"order": 4}, 6, 4),
    ):
        p = solvers.get(name, **options).plan(VP(), times)
        assert (p.nfe, p.memory, p.steps, p.stochastic) == (nfe, memory, 6, False), name
    p = solvers.get("dpmpp_2m").plan(VP(), times)
    assert p.last_use == (1, 2, 3, 4, 5, 5)
    noisy = solvers.get("ddpm").plan(VP(), times)
    assert noisy.stochastic and list(noisy.noises()) == [(i, 0) for i in range(6)]


@pytest.mark.parametrize("name", NAMES)
def test_json_restores_every_solver_s_plan_exactly(name: str) -> None:
    for process, times in ((VP(), np.linspace(1, 0.0, 6)[:-1]), (RectifiedFlow(), np.linspace(1, 0, 4))):
        p = solvers.get(name).plan(process, times)
        back = Plan.from_json(p.to_json())
        assert back == p and hash(back) == hash(p) and back.to_json() == p.to_json()
        assert pickle.loads(pickle.dumps(p)) == p


@pytest.mark.parametrize("c", COEFFICIENTS, ids=lambda c: type(c).__name__)
def test_json_restores_every_kind_of_coefficient_and_clock(c) -> None:
    rows = (
        stage(0, LEVEL, (0.3, -0.7), c, {0: c}, {0: c, 1: c}, kick=combine(c, None, {0: c})),
        commit(0, LEVEL, NOISE, c, {0: c, 1: 0.1}),
    )
    p = plan(*rows, clock=(0.25, math.inf))
    back = Plan.from_json(p.to_json())
    assert back == p and back.clock == (0.25, math.inf) and back.rows[0].kick == p.rows[0].kick
    assert back != dataclasses.replace(p, clock=None)
    json.loads(p.to_json(), parse_constant=lambda s: pytest.fail(f"{s} is not JSON"))


def test_what_is_no_plan_is_refused() -> None:
    good = json.loads(plan(one()).to_json())
    for change in ({"format": "other"}, {"version": 2}, {"rows": []}, {"rows": [1]}, {"times": "ab"}, {"start": [1.0]}):
        with pytest.raises(OptionError):
            Plan.from_json(json.dumps({**good, **change}))
    for text in ("", "[]", "{}", "null", '{"format": "sdekit-plan"}'):
        with pytest.raises(OptionError, match="sdekit-plan version 1"):
            Plan.from_json(text)
    bad = json.loads(plan(one()).to_json())
    bad["rows"][0]["base"]["base"] = "1.0"
    with pytest.raises(InterfaceError, match="a number, a direction or a block"):
        Plan.from_json(json.dumps(bad))


def test_describe_is_a_table_to_check_against_the_paper() -> None:
    p = solvers.get("dpmpp_2m_sde").plan(RectifiedFlow(), [0.8, 0.5, 0.2])
    head, columns, *lines = p.describe().splitlines()
    assert "dpmpp_2m_sde(eta=1.0" in head and "2 steps, 2 model calls, 2 outputs" in head and "stochastic" in head
    assert columns.split() == ["step", "t", "E"] and len(lines) == 4
    assert lines[0].split() == ["0", "0.8", "E0", "=", "data"]
    row = p.rows[1].base
    numbers = [row.base, *(b for _, b in row.outputs), row.noises[0][1]]
    terms = lines[3].partition("<- ")[2].replace(" - ", " + -").split(" + ")
    shown = [float(term.split()[0]) for term in terms]
    assert shown == pytest.approx(numbers, rel=1e-9)
    assert [term.split()[1] for term in terms] == ["base", "E0", "E1", "z0"]
    velocity = solvers.get("euler", clock="t").plan(RectifiedFlow(), [0.8, 0.5]).describe()
    assert "E0 = -1 data + 1 noise" in velocity
    kinds = plan(stage(0, LEVEL, NOISE, COEFFICIENTS[3], {0: COEFFICIENTS[4]}), one()).describe()
    assert "direction(2,) base + block(2, 2) E0" in kinds and "E0 = noise" in kinds


def test_coefficients_are_frozen_finite_and_square() -> None:
    values = np.ones(2)
    direction = Direction(values)
    values[0] = 5.0
    assert direction == Direction([1.0, 1.0]) and direction != Direction([1.0, 2.0]) and direction != Block(np.eye(2))
    assert hash(direction) == hash(Direction([1.0, 1.0])) and hash(Block(np.eye(2))) == hash(Block(np.eye(2)))
    assert Block(np.eye(2)) != Block(2 * np.eye(2))
    with pytest.raises(ValueError, match="read-only"):
        direction.values[0] = 3.0
    for make, value in ((Direction, [math.nan]), (Block, [[math.inf]])):
        with pytest.raises(OptionError, match="NaN or infinity"):
            make(value)
    for matrix in ([1.0], [[1.0, 2.0]]):
        with pytest.raises(ShapeError, match=r"\(k, k\)"):
            Block(matrix)


def test_json_whose_times_are_not_those_of_its_rows_is_refused() -> None:
    for name in NAMES:
        text = solvers.get(name).plan(VP(), np.linspace(0.9, 0.05, 6)).to_json()
        assert Plan.from_json(text).to_json() == text
        document = json.loads(text)
        if document["rows"][0]["kick"] is None:
            for times in (document["times"][::-1], [0.91, *document["times"][1:]]):
                with pytest.raises(OptionError, match=r"^text: got row 0, .* t = 0\.9; expected"):
                    Plan.from_json(json.dumps({**document, "times": times}))
    up = solvers.get("ddim").plan(VP(), [0.1, 0.5, 0.9])
    assert Plan.from_json(up.to_json()) == up
    with pytest.raises(OptionError, match=r"^text: got row 0"):
        Plan.from_json(solvers.get("ddim").plan(VP(), [0.9, 0.1]).to_json().replace("[0.9, 0.1]", "[0.1, 0.9]"))
    annealed = solvers.get("annealed_langevin").plan(EDM(), [20.0, 5.0, 1.0])  # calls at ends of steps, without a kick
    assert Plan.from_json(annealed.to_json()) == annealed
    churned = solvers.get("edm", churn=2.0).plan(EDM(), [20.0, 5.0, 1.0, 0.0])
    assert Plan.from_json(churned.to_json()) == churned
    for times in ([10**400, 0], [math.nan, 0.0], ["a", 0.0]):
        with pytest.raises(OptionError, match=r"^(text|plan times): got"):
            Plan.from_json(json.dumps({**json.loads(up.to_json()), "times": times}))
