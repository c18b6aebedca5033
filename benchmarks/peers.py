"""Other libraries, where they are installed, and what to say where they are not."""

from __future__ import annotations

from sdekit.bench.peers.base import installed
from sdekit.bench.peers.kdiffusion import sampling as kdiffusion_sampling

__all__ = ["HOW_TO_INSTALL", "installed", "kdiffusion_sampling", "missing"]

HOW_TO_INSTALL = {
    "k-diffusion": "pip install --no-deps -r benchmarks/requirements-peers.txt",
    "diffusers": "pip install -c constraints.txt -e '.[peers]'",
    "azula": "pip install -c constraints.txt -e '.[peers]'",
}


def missing(name: str) -> str:
    """What to say where a library is not installed."""
    return f"{name} is not installed: skipped. `make bench-speed` installs it, or: {HOW_TO_INSTALL[name]}"
