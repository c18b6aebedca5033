"""What other libraries call these solvers: names of diffusers' schedulers, and names for a solver with options."""

from __future__ import annotations

from typing import Any

from sdekit.solvers.base import _REGISTRY

__all__ = ["OTHER_NAMES", "register_other_names"]

_SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    # diffusers, with the options that its schedulers have by default
    "DDIMScheduler": ("ddim", {}),
    "DDPMScheduler": ("ddpm", {}),
    "DEISMultistepScheduler": ("deis", {"order": 2, "clock": "lambda"}),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", {}),
    "DPMSolverSDEScheduler": ("dpmpp_sde", {}),
    "DPMSolverSinglestepScheduler": ("dpmpp_2s", {}),
    "EDMDPMSolverMultistepScheduler": ("dpmpp_2m", {}),
    "EDMEulerScheduler": ("euler", {}),
    "EulerAncestralDiscreteScheduler": ("euler_ancestral", {}),
    "EulerDiscreteScheduler": ("euler", {}),
    "FlowMatchEulerDiscreteScheduler": ("euler", {}),
    "FlowMatchHeunDiscreteScheduler": ("heun", {}),
    "HeunDiscreteScheduler": ("heun", {}),
    "IPNDMScheduler": ("ipndm", {}),
    "KDPM2AncestralDiscreteScheduler": ("dpm_2_ancestral", {}),
    "KDPM2DiscreteScheduler": ("dpm_solver_2", {}),
    "LMSDiscreteScheduler": ("lms", {}),
    "PNDMScheduler": ("pndm", {}),
    # Its stochasticity, 1 between timesteps 200 and 800 and 0 elsewhere, is the model's to say, as reverse(kappa); its
    # lower orders in the last steps are not here.
    "SASolverScheduler": ("sa_solver", {"predictor_order": 2, "corrector_order": 2, "second": "few_steps"}),
    # As with eta=1: its default 0.3 goes to 0.7 of the next time by a step of DDIM, and from there up by noise.
    "TCDScheduler": ("lcm", {}),
    "UniPCMultistepScheduler": ("unipc", {}),
}

OTHER_NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    **_SCHEDULERS,
    **{name.removesuffix("Scheduler"): meaning for name, meaning in _SCHEDULERS.items()},
    # ComfyUI
    "dpmpp_2m_sde_heun": ("dpmpp_2m_sde", {"second": "exact"}),
    "exp_heun_2_x0_sde": ("seeds_2", {"r": 1.0, "second": "exact"}),
    "sa_solver_pece": ("sa_solver", {"mode": "pece"}),
    "uni_pc": ("unipc", {"variant": "bh1", "order": 3}),
    "uni_pc_bh2": ("unipc", {"variant": "bh2", "order": 3}),
    # A1111
    "DPM++ 2M SDE Heun": ("dpmpp_2m_sde", {"second": "exact"}),
    "Euler": ("euler", {}),
    "Heun": ("heun", {}),
    "PLMS": ("plms", {}),
    "Restart": ("restart", {}),
    # flow matching, torchsde, score_sde
    "flowmatch_euler": ("euler", {}),
    "flowmatch_heun": ("heun", {}),
    "srk": ("sriw2", {}),
    "reverse_diffusion": ("predictor_corrector", {"corrections": 0}),
}
"""Name -> solver and options. Aliases that are a solver's own are with its class."""


def register_other_names() -> None:
    """Once, after the solvers themselves."""
    for name, (solver, options) in OTHER_NAMES.items():
        _REGISTRY.alias(name, solver, **options)
