"""How far a sampler's output is from the law it should have: exactly where that is possible, else with its noise."""

from __future__ import annotations

from sdekit.metrics.decomposition import Decomposition, decompose
from sdekit.metrics.gaussian import gaussian_kl, gaussian_w2
from sdekit.metrics.law import LawError, plan_law_error
from sdekit.metrics.measured import METRICS, Measured, NoiseFloor, compare, noise_floor
from sdekit.metrics.output_law import LawDistance, OutputLaw, output_law
from sdekit.metrics.pairs import energy_distance, median_distance, mmd2
from sdekit.metrics.protocol import ProtocolRow, gaussian_protocol
from sdekit.metrics.stratified import stratified_marginal, stratified_sample
from sdekit.metrics.transport import exact_w2, sliced_w2
from sdekit.metrics.weak import WeakError, weak_error

__all__ = [
    "METRICS",
    "Decomposition",
    "LawDistance",
    "LawError",
    "Measured",
    "NoiseFloor",
    "OutputLaw",
    "ProtocolRow",
    "WeakError",
    "compare",
    "decompose",
    "energy_distance",
    "exact_w2",
    "gaussian_kl",
    "gaussian_protocol",
    "gaussian_w2",
    "median_distance",
    "mmd2",
    "noise_floor",
    "output_law",
    "plan_law_error",
    "sliced_w2",
    "stratified_marginal",
    "stratified_sample",
    "weak_error",
]
