"""Other libraries, where they are installed, and what to say where they are not."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from torch import Tensor

HOW_TO_INSTALL = {
    "k-diffusion": "pip install --no-deps -r benchmarks/requirements-peers.txt",
    "diffusers": "pip install -c constraints.txt -e '.[peers]'",
    "azula": "pip install -c constraints.txt -e '.[peers]'",
}


def installed(name: str) -> str | None:
    """The version of a distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing(name: str) -> str:
    """What to say where a library is not installed."""
    return f"{name} is not installed: skipped. `make bench-speed` installs it, or: {HOW_TO_INSTALL[name]}"


def kdiffusion_sampling() -> Any:
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
