"""The adaptive solve of sdekit/bench/speed/adaptive.py by diffrax, compiled, from an environment of its own.

    python -m venv ~/diffrax && ~/diffrax/bin/pip install diffrax
    ~/diffrax/bin/python benchmarks/speed_diffrax.py [--rounds 9]

jax brings packages that do not fit those of sdekit: nothing of sdekit is imported here. The same ring, ends, tolerances
and tableau; each sample's steps are its own (vmap). Process time of solves after the first, which compiles, in one
thread; medians. Hold them against the milliseconds of `sdekit bench run speed --only adaptive` on the same machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

START, END, TOLERANCE, VARIANCE = 80.0, 0.002, 1e-6, 0.09
BATCHES = (1, 64, 4096)


def solver(batch: int) -> Callable[[], Any]:
    """A compiled solve from noise of that batch."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    angles = 2 * jnp.pi * jnp.arange(8) / 8
    means = 4 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)

    def drift(sigma: Any, x: Any, args: Any) -> Any:
        s = sigma * sigma + VARIANCE
        r = jax.nn.softmax((means @ x) / s)
        return (x - (VARIANCE * x + sigma * sigma * (r @ means)) / s) / sigma

    control = diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE)
    method, term = diffrax.Dopri5(), diffrax.ODETerm(drift)

    def one(x: Any) -> Any:
        found = diffrax.diffeqsolve(
            term, method, START, END, None, x, stepsize_controller=control, saveat=diffrax.SaveAt(t1=True)
        )
        return found.ys[0], found.stats["num_steps"]

    x = START * jax.random.normal(jax.random.key(0), (batch, 2), dtype=jnp.float64)
    compiled = jax.jit(jax.vmap(one))
    return lambda: jax.block_until_ready(compiled(x))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(f"{'B':>5} {'solver':<20} {'ms':>8} {'most steps':>11}")
    for batch in BATCHES:
        run = solver(batch)
        steps = int(run()[1].max())
        seconds = []
        for _ in range(rounds):
            start = time.process_time()
            run()
            seconds.append(time.process_time() - start)
        print(
            f"{batch:>5} {'diffrax Dopri5, jit':<20} {statistics.median(seconds) * 1e3:>8.1f} {steps:>11}", flush=True
        )


if __name__ == "__main__":
    main()
