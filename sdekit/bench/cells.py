"""The cells of a suite: each is one measurement, written as plain data that a worker process can be sent."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sdekit import solvers
from sdekit.bench import names, peers, plugins
from sdekit.bench.faults import Faults
from sdekit.bench.suite import Build, Suite, Work
from sdekit.bench.summary import OWN_STEPS
from sdekit.errors import UnknownNameError, suggest
from sdekit.solvers import PlanSolver
from sdekit.solvers.base import registered

__all__ = ["Cell", "Named", "Timed", "Variant", "expand", "is_peer", "label_of", "runs_models"]

Options = tuple[tuple[str, Any], ...]

_RANGE = (-4.0, 4.0)
_NO_RANGE = (0.0, 0.0)


@dataclass(frozen=True)
class Named:
    """A process or a target of the suite: its name there, and how it is made."""

    name: str
    make: str
    options: Options


@dataclass(frozen=True)
class Variant:
    """A solver with options, and the label under which tables show it."""

    solver: str
    options: Options
    label: str


@dataclass(frozen=True)
class Timed:
    """A row of speed, and where and how it is timed; see `sdekit.bench.speed`."""

    row: str
    device: str
    dtype: str
    rounds: int

    @property
    def place(self) -> str:
        """Where it is measured: "device, dtype"."""
        return f"{self.device}, {self.dtype}"


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Attributes:
        what: "order", "work", "parts", "protocol", "sampled", "picture" or "speed".
        kind: "deterministic", "weak" or "strong"; "speed" of rows of it.
        low, high: half-log-SNR at the start and at the end.
        counts: step counts of an order (None: those that fit the declared one); numbers of calls of the others.
        samples: how many starts, or paths, the error is taken over.
        stochasticity: of the problem, where it is not what the kind and the solver's name imply.
        tolerances: in place of counts, for a solver that chooses its steps.
        truncations: of the protocol.
        finish: of the parts.
        metrics, repeats: of samples against exact ones.
        timed: a row of speed, which has no solver, process, target, grid and range of its own.
    """

    what: str
    kind: str
    variant: Variant
    process: Named
    target: Named
    grid: str
    low: float
    high: float
    counts: tuple[int, ...] | None
    samples: int
    seed: int
    stochasticity: float | None = None
    tolerances: tuple[float, ...] | None = None
    truncations: tuple[float, ...] | None = None
    finish: str | None = None
    metrics: tuple[str, ...] | None = None
    repeats: int | None = None
    timed: Timed | None = None

    @property
    def label(self) -> str:
        """The solver as tables show it."""
        if self.tolerances is not None:
            return f"{self.variant.label}, adaptive"
        tau = "" if self.stochasticity is None else f", tau {self.stochasticity:g}"
        return f"{self.variant.label}{tau}"

    @property
    def place(self) -> str:
        """Where it is measured: "target, process, grid", or "device, dtype" of a row of speed."""
        if self.timed is not None:
            return self.timed.place
        return f"{self.target.name}, {self.process.name}, {self.grid}"


def expand(suite: Suite, only: str | None = None, on: str | None = None) -> list[Cell]:
    """All cells of a suite, in a fixed order.

    Args:
        only: a pattern such as "dpmpp*"; solvers whose name or label does not match are left out, and rows of speed.
        on: a pattern of where it is measured, such as "mixture, vp, *": target, process and grid; of rows of speed
            device and dtype, such as "cpu, *".

    Raises:
        UnknownNameError: for solvers, options, processes, targets, grids and rows that nothing is known under, all of
            them in one error; or for a pattern that nothing matches.
        OptionError: where an option of a value that its solver refuses is among these, or a device that a row is not
            for.
    """
    faults = Faults()
    names.collect(suite, faults)
    faults.raise_any(f"the suite {suite.name!r}")
    processes, targets = _named(suite.processes), _named(suite.targets)
    variants = _variants(suite)
    found = [
        *_order_cells(suite, variants, processes, targets),
        *_work_cells(suite, variants, processes, targets),
        *_parts_cells(suite, processes, targets),
        *_protocol_cells(suite, targets),
        *_sampled_cells(suite, processes, targets),
        *_picture_cells(suite, processes, targets),
        *dict.fromkeys(_speed_cells(suite)),
    ]
    found = found if only is None else _matching(found, only)
    return found if on is None else _placed(found, on)


