"""What a suite of benchmarks is: a TOML file, checked before anything runs."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from sdekit.bench.faults import Faults, placed, together
from sdekit.errors import OptionError, SdekitError, UnknownNameError, suggest

__all__ = ["Build", "Choice", "Orders", "Parts", "Picture", "Protocol", "Sampled", "Speed", "Suite", "Work"]
__all__ += ["available", "load"]

# Names become names of files: nothing that leaves the folder, and nothing that a spreadsheet would take for a formula.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Option = str | int | float | bool
Steps = Annotated[int, Field(ge=1, le=100_000)]
Kind = Literal["deterministic", "weak"]
AnyKind = Literal["deterministic", "weak", "strong"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Build(_Table):
    """Something made by name: a process of `sdekit`, or a function of `sdekit.targets`."""

    make: str
    options: dict[str, Option | list[float]] = {}


class Choice(_Table):
    """A solver with options; registered ones with their default options are always measured."""

    solver: str
    options: dict[str, Option] = {}


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        raise OptionError("the range", got=f"[{ends[0]}, {ends[1]}]", expected="low < high", fix="Swap them.")
    return ends


class _OnTarget(_Table):
    target: str
    kinds: list[Kind] = ["deterministic", "weak"]
    half_log_snr: Annotated[tuple[float, float], AfterValidator(_rising)]
    samples: Annotated[int, Field(ge=1, le=100_000)] = 8


class Orders(_OnTarget):
    """Orders of convergence: every solver, on each process and family of grids.

    Attributes:
        kinds: strong ones only where they are asked for: of paths of the reverse SDE on the target itself, against a
            fine solution on the same Brownian path, over 256 paths or as many as there are samples.
        declared: the least and the largest declared order that is measured here. High orders meet rounding errors on
            step counts that low ones need.
    """

    kinds: list[AnyKind] = ["deterministic", "weak"]
    processes: Annotated[list[str], Field(min_length=1)]
    grids: Annotated[list[str], Field(min_length=1)]
    steps: list[Steps] | None = None
    declared: tuple[float, float] = (0.0, 99.0)


class Work(_OnTarget):
    """Errors at given numbers of model calls, and at given tolerances.

    Attributes:
        kinds: strong errors only where they are asked for: see `sdekit.testing.strong`; samples are then paths.
        grid: one, or several.
        solvers: those to measure; all registered ones, with the suite's variants, where there are none.
        peers: patterns of other libraries' samplers, such as "k-diffusion:*".
        stochasticity: values of the reverse SDE's, for the solvers that take any; the exact law at each, or the paths.
        adaptive, tolerances: solvers that choose their steps, and the tolerances for them.
    """

    kinds: list[AnyKind] = ["deterministic", "weak"]
    process: str
    grid: str | Annotated[list[str], Field(min_length=1)]
    calls: Annotated[list[Steps], Field(min_length=1)]
    solvers: list[Choice] = []
    peers: list[str] = []
    stochasticity: list[Annotated[float, Field(ge=0)]] = []
    adaptive: list[Choice] = []
    tolerances: list[Annotated[float, Field(gt=0, lt=1)]] = []


class Picture(_OnTarget):
    """A picture of samples: a row for each solver, a block for each number of calls."""

    process: str
    grid: str
    calls: Annotated[list[Steps], Field(min_length=1)]
    solvers: Annotated[list[Choice], Field(min_length=1)]
    size: tuple[int, int]
    values: tuple[float, float]


class Parts(_OnTarget):
    """Where errors come from: the prior, the steps, and stopping before the data. See `sdekit.metrics.decompose`.

    Deterministic ones on the target itself, by paths; weak ones on the Gaussian of its mean and covariance, exactly.

    Attributes:
        stochasticity: values of the reverse SDE's, for weak ones; the solver's own where there are none.
        finish: what is done with the last state.
    """

    process: str
    grid: str
    calls: Annotated[list[Steps], Field(min_length=1)]
    solvers: Annotated[list[Choice], Field(min_length=1)]
    stochasticity: list[Annotated[float, Field(ge=0)]] = []
    finish: Literal["state", "rescaled", "denoised"] = "state"
    samples: Annotated[int, Field(ge=1, le=100_000)] = 256


class Sampled(_OnTarget):
    """Samples against exact samples, by metrics that have a noise floor. See `sdekit.metrics.compare`.

    Attributes:
        metrics: names of `sdekit.metrics.METRICS`.
        samples: points in each sample.
        repeats: pairs of exact samples that make the floor.
    """

    process: str
    grid: str
    calls: Annotated[list[Steps], Field(min_length=1)]
    solvers: Annotated[list[Choice], Field(min_length=1)]
    metrics: Annotated[list[Literal["energy", "exact_w2", "mmd2", "sliced_w2"]], Field(min_length=1)]
    samples: Annotated[int, Field(ge=16, le=1_000_000)] = 2048
    repeats: Annotated[int, Field(ge=1, le=10_000)] = 39


class Protocol(_Table):
    """The Gaussian protocol of Pierret and Galerne on a target's covariance. See `sdekit.metrics.gaussian_protocol`."""

    target: str
    calls: Annotated[list[Steps], Field(min_length=1)]
    truncations: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1)]


