"""The noise classes of an SDE, which decide what order a method has on it.

With g_k the columns of the diffusion as a matrix and L_j g_k the derivative of g_k along g_j:

    additive      g ignores x
    scalar        one Brownian motion drives all coordinates
    diagonal      coordinate i has its own Brownian motion, and g_i depends on x_i alone
    commutative   L_j g_k = L_k g_j for all j, k: iterated integrals of two motions are not needed at order 1
    general       any other

Every SDE is general; additive, scalar and diagonal ones are commutative too.
"""

from __future__ import annotations

import math

from torch import Tensor

from sdekit.sde import SDE

__all__ = ["NOISE_CLASSES", "noise_classes"]

NOISE_CLASSES = ("additive", "scalar", "diagonal", "commutative", "general")
"""The most special first."""


def noise_classes(sde: SDE, x: Tensor | None = None, columns: int | None = None) -> tuple[str, ...]:
    """The classes that an SDE belongs to, the most special first, by what it declares.

    Args:
        sde: its noise_type, additive and commutative are read; its functions are not called.
        x: a state, whose shape tells one coordinate from several; None for one coordinate.
        columns: the number of Brownian motions of general noise; None for one.
    """
    one = x is None or math.prod(x.shape[1:]) == 1
    scalar = (columns is None or columns == 1) if sde.noise_type == "general" else one
    # A number times the noise of several coordinates: they mix in it, as the columns g e_k do not commute.
    diagonal = sde.noise_type == "diagonal" or (sde.noise_type == "scalar" and (one or sde.additive))
    held = {
        "additive": sde.additive,
        "scalar": scalar,
        "diagonal": diagonal,
        "commutative": sde.additive or scalar or diagonal or sde.commutative,
        "general": True,
    }
    return tuple(name for name in NOISE_CLASSES if held[name])
