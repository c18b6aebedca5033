"""The estimator rejects planted mistakes, and accepts the same solvers without them."""

from __future__ import annotations

import pytest

from sdekit.solvers import get
from sdekit.testing import observed_order
from tests.testing import mutants as m

SHORT = 0.15
FEW = (20, 40, 80)
MORE = (40, 80, 160)

# What is wrong, the mutant, the order that it is left with, and the grid that shows it.
DETERMINISTIC = [
    ("phi_3 for 2 phi_3, the released 3M", m.ThirdOrder(last=1.0), 2, "karras"),
    ("sigma_s for sigma_t, noise prediction", m.ThirdOrder("noise", old_sigma=True), 1, "karras"),
    ("alpha_s for alpha_t, data prediction", m.ThirdOrder(old_sigma=True), 1, "uniform"),
    ("first-order last step", m.ThirdOrder(first_order_end=True), 2, "uniform"),
    ("sign of the difference", m.Rewritten(get("dpmpp_2m"), m.flip_difference), 1, "half_log_snr"),
    ("weights for equal steps", m.Rewritten(get("dpmpp_2m"), m.equal_steps), 1, "irregular"),
    ("stage at another time", m.Rewritten(get("midpoint"), m.stage_at_step_end), 1, "half_log_snr"),
    ("weights off by h/10", m.Rewritten(get("dpmpp_2m"), m.off_by_tenth), 1, "random"),
    ("stage of a stepper at another time", m.StepOnly(early=True), 1, "uniform"),
]

WEAK = [
    ("noise drawn twice", m.Rewritten(get("ddpm"), m.doubled_noise), 0, "half_log_snr"),
    ("noise drawn twice", m.Rewritten(get("dpmpp_2m_sde"), m.doubled_noise), 0, "karras"),
    ("two independent noises for one", m.TwoStage(shared=False), 1, "half_log_snr"),
    ("sigma_s for sigma_t in the noise", m.Rewritten(get("dpmpp_2m_sde"), m.older_std), 1, "uniform"),
    ("e^{-h} for e^{-2h} in the noise", m.Rewritten(get("ddpm"), m.halved_exponent), 0, "uniform"),
    ("sign of the difference", m.Rewritten(get("dpmpp_2m_sde"), m.flip_difference), 1, "half_log_snr"),
    ("no noise", m.Rewritten(get("euler_maruyama"), lambda row, _: m.with_noise(row, 0.0)), 0, "random"),
]


@pytest.mark.parametrize("mistake, mutant, order, grid", DETERMINISTIC, ids=[f"{d[0]}" for d in DETERMINISTIC])
def test_mistakes_in_deterministic_solvers_are_seen(mistake, mutant, order, grid):
    found = observed_order(mutant, grid=grid, steps=MORE if isinstance(mutant, m.ThirdOrder) else FEW)
    assert found.declared is not None and found.value < found.declared - SHORT, str(found)
    assert abs(found.value - order) < 0.4, str(found)


@pytest.mark.parametrize("mistake, mutant, order, grid", WEAK, ids=[f"{w[0]}-{w[1].declared.weak}" for w in WEAK])
def test_mistakes_in_the_noise_are_seen(mistake, mutant, order, grid):
    found = observed_order(mutant, "weak", grid=grid, steps=(40, 80, 160))
    assert found.declared is not None and found.value < found.declared - SHORT, str(found)
    assert abs(found.value - order) < 0.4, str(found)


@pytest.mark.parametrize(
    "twin, kind, grid",
    [
        (m.ThirdOrder(), "deterministic", "karras"),
        (m.ThirdOrder("noise"), "deterministic", "half_log_snr"),
        (m.Rewritten(get("dpmpp_2m"), lambda row, _: row), "deterministic", "irregular"),
        (m.StepOnly(), "deterministic", "uniform"),
        (m.TwoStage(), "weak", "half_log_snr"),
        (m.TwoStage(), "weak", "uniform"),
    ],
    ids=["3M", "3M noise", "2M irregular", "stepper", "two stages", "two stages uniform"],
)
def test_sound_twins_are_accepted(twin, kind, grid):
    steps = FEW if grid == "irregular" else MORE if kind == "deterministic" else None
    found = observed_order(twin, kind, grid=grid, steps=steps)
    assert found.reaches(tolerance=0.3 if grid == "irregular" else SHORT), str(found)
    assert found.value < found.declared + 0.35, str(found)


def test_the_third_order_twin_is_exp_adams():
    """Two transcriptions of one method: closed-form weights here, a linear system there."""
    from sdekit import VP

    times = [0.8, 0.7, 0.55, 0.5, 0.3, 0.2]
    for prediction in ("data", "noise"):
        ours = m.ThirdOrder(prediction).plan(VP(), times)
        theirs = get("exp_adams", order=3, prediction=prediction, starter="single_step").plan(VP(), times)
        # The twin takes two single steps of four calls where exp_adams takes one, and then a step of order 2.
        for a, b in zip(ours.rows[8:], theirs.rows[5:], strict=True):
            assert a.base is not None and b.base is not None
            assert a.base.base == pytest.approx(b.base.base, rel=1e-14)
            assert [w for _, w in a.base.outputs] == pytest.approx([w for _, w in b.base.outputs], rel=1e-11)


def test_a_mistake_in_one_of_many_steps_is_seen_too():
    """Only the fifth step is off, by a hundredth of what it adds: an error of order h, once."""

    def weight(row, levels):
        if row.step != 5 or row.base is None:
            return row
        return m.with_outputs(row, {age: 1.01 * w for age, w in row.base.outputs})

    found = observed_order(m.Rewritten(m.ThirdOrder(), weight), steps=MORE)
    assert not found.reaches() and abs(found.value - 1) < 0.5, str(found)