class Speed(_Table):
    """Rows of speed, each on every device and in every type of the state. See `sdekit.bench.speed`.

    Attributes:
        rows: names of `sdekit.bench.speed.MODULES`.
        rounds: interleaved ones, of which medians are taken.
    """

    rows: Annotated[list[str], Field(min_length=1)]
    devices: Annotated[list[Literal["cpu", "cuda"]], Field(min_length=1)] = ["cpu"]
    dtypes: Annotated[list[Literal["float64", "float32", "bfloat16"]], Field(min_length=1)] = ["float32"]
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 15


class Suite(_Table):
    """A whole suite.

    Attributes:
        tolerance: how far a measured order may stay below a declared one.
        cell_seconds: how long one measurement may take.
        cell_memory_mb: how many megabytes more than its process has it may take, on Linux; None for any number.
        processes, targets: what sections refer to by name.
        variants: solvers measured besides the registered ones with default options.
        orders, work, parts, protocol, sampled, pictures, speed: the sections.
        table_calls: the numbers of calls whose errors the printed table shows.
    """

    name: Name
    description: str
    tolerance: Annotated[float, Field(ge=0)] = 0.15
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    cell_seconds: Annotated[float, Field(gt=0)] = 1800.0
    cell_memory_mb: Annotated[int, Field(ge=64)] | None = None
    table_calls: list[Steps] = [10, 20, 50]
    processes: dict[Name, Build]
    targets: dict[Name, Build]
    variants: list[Choice] = []
    orders: list[Orders] = []
    work: list[Work] = []
    parts: list[Parts] = []
    protocol: list[Protocol] = []
    sampled: list[Sampled] = []
    pictures: list[Picture] = []
    speed: list[Speed] = []

    @model_validator(mode="before")
    @classmethod
    def _of_speed_alone(cls, raw: Any) -> Any:
        """Rows of speed have no processes and targets of the suite's: what has nothing else may leave these out."""
        others = ("orders", "work", "parts", "protocol", "sampled", "pictures")
        alone = isinstance(raw, dict) and "speed" in raw and not any(key in raw for key in others)
        return {"processes": {}, "targets": {}, **raw} if alone else raw


