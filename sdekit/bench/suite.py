"""What a suite of benchmarks is: a TOML file, checked before anything runs."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from sdekit.errors import OptionError, UnknownNameError, suggest

__all__ = ["Build", "Choice", "Orders", "Picture", "Suite", "Work", "available", "load"]

# Names become names of files: nothing that leaves the folder, and nothing that a spreadsheet would take for a formula.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Option = str | int | float | bool
Steps = Annotated[int, Field(ge=1, le=100_000)]
Kind = Literal["deterministic", "weak"]


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


class _OnTarget(_Table):
    target: str
    kinds: list[Kind] = ["deterministic", "weak"]
    half_log_snr: tuple[float, float]
    samples: Annotated[int, Field(ge=1, le=100_000)] = 8

    @model_validator(mode="after")
    def _rising(self) -> Self:
        low, high = self.half_log_snr
        if not low < high:
            raise OptionError("half_log_snr", got=f"[{low}, {high}]", expected="low < high", fix="Swap them.")
        return self


class Orders(_OnTarget):
    """Orders of convergence: every solver, on each process and family of grids.

    Attributes:
        declared: the least and the largest declared order that is measured here. High orders meet rounding errors on
            step counts that low ones need.
    """

    processes: Annotated[list[str], Field(min_length=1)]
    grids: Annotated[list[str], Field(min_length=1)]
    steps: list[Steps] | None = None
    declared: tuple[float, float] = (0.0, 99.0)


class Work(_OnTarget):
    """Errors at given numbers of model calls."""

    process: str
    grid: str
    calls: Annotated[list[Steps], Field(min_length=1)]


class Picture(_OnTarget):
    """A picture of samples: a row for each solver, a block for each number of calls."""

    process: str
    grid: str
    calls: Annotated[list[Steps], Field(min_length=1)]
    solvers: Annotated[list[Choice], Field(min_length=1)]
    size: tuple[int, int]
    values: tuple[float, float]


class Suite(_Table):
    """A whole suite.

    Attributes:
        tolerance: how far a measured order may stay below a declared one.
        processes, targets: what sections refer to by name.
        variants: solvers measured besides the registered ones with default options.
        orders, work, pictures: the sections.
        table_calls: the numbers of calls whose errors the printed table shows.
    """

    name: Name
    description: str
    tolerance: Annotated[float, Field(ge=0)] = 0.15
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    table_calls: list[Steps] = [10, 20, 50]
    processes: dict[Name, Build]
    targets: dict[Name, Build]
    variants: list[Choice] = []
    orders: list[Orders] = []
    work: list[Work] = []
    pictures: list[Picture] = []


def available() -> dict[str, Path]:
    """The suites that come with sdekit, by name."""
    folder = Path(str(resources.files("sdekit.bench") / "suites"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(name: str) -> Suite:
    """A shipped suite by name, or one from a path that ends in .toml.

    Raises:
        UnknownNameError: for a name that is not shipped, with near ones.
        OptionError: for a file that cannot be read, is not TOML, or breaks the form of a suite, naming the entry.
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
        return Suite.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise OptionError(
            "suite", got=f"{path}: {reason}", expected="a readable file", fix="Check the path."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise OptionError("suite", got=f"{path}: {error}", expected="TOML", fix="Correct that line.") from error
    except ValidationError as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: ValidationError) -> OptionError:
    """The first fault that pydantic found, in our words, with near names for what it does not know."""
    # A typo makes two faults, an entry unknown and one missing: the first of them says more.
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    first = faults[0]
    place = ".".join(str(part) for part in first["loc"]) or "the file"
    fix = "Correct it."
    expected = first["msg"]
    if first["type"] == "extra_forbidden":
        expected = "an entry that a suite has"
        fix = suggest(str(first["loc"][-1]), _fields_at(first["loc"][:-1]))
    elif first["type"] == "missing":
        expected, fix = "this entry", "Add it."
    more = f" ({len(faults) - 1} more faults: {_places(faults[1:4])})" if len(faults) > 1 else ""
    got = "nothing" if first["type"] == "missing" else repr(first["input"])
    return OptionError(f"{path.name}: {place}", got=got[:120], expected=expected, fix=fix + more)


def _places(faults: list[Any]) -> str:
    return ", ".join(".".join(str(part) for part in fault["loc"]) for fault in faults)


def _fields_at(place: tuple[int | str, ...]) -> list[str]:
    """The entries that the table at this place of a suite may have."""
    section = next((part for part in place if isinstance(part, str)), None)
    tables: dict[str | None, type[_Table]] = {
        None: Suite,
        "orders": Orders,
        "work": Work,
        "pictures": Choice if "solvers" in place else Picture,
        "variants": Choice,
        "processes": Build,
        "targets": Build,
    }
    return list(tables.get(section, Suite).model_fields)
