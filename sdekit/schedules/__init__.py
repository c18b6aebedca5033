"""Schedules of affine processes: log alpha and log sigma as functions of time; see `Schedule`."""

from __future__ import annotations

from sdekit.schedules.base import Schedule
from sdekit.schedules.closed import EDMSchedule, HeatSchedule, OUSchedule, RFSchedule, VESchedule
from sdekit.schedules.derived import DerivedSchedule
from sdekit.schedules.preserving import CosineSchedule, DiscreteVPSchedule, SubVPSchedule, VPSchedule

__all__ = [
    "CosineSchedule",
    "DerivedSchedule",
    "DiscreteVPSchedule",
    "EDMSchedule",
    "HeatSchedule",
    "OUSchedule",
    "RFSchedule",
    "Schedule",
    "SubVPSchedule",
    "VESchedule",
    "VPSchedule",
]
