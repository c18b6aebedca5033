"""A step of DPM-Solver++(2M), from one network call to the next, against the operations that it cannot do without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sdekit import solvers
from sdekit.bench.speed.free import PROCESS, FreeNetwork, drawn, raw_step, times
from sdekit.bench.speed.reading import Reading, Row, Setting, of_rounds
from sdekit.bench.speed.timing import ratios, rounds_of
from sdekit.model import Model
from sdekit.solve import solve

__all__ = ["ROWS"]

_SHAPES = ((1, 4, 64, 64), (1, 4, 128, 128), (64, 3, 32, 32), (16, 4, 64, 64), (256, 3, 32, 32))


def _bare_loop(shape: Sequence[int], setting: Setting) -> Callable[[], float]:
    """The least that Python can do: no checks, coefficients in a list."""
    x, old, net = drawn(shape, setting), drawn(shape, setting), FreeNetwork(drawn(shape, setting))
    rows = [(t, 0.9, 0.01, 0.01) for t in times()[:-1]]

    def loop() -> None:
        previous = old
        for t, a, b, c in rows:
            out = net(x, x.new_full((len(x),), t))
            x.mul_(a)
            x.add_(out, alpha=b)
            x.add_(previous, alpha=c)
            previous = out

    return lambda: net.per_step(loop)


def _measure(setting: Setting) -> Iterator[Reading]:
    plan = solvers.get("dpmpp_2m").plan(PROCESS, times())
    for shape in _SHAPES:
        x, net = drawn(shape, setting), FreeNetwork(drawn(shape, setting))
        model = Model(net, PROCESS, "data")

        def timed(checks: str, x=x, net=net, model=model) -> Callable[[], float]:  # noqa: ANN001
            return lambda: net.per_step(lambda: solve(model, x, plan.times, plan, checks=checks))

        found = rounds_of(
            {
                "raw": raw_step(shape, setting),
                "bare": _bare_loop(shape, setting),
                "end": timed("end"),
                "full": timed("full"),
            },
            setting.rounds,
        )
        case = f"{shape}, {x.numel():,} elements"
        yield of_rounds(case, "three operations", [1e6 * seconds for seconds in found["raw"]], "us")
        yield of_rounds(case, "bare loop / operations", ratios(found["bare"], found["raw"]))
        yield of_rounds(case, "step, checks='end' / operations", ratios(found["end"], found["raw"]), goal=1.3)
        yield of_rounds(case, "step, checks='full' / operations", ratios(found["full"], found["raw"]))


ROWS = (
    Row(
        "step",
        "A step of dpmpp_2m / its three in-place operations",
        "From one call of the network to the next; the network is free. The bare loop is one of Python that makes the "
        "network's time, calls it and does the three operations, and nothing else. A step costs some microseconds of "
        "Python besides its operations, which states of 100,000 elements and more hide.",
        _measure,
        devices=("cpu",),
    ),
)
