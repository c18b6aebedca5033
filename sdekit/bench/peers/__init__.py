"""Samplers of other libraries, run on the same problems, grids and exact denoisers as sdekit's own.

Those with names of their own in `sdekit.solvers`, of torchdiffeq, torchode, torchsde and SciPy, need nothing here.
"""

from __future__ import annotations

from sdekit.bench.peers import azula, diffusers, kdiffusion, torchsde
from sdekit.bench.peers.base import Peer, Trial, installed
from sdekit.bench.peers.laws import law_of
from sdekit.errors import UnknownNameError, suggest

__all__ = ["PEERS", "Peer", "Trial", "get", "installed", "law_of"]

PEERS: dict[str, Peer] = {p.name: p for p in (*kdiffusion.PEERS, *diffusers.PEERS, *azula.PEERS, *torchsde.PEERS)}


def get(name: str) -> Peer:
    """A peer by its name. Raises UnknownNameError with near names."""
    if name not in PEERS:
        raise UnknownNameError("peer", got=repr(name), expected="a sampler that is known", fix=suggest(name, PEERS))
    return PEERS[name]
