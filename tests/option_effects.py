"""What each option of each solver changes."""

from __future__ import annotations

from typing import Any

__all__ = ["ADAPTIVE_EFFECTS", "EFFECTS", "SDE_EFFECTS"]

# Each option of each solver, and a value that must change the result; some need company to matter.
EFFECTS: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    ("ddim", "eta"): ({"eta": 0.5}, {}),
    ("ddpm", "variance"): ({"variance": "beta"}, {}),
    ("ddpm", "v"): ({"v": 0.1}, {"variance": "range"}),
    ("ddpm", "posterior_variance"): ({"posterior_variance": 0.2}, {"variance": "analytic"}),
    ("euler_ancestral", "clock"): ({"clock": "t"}, {}),
    **{
        (name, option): ({option: value}, {})
        for name, form in (("predictor_corrector", "euler"), ("annealed_langevin", "exact"))
        for option, value in (("corrections", 2), ("rate", 0.3), ("delta", 0.05), ("corrector", form))
    },
    ("predictor_corrector", "predictor"): ({"predictor": "ddim"}, {}),
    **{
        ("er_sde", option): ({option: value}, {})
        for option, value in (("order", 1), ("noise_scale", "sde"), ("as_released", True))
    },
    ("dpmpp_2m", "second"): ({"second": "exact"}, {}),
    ("dpmpp_2m", "final_order"): ({"final_order": 1}, {}),
    ("dpmpp_2m_sde", "eta"): ({"eta": 0.5}, {}),
    ("dpmpp_2m_sde", "second"): ({"second": "exact"}, {}),
    ("edm_heun", "churn"): ({"churn": 2.0}, {}),
    ("edm_heun", "s_min"): ({"s_min": 1.0}, {"churn": 2.0}),
    ("edm_heun", "s_max"): ({"s_max": 0.5}, {"churn": 2.0}),
    ("edm_heun", "s_noise"): ({"s_noise": 1.1}, {"churn": 2.0}),
    ("exp_adams", "order"): ({"order": 3}, {}),
    ("exp_adams", "prediction"): ({"prediction": "noise"}, {}),
    ("exp_adams", "starter"): ({"starter": "single_step"}, {"order": 3}),
    ("exp_adams", "final_order"): ({"final_order": 1}, {}),
    ("exp_adams", "clock"): ({"clock": "t"}, {}),
    ("deis", "clock"): ({"clock": "rho"}, {}),
    ("deis", "as_released"): ({"as_released": True}, {}),
    **{(name, "order"): ({"order": 2}, {}) for name in ("lms", "deis", "ipndm", "ipndm_v", "pndm", "plms")},
    **{(name, "starter"): ({"starter": "single_step"}, {}) for name in ("lms", "deis")},
    **{(name, "final_order"): ({"final_order": 1}, {}) for name in ("lms", "deis")},
    ("ipndm_v", "as_released"): ({"as_released": True}, {}),
    ("gradient_estimation", "gamma"): ({"gamma": 1.5}, {}),
    **{
        (name, "clock"): ({"clock": "t"}, {})
        for name in ("euler", "heun", "midpoint", "ralston", "kutta3", "rk4", "bosh3", "rk45", "tsit5", "dop853")
    },
    **{
        (name, option): ({option: value}, {})
        for name, kind in (("dpm_solver_2", "data"), ("dpmpp_2s", "noise"))
        for option, value in (("r1", 0.3), ("second", "exact"), ("prediction", kind), ("final_order", 1))
    },
    ("dpm_solver_3", "r1"): ({"r1": 0.2}, {}),
    ("dpm_solver_3", "r2"): ({"r2": 0.8}, {}),
    ("dpm_solver_3", "third"): ({"third": "parabola"}, {}),
    ("dpm_solver_3", "prediction"): ({"prediction": "data"}, {}),
    ("dpm_solver_3", "final_order"): ({"final_order": 2}, {}),
    **{
        ("sa_solver", option): ({option: value}, company)
        for option, value, company in (
            ("predictor_order", 1, {}),
            ("corrector_order", 0, {}),
            ("prediction", "noise", {}),
            ("mode", "pece", {}),
            ("second", "few_steps", {"predictor_order": 2}),
        )
    },
    **{("seeds_2", k): ({k: v}, {}) for k, v in (("r", 0.3), ("second", "exact"), ("prediction", "noise"))},
    **{("seeds_3", k): ({k: v}, {}) for k, v in (("r1", 0.3), ("r2", 0.8), ("prediction", "noise"))},
    **{
        ("dpmpp_3m_sde", option): ({option: value}, {})
        for option, value in (("eta", 0.5), ("as_released", True), ("second", "half"))
    },
    ("dpmpp_3m", "as_released"): ({"as_released": True}, {}),
    ("dpmpp_3m", "second"): ({"second": "half"}, {}),
    ("dpmpp_3m", "starter"): ({"starter": "single_step"}, {}),
    ("dpmpp_3m", "final_order"): ({"final_order": 2}, {}),
    ("unipc", "order"): ({"order": 3}, {}),
    ("unipc", "prediction"): ({"prediction": "noise"}, {}),
    ("unipc", "variant"): ({"variant": "bh1"}, {}),
    ("unipc", "corrector"): ({"corrector": "pece"}, {}),
    ("unipc", "starter"): ({"starter": "single_step"}, {"order": 3}),
    ("unipc", "final_order"): ({"final_order": 1}, {}),
    ("dpmpp_sde", "r1"): ({"r1": 0.3}, {}),
    **{
        (name, option): ({option: value}, {})
        for name in (
            *("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"),
            "res_multistep_ancestral",
        )
        for option, value in (("eta", 0.5), ("s_noise", 1.1))
    },
    # The single-step samplers.
    ("dpm_solver_3", "second"): ({"second": "half"}, {}),
    ("dpm_adaptive", "order"): ({"order": 2}, {}),
    ("dpm_fast", "prediction"): ({"prediction": "data"}, {}),
    ("dpm_fast", "second"): ({"second": "half"}, {}),
    ("dpm_fast", "third"): ({"third": "line"}, {}),
    ("dpm_fast", "tail"): ({"tail": "full"}, {}),
    **{
        ("dpmpp_3s", option): ({option: value}, {})
        for option, value in (
            *(("r1", 0.2), ("r2", 0.8), ("third", "parabola"), ("second", "half")),
            *(("prediction", "noise"), ("final_order", 2)),
        )
    },
    **{
        (name, option): ({option: value}, {})
        for name, places in (
            ("res_2s", {"c2": 0.3}),
            ("etdrk3", {"c2": 0.2, "c3": 0.9}),
            ("res_3s", {"c2": 0.3, "c3": 0.9}),
        )
        for option, value in {**places, "prediction": "noise"}.items()
    },
    ("res_3s", "as_released"): ({"as_released": True}, {"c3": 0.75}),
    ("etdrk4", "form"): ({"form": "cox_matthews"}, {}),
    ("etdrk4", "prediction"): ({"prediction": "noise"}, {}),
    ("exp_heun_2_x0", "prediction"): ({"prediction": "noise"}, {}),
    ("exp_heun_2_x0", "second"): ({"second": "half"}, {}),
    ("hochbruck_ostermann", "prediction"): ({"prediction": "noise"}, {}),
    ("unipc", "as_released"): ({"as_released": True}, {"variant": "exact"}),
    ("unipc", "correct_last"): ({"correct_last": True}, {}),
    ("unipc", "lower_order_final"): ({"lower_order_final": True}, {}),
    # Noise around a flow, and the data's Gaussian in the linear part.
    ("splitting", "inner"): ({"inner": "heun"}, {}),
    ("splitting", "form"): ({"form": "ancestral"}, {}),
    ("splitting", "stochasticity"): ({"stochasticity": 0.5}, {}),
    ("restart", "inner"): ({"inner": "dpmpp_2s"}, {}),
    ("restart", "intervals"): ({"intervals": ((0.5, 1.0, 1, 2),)}, {}),
    ("restart", "s_noise"): ({"s_noise": 1.1}, {"intervals": ((0.5, 1.0, 1, None),)}),
    ("preconditioned_adams", "order"): ({"order": 2}, {}),
    ("preconditioned_adams", "form"): ({"form": "data"}, {}),
    ("preconditioned_adams", "data_variance"): ({"data_variance": 2.0}, {}),
    ("preconditioned_adams", "mean"): ({"mean": "zero"}, {}),
    ("preconditioned_adams", "clock"): ({"clock": "rho"}, {}),
    ("preconditioned_adams", "starter"): ({"starter": "single_step"}, {"order": 3}),
}