def label_of(solver: str, options: Options) -> str:
    """A short name: "exp_adams(order=3, single_step)". Texts stand for themselves, numbers need their option's name."""
    shown = [v if isinstance(v, str) else f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in options]
    return f"{solver}({', '.join(shown)})" if shown else solver


def _named(builds: dict[str, Build]) -> dict[str, Named]:
    return {name: Named(name, build.make, _frozen(build.options)) for name, build in builds.items()}


def _frozen(options: dict[str, Any]) -> Options:
    return tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in options.items())


def _variant(solver: str, options: dict[str, Any]) -> Variant:
    solver = plugins.solver_name(solver)
    # Not by solvers.info, which plans: what a user's solver raises is a row, and what hangs must hang in a worker.
    name = solvers.get(solver, **options).name
    return Variant(name, _frozen(options), label_of(name, _frozen(options)))


def runs_models(name: str) -> bool:
    """Whether suites measure a registered solver: they run models of affine processes, by plans or as flows.

    What a stepper of SDEs without plans declares is about classes of noise, and is measured by `sdekit.testing`.
    """
    solver = solvers.get(name)
    return isinstance(solver, PlanSolver) or solver.needs == "ode"


def _variants(suite: Suite) -> list[Variant]:
    """Every registered solver that runs models with its default options, each followed by the suite's variants."""
    found = [_variant(name, {}) for name in registered() if runs_models(name)]
    found += [_variant(entry.solver, dict(entry.options)) for entry in suite.variants]
    unique = dict.fromkeys(found)
    return sorted(unique, key=lambda v: v.solver)  # stable: a solver's variants stay in the suite's order


def _matching(found: list[Cell], only: str) -> list[Cell]:
    chosen = [c for c in found if any(fnmatch.fnmatchcase(name, only) for name in _names(c))]
    if not chosen:
        known = {name for c in found for name in _names(c)}
        raise UnknownNameError(
            "--only", got=repr(only), expected="a pattern that some solver or row matches", fix=suggest(only, known)
        )
    return chosen


def _names(cell: Cell) -> tuple[str, ...]:
    return cell.variant.solver, cell.variant.label, cell.label


def _placed(found: list[Cell], on: str) -> list[Cell]:
    chosen = [c for c in found if fnmatch.fnmatchcase(c.place, on)]
    if not chosen:
        expected = "a pattern that some 'target, process, grid', or 'device, dtype' of a row of speed, matches"
        raise UnknownNameError("--on", got=repr(on), expected=expected, fix=suggest(on, {c.place for c in found}))
    return chosen


def _order_cells(
    suite: Suite, variants: list[Variant], processes: dict[str, Named], targets: dict[str, Named]
) -> Iterator[Cell]:
    for section in suite.orders:
        steps = None if section.steps is None else tuple(section.steps)
        for variant in variants:
            for kind in section.kinds:
                order = _declared(variant, kind)
                if order is None or not section.declared[0] <= order <= section.declared[1]:
                    continue
                for process in section.processes:
                    for grid in section.grids:
                        yield Cell(
                            "order",
                            kind,
                            variant,
                            processes[process],
                            targets[section.target],
                            grid,
                            *section.half_log_snr,
                            steps,
                            section.samples,
                            suite.seed,
                        )


def _work_cells(
    suite: Suite, variants: list[Variant], processes: dict[str, Named], targets: dict[str, Named]
) -> Iterator[Cell]:
    for section in suite.work:
        place = processes[section.process], targets[section.target]
        for grid in [section.grid] if isinstance(section.grid, str) else section.grid:
            for kind in section.kinds:
                for variant, tau in _measured(section, variants, kind):
                    yield _work_cell(suite, section, kind, variant, place, grid, stochasticity=tau)
        for variant in _adaptive(section):
            tolerances = tuple(section.tolerances)
            yield _work_cell(suite, section, "deterministic", variant, place, OWN_STEPS, tolerances=tolerances)


def _work_cell(
    suite: Suite, section: Work, kind: str, variant: Variant, place: tuple[Named, Named], grid: str, **more: Any
) -> Cell:
    counts = None if "tolerances" in more else tuple(section.calls)
    return Cell("work", kind, variant, *place, grid, *section.half_log_snr, counts, section.samples, suite.seed, **more)


