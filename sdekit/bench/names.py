"""Whether everything that a suite names is there: solvers, options, processes, targets, grids, rows of speed."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

from sdekit import grids, processes, solvers, targets
from sdekit.bench import plugins, speed
from sdekit.bench.faults import Faults, placed
from sdekit.bench.peers import PEERS
from sdekit.errors import OptionError, SdekitError, UnknownNameError, suggest
from sdekit.registry import check_options
from sdekit.testing import FAMILIES

__all__ = ["TARGETS", "collect", "maker"]

TARGETS = tuple(sorted(set(targets.__all__) - {"ExactModel", "GaussianMixture", "LowRank"}))


def collect(suite: Any, faults: Faults) -> None:
    """Add a fault for every name in a suite that nothing is known under.

    Args:
        suite: a `Suite`; what is missing in it or is None, which has faults of its own, is passed over.
    """
    for kind, table in (("process", "processes"), ("target", "targets")):
        for name, build in getattr(suite, table, {}).items():
            if hasattr(build, "make"):
                _collect_build(kind, f"{table}.{name}", build, faults)
    for i, choice in enumerate(suite.variants):
        _collect_choice(f"variants.{i}", choice, faults)
    for place, section in _sections(suite):
        _collect_section(place, section, suite, faults)
    for i, section in enumerate(suite.speed):
        _collect_rows(f"speed.{i}", section, faults)


def maker(kind: str, name: str) -> Any:
    """What makes a process or a target of this name. Raises UnknownNameError with near names.

    A reference such as "module:Name" is to code of the user, see `plugins`, where it is refused if nobody asked for it.
    """
    if plugins.is_reference(name):
        return plugins.load(name)
    module, names = (processes, processes.__all__) if kind == "process" else (targets, TARGETS)
    known = {key: getattr(module, key) for key in names}
    if kind == "process" and name not in known:
        offered = plugins.entry_points("processes")
        if name in offered:
            return plugins.load_offered(offered[name])
        known |= offered
    _check_known(kind, name, known, f"the name of a {kind} of sdekit")
    return known[name]


def _sections(suite: Any) -> Iterator[tuple[str, Any]]:
    """Everything in a suite's lists that is measured on a target, with its place."""
    for key in type(suite).model_fields:
        entries = getattr(suite, key, None)
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            if "target" in getattr(type(entry), "model_fields", {}):
                yield f"{key}.{i}", entry


def _collect_section(place: str, section: Any, suite: Any, faults: Faults) -> None:
    known = {
        "target": ("target", getattr(suite, "targets", None)),
        "process": ("process", getattr(suite, "processes", None)),
        "processes": ("process", getattr(suite, "processes", None)),
        "grid": ("grid", set(grids.available())),
        "grids": ("grid", {*grids.available(), *FAMILIES, "irregular"}),
    }
    for field, (kind, names) in known.items():
        for where, name in _entries(f"{place}.{field}", getattr(section, field, ())):
            with faults.at(where):
                _check_known(kind, name, {name} if names is None else set(names), f"a {kind} that the suite knows")
    for field in ("solvers", "adaptive"):
        for i, choice in enumerate(getattr(section, field, ())):
            _collect_choice(f"{place}.{field}.{i}", choice, faults)
    if "strong" in getattr(section, "kinds", ()):
        _collect_strong(place, section, faults)
    for i, pattern in enumerate(getattr(section, "peers", ())):
        with faults.at(f"{place}.peers.{i}"):
            if not fnmatch.filter(PEERS, pattern):
                expected = "a pattern that some sampler of another library matches"
                raise UnknownNameError("peer", got=repr(pattern), expected=expected, fix=suggest(pattern, PEERS))


def _collect_strong(place: str, section: Any, faults: Faults) -> None:
    """What in a section of strong errors has none: no noise, other libraries, solvers without a declared order."""
    for i, tau in enumerate(getattr(section, "stochasticity", ())):
        if tau == 0:
            fix = "Put it into a section of its own."
            faults.add(OptionError(f"{place}.stochasticity.{i}", got="0 for 'strong'", expected="above 0", fix=fix))
    if section.kinds != ["strong"]:
        return
    for i, _ in enumerate(getattr(section, "peers", ())):
        expected = "none: their noise is no path of ours"
        faults.add(OptionError(f"{place}.peers.{i}", got="'strong'", expected=expected, fix="Leave it out."))
    for i, choice in enumerate(getattr(section, "solvers", ())):
        with contextlib.suppress(SdekitError):  # which is told elsewhere
            method = solvers.get(plugins.solver_name(choice.solver), **dict(choice.options))
            if method.declared.strong is None:
                with faults.at(f"{place}.solvers.{i}"):
                    raise OptionError(
                        "kinds",
                        got=f"['strong'] for {method.label}",
                        expected="a solver that declares a strong order",
                        fix="Ask for its other kinds, or leave it out.",
                    )


def _collect_rows(place: str, section: Any, faults: Faults) -> None:
    """What is wrong with rows of speed: names, and devices that they are not for."""
    for where, name in _entries(f"{place}.rows", getattr(section, "rows", ())):
        with faults.at(where):
            _check_known("row", name, speed.MODULES, "a row of speed of sdekit")
            row = speed.row(name)
            for field, fit in (("devices", row.devices), ("dtypes", row.dtypes)):
                for value in (v for v in getattr(section, field, ()) if v is not None and v not in fit):
                    fix = "Put it into a section of its own."
                    raise OptionError(field, got=f"{value!r} for {name!r}", expected=" or ".join(fit), fix=fix)


def _entries(place: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    else:
        yield from ((f"{place}.{i}", name) for i, name in enumerate(value) if name is not None)


def _collect_build(kind: str, place: str, build: Any, faults: Faults) -> None:
    with faults.at(f"{place}.make"):
        make = maker(kind, build.make)
        for option, value in build.options.items():
            with faults.at(f"{place}.options"):
                check_options(build.make, make, {option: value})


def _collect_choice(place: str, choice: Any, faults: Faults) -> None:
    """What is wrong with a solver: its name, or each of its options."""
    options: Mapping[str, Any] = dict(choice.options)
    while hasattr(choice, "solver"):
        try:
            solvers.get(plugins.solver_name(choice.solver), **options)
            return
        except SdekitError as error:
            wrong = [k for k in options if error.argument == k or error.argument.endswith(f"({k}=)")]
            faults.add(placed(place, error))
            if not wrong:
                return
            # Without it, what is wrong with the others shows.
            options = {k: v for k, v in options.items() if k not in wrong}


def _check_known(kind: str, name: str, known: Any, expected: str) -> None:
    if name not in known:
        raise UnknownNameError(kind, got=repr(name), expected=expected, fix=suggest(name, known))