def available() -> dict[str, Path]:
    """The suites that come with sdekit, by name."""
    folder = Path(str(resources.files("sdekit.bench") / "suites"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(name: str) -> Suite:
    """A shipped suite by name, or one from a path that ends in .toml.

    Raises:
        UnknownNameError: for a name that is not shipped, with near ones.
        OptionError: for a file that cannot be read or is not TOML, or that breaks the form of a suite: then every such
            entry is named, and every name in the others that nothing is known under.
    """
    known = available()
    if name.endswith(".toml"):
        path = Path(name)
    elif name in known:
        path = known[name]
    else:
        fix = suggest(name, known) + " Or pass the path of a .toml file."
        raise UnknownNameError("suite", got=repr(name), expected="a suite of sdekit", fix=fix)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise OptionError(
            "suite", got=f"{path}: {reason}", expected="a readable file", fix="Check the path."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise OptionError("suite", got=f"{path}: {error}", expected="TOML", fix="Correct that line.") from error
    try:
        return Suite.model_validate(raw)
    except ValidationError as error:
        raise _refusal(path, raw, error) from error


def _refusal(path: Path, raw: dict[str, Any], error: ValidationError) -> SdekitError:
    """Every fault that pydantic found, in our words, and every unknown name in what is sound by itself."""
    from sdekit.bench import names

    faults = Faults()
    for fault in _distinct(error.errors()):
        faults.add(_fault(fault))
    names.collect(_sound(Suite, raw), faults)
    return together(path.name, faults.found)


def _distinct(found: list[Any]) -> list[Any]:
    """The faults without those that others explain.

    A value that is none of several types makes one for each of them, and a typo one for the entry that is unknown and
    one for that which is missing.
    """
    unique = list({_place(fault["loc"]): fault for fault in reversed(found)}.values())[::-1]
    typos = {
        (*fault["loc"][:-1], near)
        for fault in unique
        if fault["type"] == "extra_forbidden"
        for near in _fields_at(fault["loc"][:-1])
        if f"{near!r}" in suggest(str(fault["loc"][-1]), _fields_at(fault["loc"][:-1])).partition("Did you mean")[2]
    }
    return [fault for fault in unique if not (fault["type"] == "missing" and fault["loc"] in typos)]


def _place(loc: tuple[int | str, ...]) -> str:
    """Where a fault is, without what pydantic adds of the types that it tried for an option."""
    end = loc.index("options") + 2 if "options" in loc else len(loc)
    return ".".join(str(part) for part in loc[:end]) or "the file"


def _fault(fault: Any) -> SdekitError:
    place, loc = _place(fault["loc"]), fault["loc"]
    if fault["type"] == "extra_forbidden":
        fix = suggest(str(loc[-1]), _fields_at(loc[:-1]))
        return OptionError(place, got=repr(fault["input"])[:120], expected="an entry that is known there", fix=fix)
    if fault["type"] == "missing":
        return OptionError(place, got="nothing", expected="this entry", fix="Add it.")
    inner = fault.get("ctx", {}).get("error")
    if isinstance(inner, SdekitError):
        return placed(place, inner)
    expected = "text, a number, true or false" if "options" in loc else fault["msg"]
    return OptionError(place, got=repr(fault["input"])[:120], expected=expected, fix="Correct it.")


def _sound(kind: Any, value: Any) -> Any:
    """What of a value is sound by itself: entries with faults are left out of tables, and are None in lists."""
    parts = get_args(kind)
    if isinstance(kind, type) and issubclass(kind, _Table):
        given = value if isinstance(value, dict) else {}
        fields = {k: _sound(f.annotation, given[k]) for k, f in kind.model_fields.items() if k in given}
        return kind.model_construct(**{k: v for k, v in fields.items() if v is not None})
    if get_origin(kind) is list and isinstance(value, list):
        return [_sound(parts[0], v) for v in value]
    if get_origin(kind) is dict and isinstance(value, dict) and isinstance(parts[1], type):
        return {k: _sound(parts[1], v) for k, v in value.items()}
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return None


def _fields_at(place: tuple[int | str, ...]) -> list[str]:
    """The entries that the table at this place of a suite may have."""
    table: Any = Suite
    for part in place:
        if isinstance(part, str) and isinstance(table, type) and part in table.model_fields:
            table = table.model_fields[part].annotation
            while get_args(table):  # what the lists and tables of it hold
                table = get_args(table)[-1]
    return list(table.model_fields) if isinstance(table, type) and issubclass(table, _Table) else []
