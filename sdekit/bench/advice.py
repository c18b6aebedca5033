"""Which sampler: advice worked out from the results of a suite, with how sure it is.

At a number of calls each sampler has one error in each place (target, process and grid). The ratio of that error to the
least one there tells how far behind the best it is; its score is the geometric mean of the ratios over the places. The
places are few, and a user's problem is another one: they are drawn again with replacement, whole targets at a time, and
the share of draws in which a sampler has the best score, or one within 10 % of it, says how sure the ranking is.

Starts, where an error is one over them, are drawn again in each place too, the same for all samplers: a difference that
rests on a few of them is not called sure. Errors of laws are exact.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdekit.bench.summary import OWN_STEPS
from sdekit.errors import OptionError

__all__ = ["Advice", "Rank", "advise", "page"]

DRAWS = 2000
NEAR = 1.1
_FLOOR = 1e-12  # errors below it are of rounding, and all the same
_SHOWN = 5

Place = tuple[str, str, str]
_TITLES = {
    "deterministic": "Deterministic samplers: distance to the exact flow",
    "weak": "Stochastic samplers: distance of the law, on Gaussian data",
}


_HOW_TO_READ = """\
Nothing here is opinion, and nothing is about networks: the denoisers are exact, so that all error is the sampler's.

A sampler's *ratio* is its error over the least one at the same number of calls in the same place, as a geometric mean
over the places; the interval is of the middle 90 % of draws of the targets with replacement, and in each place of the
starts, the same for all samplers. *Best* and *near* are the shares of these draws in which it is the best, or within
10 % of it. *Sure* means best in 95 % of the draws, *likely* in 70 %; *open* means that other targets or starts could
turn the order. *Worst* is the largest ratio.""".splitlines()


@dataclass(frozen=True)
class Rank:
    """A sampler at a number of calls.

    Attributes:
        names: it, and others that are the same.
        score: the geometric mean of its error over the least one of each place, 1 or more.
        low, high: the middle 90 % of that over the draws.
        best, near: the shares of draws in which it has the least score, and a score at most 1.1 times that.
        worst: its largest ratio, and where.
    """

    names: tuple[str, ...]
    score: float
    low: float
    high: float
    best: float
    near: float
    worst: tuple[float, str]


@dataclass(frozen=True)
class Advice:
    """The samplers at a number of calls, the best first.

    Attributes:
        places: over which.
        left_out: those without an error in every place, for want of a step that fits or because they diverge.
    """

    kind: str
    calls: int
    places: tuple[str, ...]
    ranks: tuple[Rank, ...]
    left_out: tuple[str, ...]

    @property
    def sure(self) -> str:
        """How sure the first place is, in words."""
        share = self.ranks[0].best
        return "sure" if share >= 0.95 else "likely" if share >= 0.7 else "open"


def advise(
    results: Iterable[Mapping[str, Any]], kind: str, calls: int, *, peers: bool = False, seed: int = 0
) -> Advice:
    """Rank the samplers of one kind at a number of calls.

    Args:
        results: of `read_results`.
        kind: "deterministic" or "weak".
        peers: whether other libraries' samplers take part.

    Raises:
        OptionError: where nothing was measured at that number of calls.
    """
    points = _points(results, kind, calls, peers)
    errors = {name: {place: max(p["error"], _FLOOR) for place, p in found.items()} for name, found in points.items()}
    places = list(dict.fromkeys(place for found in errors.values() for place in found))
    whole = {name: found for name, found in errors.items() if len(found) == len(places)}
    if not whole or not places:
        raise OptionError(
            "calls",
            got=repr(calls),
            expected=f"a number of calls at which {kind} errors were measured in every place",
            fix="Use one of the suite's.",
        )
    best = {place: min(found[place] for found in whole.values()) for place in places}
    logs = {name: [math.log(found[p] / best[p]) for p in places] for name, found in whole.items()}
    shares = _shares(logs, _drawn_logs(logs, points, places, seed), [place[0] for place in places], seed)
    ranks = [_rank(name, logs[name], places, shares) for name in logs]
    ranks.sort(key=lambda rank: (rank.score, rank.names))
    left_out = tuple(sorted(errors.keys() - whole.keys()))
    return Advice(kind, calls, tuple(", ".join(p) for p in places), tuple(_joined(ranks)), left_out)


def _points(
    results: Iterable[Mapping[str, Any]], kind: str, calls: int, peers: bool
) -> dict[str, dict[Place, Mapping[str, Any]]]:
    """By sampler and place; of those with default options, but each stochasticity is one more."""
    found: dict[str, dict[Place, Mapping[str, Any]]] = {}
    for r in results:
        if r["what"] != "work" or r["kind"] != kind or r["status"] != "ok" or ("package" in r and not peers):
            continue
        if r["grid"] == OWN_STEPS:
            continue
        of_it = found.setdefault(r["solver"], {})
        for point in r["points"]:
            if point["budget"] == calls and point["error"] is not None:
                of_it[r["target"], r["process"], r["grid"]] = point
    return found


def _drawn_logs(
    logs: Mapping[str, Sequence[float]],
    points: Mapping[str, Mapping[Place, Mapping[str, Any]]],
    places: Sequence[Place],
    seed: int,
) -> list[np.ndarray]:
    """For each place (draws, samplers): the logarithms of ratios, over starts drawn anew where these are known."""
    generator, found = np.random.default_rng(seed), []
    for i, place in enumerate(places):
        starts = [points[name][place].get("starts") for name in logs]
        if any(s is None or len(s) != len(starts[0] or ()) for s in starts):
            found.append(np.broadcast_to(np.array([row[i] for row in logs.values()]), (DRAWS, len(logs))))
            continue
        squares = np.square(np.array(starts))  # (samplers, starts)
        drawn = generator.integers(squares.shape[1], size=(DRAWS, squares.shape[1]))
        errors = np.stack([np.sqrt(of_it[drawn].mean(1)) for of_it in squares], 1)
        sizes = np.log(np.maximum(errors, _FLOOR))
        found.append(sizes - sizes.min(1, keepdims=True))
    return found


def _shares(
    logs: Mapping[str, Sequence[float]], drawn_logs: Sequence[np.ndarray], groups: Sequence[str], seed: int
) -> dict[str, tuple[list[float], float, float]]:
    """Of each sampler the scores (as logarithms) over draws of targets, and how often it is best and near it."""
    generator, names = random.Random(seed), list(logs)
    targets = list(dict.fromkeys(groups))
    rows = {target: [i for i, g in enumerate(groups) if g == target] for target in targets}
    drawn: dict[str, list[float]] = {name: [] for name in names}
    best, near = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for draw in range(DRAWS):
        chosen = [i for target in generator.choices(targets, k=len(targets)) for i in rows[target]]
        means = np.mean([drawn_logs[i][draw] for i in chosen], 0)
        scores = dict(zip(names, means.tolist(), strict=True))
        least = min(scores.values())
        first = [name for name in names if scores[name] <= least + 1e-9]
        for name in names:
            drawn[name].append(scores[name])
            best[name] += (name in first) / DRAWS
            near[name] += (scores[name] <= least + math.log(NEAR)) / DRAWS
    return {name: (sorted(drawn[name]), best[name], near[name]) for name in names}


def _rank(
    name: str,
    logs: Sequence[float],
    places: Sequence[Place],
    shares: Mapping[str, tuple[list[float], float, float]],
) -> Rank:
    drawn, best, near = shares[name]
    low, high = (math.exp(drawn[round(q * (len(drawn) - 1))]) for q in (0.05, 0.95))
    most = max(range(len(logs)), key=lambda i: logs[i])
    worst = math.exp(logs[most]), ", ".join(places[most])
    return Rank((name,), math.exp(math.fsum(logs) / len(logs)), low, high, best, near, worst)


def _joined(ranks: Sequence[Rank]) -> list[Rank]:
    """Those that are the same method in one entry."""
    found: list[Rank] = []
    for rank in ranks:
        same = found and all(
            math.isclose(getattr(found[-1], k), getattr(rank, k), rel_tol=1e-6) for k in ("score", "low", "high")
        )
        if same:
            found[-1] = Rank((*found[-1].names, *rank.names), *_rest(found[-1]))
        else:
            found.append(rank)
    return found


def _rest(rank: Rank) -> tuple[Any, ...]:
    return rank.score, rank.low, rank.high, rank.best, rank.near, rank.worst


def page(content: Mapping[str, Any], calls: Sequence[int], command: str) -> str:
    """The advice as Markdown: for each kind and number of calls a sentence, and the best five.

    Args:
        content: what `read_results` gives.
        calls: the numbers of calls.
        command: that makes the page, named on it.
    """
    about = content["environment"]
    lines = [
        "# Which sampler?",
        "",
        f"Worked out by `{command}` from the suite `{content['suite']['name']}`: sdekit {about['sdekit']},",
        f"{about['cpu']}, {about['date'][:10]}. To measure again: `sdekit bench run {content['source']}`.",
        "",
        *_HOW_TO_READ,
        "",
    ]
    for kind, title in _TITLES.items():
        found = [_try(content["results"], kind, n) for n in calls]
        known = [advice for advice in found if advice is not None]
        if known:
            lines += [f"## {title}", "", *_summary(known), ""]
            for advice in known:
                lines += [*_section(advice), ""]
    lines += ["## Places", ""]
    places = dict.fromkeys(p for kind in _TITLES for n in calls for p in _places(content["results"], kind, n))
    lines += [f"* {_cell(place)}" for place in places]
    return "\n".join(lines).rstrip() + "\n"


def _try(results: Sequence[Mapping[str, Any]], kind: str, calls: int) -> Advice | None:
    try:
        return advise(results, kind, calls)
    except OptionError:
        return None


def _places(results: Sequence[Mapping[str, Any]], kind: str, calls: int) -> tuple[str, ...]:
    advice = _try(results, kind, calls)
    return () if advice is None else advice.places


def _summary(known: Sequence[Advice]) -> list[str]:
    rows = ["| calls | take | how sure | ratio | the next | its ratio |", "|---:|---|---|---:|---|---:|"]
    for advice in known:
        first, *others = advice.ranks
        after = others[0] if others else None
        rows.append(
            f"| {advice.calls} | {_names(first)} | {advice.sure} | {first.score:.2f} "
            f"| {_names(after) if after else ''} | {f'{after.score:.2f}' if after else ''} |"
        )
    return rows


def _section(advice: Advice) -> list[str]:
    lines = [
        f"### {advice.calls} calls",
        "",
        "| sampler | ratio | 90 % | best | near | worst |",
        "|---|---:|---|---:|---:|---|",
    ]
    for rank in advice.ranks[:_SHOWN]:
        ratio, where = rank.worst
        lines.append(
            f"| {_names(rank)} | {rank.score:.2f} | {rank.low:.2f} to {rank.high:.2f} | {rank.best:.0%} "
            f"| {rank.near:.0%} | {ratio:.2g} on {_cell(where)} |"
        )
    if advice.left_out:
        lines += ["", f"Without an error in every place: {', '.join(f'`{_cell(n)}`' for n in advice.left_out)}."]
    return lines


def _names(rank: Rank) -> str:
    return " = ".join(f"`{_cell(name)}`" for name in rank.names)


def _cell(text: str) -> str:
    """Inside a table."""
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ")
