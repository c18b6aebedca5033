"""Other libraries beside which is timed: where they are missing, a reading says what to install."""

from __future__ import annotations

from sdekit.bench.peers.base import installed
from sdekit.bench.speed.reading import Reading

__all__ = ["INSTALL", "installed", "missing"]

INSTALL = {
    "torchsde": "pip install torchsde",
    "torchdiffeq": "pip install torchdiffeq",
    "torchode": "pip install torchode",
    "k-diffusion": "pip install --no-deps k-diffusion==0.1.1.post1",
    "diffusers": "pip install diffusers",
    "azula": "pip install azula",
}


def missing(*packages: str) -> list[Reading]:
    """A reading without a value for each of these packages that is not installed."""
    return [
        Reading(name, "speed", None, note=f"{name} is not installed: {INSTALL[name]}")
        for name in packages
        if installed(name) is None
    ]
