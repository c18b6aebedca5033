"""Readings of speed in words, which the console, the page and the tables share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["goal", "of_speed", "shown", "tally", "told", "verdict", "where"]

_LARGE = 1000
_BARE = ("count", "")  # units that are not written


def of_speed(results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The results of rows of speed."""
    return [r for r in results if r["what"] == "speed"]


def where(result: Mapping[str, Any]) -> str:
    """On what a row is measured: "cpu, float32, 15 rounds", and the GPU's name."""
    rounds = result["rounds"]
    on = [result["device"], result["dtype"], f"{rounds} round{'' if rounds == 1 else 's'}"]
    return ", ".join([*on, *filter(None, [result.get("hardware", {}).get("name")])])


def shown(reading: Mapping[str, Any]) -> str:
    """The value with its unit."""
    value, unit = reading["value"], reading["unit"]
    if value is None:
        return "not measured"
    return _number(value) if unit in _BARE else f"{_number(value)} {unit}"


def goal(reading: Mapping[str, Any]) -> str:
    """What the value should be: "at most 1.3"; empty where there is no goal."""
    return "" if reading["goal"] is None else f"{reading['sense']} {_number(reading['goal'])}"


def verdict(reading: Mapping[str, Any]) -> str:
    """ "reached" or "MISSED"; empty where there is no goal, or no value."""
    return {True: "reached", False: "MISSED", None: ""}[reading["reached"]]


def tally(results: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """How many goals are reached, and how many missed."""
    found = [reading["reached"] for r in of_speed(results) for reading in r["readings"]]
    return found.count(True), found.count(False)


def told(results: Iterable[Mapping[str, Any]]) -> str:
    """The same in a sentence; empty where nothing was timed."""
    found = of_speed(results)
    if not found:
        return ""
    reached, missed = tally(found)
    left = sum(r["status"] == "skipped" for r in found) + sum(x["value"] is None for r in found for x in r["readings"])
    more = f"; {left} not measured here" if left else ""
    return f"Goals: {reached} reached, {missed} {'MISSED' if missed else 'missed'}{more}."


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= _LARGE else f"{value:.3g}"
