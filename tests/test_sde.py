"""SDEs and ODEs by class and by function."""

from __future__ import annotations

import pytest
import torch

import sdekit
from sdekit import ODE, SDE
from sdekit.errors import InterfaceError, OptionError


def test_functions_make_dynamics() -> None:
    sde = sdekit.make_sde(lambda t, x: -t * x, lambda t, x: x, "scalar", "stratonovich", additive=False)
    t, x = torch.tensor(2.0), torch.ones(3, 2)
    assert torch.equal(sde.drift(t, x), -2 * x) and torch.equal(sde.diffusion(t, x), x)
    assert (sde.noise_type, sde.sde_type, sde.additive) == ("scalar", "stratonovich", False)
    ode = sdekit.make_ode(lambda t, x: t * x)
    assert torch.equal(ode.drift(t, x), 2 * x) and isinstance(ode, ODE) and isinstance(sde, SDE)
    default = sdekit.make_sde(lambda t, x: x, lambda t, x: x)
    assert (default.noise_type, default.sde_type, default.additive) == ("diagonal", "ito", False)


def test_classes_check_what_they_declare_when_they_are_made() -> None:
    with pytest.raises(OptionError, match=r"Mine\.noise_type.*'diagonal'"):
        type("Mine", (SDE,), {"noise_type": "diagnal"})
    with pytest.raises(OptionError, match=r"Mine\.sde_type.*'stratonovich'"):
        type("Mine", (SDE,), {"sde_type": "stratonovic"})
    with pytest.raises(TypeError, match="abstract"):
        SDE()  # type: ignore[abstract]
    with pytest.raises(TypeError, match="abstract"):
        ODE()  # type: ignore[abstract]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InterfaceError, match=r"drift.*drift\(t, x\)"):
        sdekit.make_sde(1.0, lambda t, x: x)  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match="diffusion"):
        sdekit.make_sde(lambda t, x: x, 1.0)  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match="drift"):
        sdekit.make_ode(None)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'general'"):
        sdekit.make_sde(lambda t, x: x, lambda t, x: x, "genral")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="sde_type"):
        sdekit.make_sde(lambda t, x: x, lambda t, x: x, sde_type="itoo")  # type: ignore[arg-type]