def _measured(section: Work, variants: list[Variant], kind: str) -> Iterator[tuple[Variant, float | None]]:
    """The solvers of a section that do this kind, each with its stochasticity where that is not the usual one."""
    chosen = [_variant(c.solver, dict(c.options)) for c in section.solvers] if section.solvers else variants
    for variant in chosen:
        if section.stochasticity:
            solver = solvers.get(variant.solver, **dict(variant.options))
            # What a name implies cannot be asked for otherwise.
            does = kind == "weak" or (kind == "strong" and solver.declared.strong is not None)
            if does and isinstance(solver, PlanSolver) and solver.fixed_stochasticity is None:
                yield from ((variant, tau) for tau in section.stochasticity)
        elif _declared(variant, kind) is not None:
            yield variant, None
    for peer in peers.PEERS.values():
        if peer.kind == kind and any(fnmatch.fnmatchcase(peer.name, pattern) for pattern in section.peers):
            yield Variant(peer.name, (), peer.name), None


def _adaptive(section: Work) -> list[Variant]:
    return [_variant(c.solver, dict(c.options)) for c in section.adaptive] if section.tolerances else []


def is_peer(name: str) -> bool:
    """Whether a cell's solver is another library's."""
    return name in peers.PEERS


def _parts_cells(suite: Suite, processes: dict[str, Named], targets: dict[str, Named]) -> Iterator[Cell]:
    for section in suite.parts:
        place = processes[section.process], targets[section.target]
        rest = section.grid, *section.half_log_snr, tuple(section.calls), section.samples, suite.seed
        for entry in section.solvers:
            variant = _variant(entry.solver, dict(entry.options))
            for kind in section.kinds:
                if _declared(variant, kind) is not None:
                    for tau in (kind == "weak" and section.stochasticity) or [None]:
                        yield Cell("parts", kind, variant, *place, *rest, stochasticity=tau, finish=section.finish)


def _protocol_cells(suite: Suite, targets: dict[str, Named]) -> Iterator[Cell]:
    """A cell for each number of calls, with all schemes."""
    variant, process = Variant("", (), "Gaussian protocol"), Named("vp", "VP", ())
    for section in suite.protocol:
        for calls in section.calls:
            # The range is the whole process; those numbers are for what is the same in all cells.
            rest = "uniform", *_RANGE, (calls,), 1, suite.seed
            truncations = tuple(section.truncations)
            yield Cell("protocol", "weak", variant, process, targets[section.target], *rest, truncations=truncations)


def _sampled_cells(suite: Suite, processes: dict[str, Named], targets: dict[str, Named]) -> Iterator[Cell]:
    for section in suite.sampled:
        place = processes[section.process], targets[section.target]
        rest = section.grid, *section.half_log_snr, tuple(section.calls), section.samples, suite.seed
        more = {"metrics": tuple(section.metrics), "repeats": section.repeats}
        for entry in section.solvers:
            variant = _variant(entry.solver, dict(entry.options))
            for kind in section.kinds:
                if _declared(variant, kind) is not None:
                    yield Cell("sampled", kind, variant, *place, *rest, **more)


def _picture_cells(suite: Suite, processes: dict[str, Named], targets: dict[str, Named]) -> Iterator[Cell]:
    for section in suite.pictures:
        for entry in section.solvers:
            variant = _variant(entry.solver, dict(entry.options))
            yield Cell(
                "picture",
                "deterministic" if _declared(variant, "deterministic") is not None else "weak",
                variant,
                processes[section.process],
                targets[section.target],
                section.grid,
                *section.half_log_snr,
                tuple(section.calls),
                section.samples,
                suite.seed,
            )


def _speed_cells(suite: Suite) -> Iterator[Cell]:
    """A cell for each row, device and type."""
    nothing = Named("", "", ())
    for section in suite.speed:
        for name, device, dtype in itertools.product(section.rows, section.devices, section.dtypes):
            timed = Timed(name, device, dtype, section.rounds)
            rest = "", *_NO_RANGE, None, 1, suite.seed
            yield Cell("speed", "speed", Variant("", (), name), nothing, nothing, *rest, timed=timed)


def _declared(variant: Variant, kind: str) -> float | None:
    return getattr(solvers.get(variant.solver, **dict(variant.options)).declared, kind)
