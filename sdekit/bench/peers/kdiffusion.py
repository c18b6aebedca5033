"""k-diffusion's samplers, as released: functions of a denoiser and the list of sigmas, which is the grid's levels."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

from torch import Tensor

from sdekit.bench.peers.base import Peer, Trial, normals_from

__all__ = ["PEERS", "sampling"]

PACKAGE = "k-diffusion"
_INSTALL = "pip install --no-deps k-diffusion==0.1.1.post1"


def sampling() -> Any:
    """The released k_diffusion.sampling, or None where it is not installed.

    The package itself imports scikit-image and more on import; its samplers need one function of all that. They are
    loaded from the installed file, inside a package of the same name that has this function alone.
    """
    if "k_diffusion.sampling" in sys.modules:
        return sys.modules["k_diffusion.sampling"]
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or not spec.submodule_search_locations:
        return None
    package, utils = ModuleType("k_diffusion"), ModuleType("k_diffusion.utils")
    package.__path__ = list(spec.submodule_search_locations)
    utils.append_dims = _append_dims  # type: ignore[attr-defined]
    package.utils = utils  # type: ignore[attr-defined]
    sys.modules.update({"k_diffusion": package, "k_diffusion.utils": utils})
    return importlib.import_module("k_diffusion.sampling")


def _append_dims(x: Tensor, dims: int) -> Tensor:
    """x with axes of length 1 appended until it has `dims` axes."""
    return x.reshape(*x.shape, *(1,) * (dims - x.ndim))


def _run(trial: Trial, function: str, options: dict[str, Any]) -> Tensor:
    options = dict(options)
    if trial.normals is not None and function in _SAMPLED:
        options["noise_sampler"] = _SAMPLED[function](trial)
    with normals_from(trial, "torch", "randn_like"):
        return getattr(sampling(), function)(
            lambda x, sigma: trial.data(sigma, x), trial.y, trial.levels, disable=True, **options
        )


def _independent(trial: Trial) -> Callable[[Any, Any], Tensor]:
    return lambda sigma, sigma_next: trial.normals()  # type: ignore[misc]


def _path(trial: Trial) -> Callable[[Any, Any], Tensor]:
    """Normalised increments of one Brownian path whose time is sigma^-2: from a step's start to a node, then its end.

    For eta = 1. The node is asked for first, so that the second answer is a sum of both increments.
    """
    pending: list[tuple[float, float, Tensor]] = []

    def increment(sigma: Any, sigma_next: Any) -> Tensor:
        start, end = float(sigma) ** -2, float(sigma_next) ** -2
        fresh = trial.normals()  # type: ignore[misc]
        if pending and pending[0][0] == start:
            _, node, first = pending.pop()
            part = (node - start) / (end - start)
            return part**0.5 * first + (1 - part) ** 0.5 * fresh
        pending[:] = [(start, end, fresh)]
        return fresh

    return increment


_SAMPLED: dict[str, Callable[[Trial], Any]] = {
    **dict.fromkeys(
        (
            "sample_euler_ancestral",
            "sample_dpm_2_ancestral",
            "sample_dpmpp_2s_ancestral",
            "sample_dpmpp_2m_sde",
            "sample_dpmpp_3m_sde",
        ),
        _independent,
    ),
    "sample_dpmpp_sde": _path,
}


def _peers() -> Iterator[Peer]:
    flows: dict[str, tuple[str, str, dict[str, Any]]] = {
        "euler": ("Runge-Kutta", "sample_euler", {}),
        "heun": ("Runge-Kutta", "sample_heun", {}),
        "dpm_2": ("DPM-Solver", "sample_dpm_2", {}),
        "lms": ("Adams-Bashforth", "sample_lms", {}),
        "dpmpp_2s": ("DPM-Solver++", "sample_dpmpp_2s_ancestral", {"eta": 0.0}),
        "dpmpp_2m": ("DPM-Solver++", "sample_dpmpp_2m", {}),
        "dpmpp_3m": ("DPM-Solver++", "sample_dpmpp_3m_sde", {"eta": 0.0}),
    }
    laws: dict[str, tuple[str, str]] = {
        "euler_ancestral": ("ancestral", "sample_euler_ancestral"),
        "dpm_2_ancestral": ("ancestral", "sample_dpm_2_ancestral"),
        "dpmpp_2s_ancestral": ("ancestral", "sample_dpmpp_2s_ancestral"),
        "dpmpp_sde": ("DPM-Solver++", "sample_dpmpp_sde"),
        "dpmpp_2m_sde": ("DPM-Solver++", "sample_dpmpp_2m_sde"),
        "dpmpp_3m_sde": ("DPM-Solver++", "sample_dpmpp_3m_sde"),
    }
    for name, (family, function, options) in flows.items():
        run = partial(_run, function=function, options=options)
        yield Peer(f"{PACKAGE}:{name}", PACKAGE, _INSTALL, family, "deterministic", run)
    for name, (family, function) in laws.items():
        run = partial(_run, function=function, options={})
        yield Peer(f"{PACKAGE}:{name}", PACKAGE, _INSTALL, family, "weak", run)


PEERS = tuple(_peers())