# Those that matter with a tolerance only. `compact` changes who is in the batch, and no number.
ADAPTIVE_EFFECTS: dict[tuple[str, str], dict[str, Any]] = {
    **{
        (name, option): change
        for name in ("bosh3", "rk45", "tsit5", "dop853")
        for option, change in (
            ("adaptive_clock", {"adaptive_clock": "t"}),
            ("controller", {"controller": "i"}),
            ("first_step", {"first_step": 1e-3}),
            ("compact", {"compact": False}),
        )
    },
    ("dpm_adaptive", "controller"): {"controller": "i"},
    ("dpm_adaptive", "first_step"): {"first_step": 1e-3},
    ("dpm_adaptive", "compact"): {"compact": False},
    ("rk45", "error_weights"): {"error_weights": "shampine"},
}


# Those that matter on SDEs whose noise depends on the state, or on curved drifts. A tolerance decides whether a step is
# good enough, and no number.
SDE_EFFECTS: dict[tuple[str, str], dict[str, Any]] = {
    ("log_ode", "area"): {"area": "davie_foster"},
    ("milstein", "derivative"): {"derivative": "free"},
    ("milstein_stratonovich", "derivative"): {"derivative": "free"},
    ("theta_maruyama", "theta"): {"theta": 0.75},
    **{
        (name, option): {option: value}
        for name in ("implicit_euler_maruyama", "theta_maruyama")
        for option, value in (("iterations", 2), ("tolerance", 1e-30))
    },
}
