"""sdekit: diffusion as general SDEs, solved by methods whose orders of convergence are measured."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sdekit import errors, grids, solvers, stochasticity, targets
from sdekit.affine import AffineSDE
from sdekit.errors import OutOfDomain, SdekitError
from sdekit.extrapolation import MeanEstimate, extrapolate_mean
from sdekit.geometric import GeometricBrownianMotion
from sdekit.model import Model
from sdekit.plan import Plan
from sdekit.processes import EDM, VE, VP, DiscreteVP, Heat, OrnsteinUhlenbeck, RectifiedFlow, SubVP, VPCosine
from sdekit.sample import sample
from sdekit.sde import ODE, SDE, make_ode, make_sde
from sdekit.solution import Solution
from sdekit.solve import solve
from sdekit.version import __version__

if TYPE_CHECKING:
    from sdekit import interop, metrics, testing

__all__ = [
    "EDM",
    "ODE",
    "SDE",
    "VE",
    "VP",
    "AffineSDE",
    "DiscreteVP",
    "GeometricBrownianMotion",
    "Heat",
    "MeanEstimate",
    "Model",
    "OrnsteinUhlenbeck",
    "OutOfDomain",
    "Plan",
    "RectifiedFlow",
    "SdekitError",
    "Solution",
    "SubVP",
    "VPCosine",
    "__version__",
    "errors",
    "extrapolate_mean",
    "grids",
    "interop",
    "make_ode",
    "make_sde",
    "metrics",
    "sample",
    "solve",
    "solvers",
    "stochasticity",
    "targets",
    "testing",
]


def __getattr__(name: str) -> Any:
    """`sdekit.testing`, `sdekit.metrics` and `sdekit.interop` are imported when they are first used."""
    if name in ("interop", "metrics", "testing"):
        return importlib.import_module(f"sdekit.{name}")
    raise AttributeError(f"module 'sdekit' has no attribute {name!r}")
