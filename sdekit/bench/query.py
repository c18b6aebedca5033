"""SQL over results, and results as Parquet, both by duckdb."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdekit.bench.files import unsealed, write_atomically
from sdekit.bench.results import FILE, read_results
from sdekit.bench.store import FORMAT
from sdekit.errors import OptionError

if TYPE_CHECKING:
    import duckdb

__all__ = ["PARQUET", "finished", "query", "write_parquet"]

PARQUET = "results.parquet"
_PLACE = ("what", "solver", "kind", "target", "process", "grid")


def query(folder: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of columns and rows of what a statement selects from the results in a folder.

    There are two views: `cells`, a row for each measurement, and `points`, one for each error in it, with its steps and
    calls, or for each reading of speed. A number that is missing is NULL; none is NaN. The statement sees nothing else:
    no file, no network.

    Raises:
        OptionError: where there are no results, they are damaged, or the statement is not understood.
    """
    import duckdb

    connection = _tables(finished(folder))
    try:
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
        found = connection.execute(sql)
        return [column[0] for column in found.description or ()], found.fetchall()
    except duckdb.Error as error:
        raise OptionError(
            "query",
            got=f"{sql!r}: {error}",
            expected="SQL that duckdb understands, over the views cells and points",
            fix=f"Columns of cells are: {', '.join(_columns(connection, 'cells'))}.",
        ) from error
    finally:
        connection.close()


def finished(folder: Path) -> list[dict[str, Any]]:
    """The results in a folder: those of its results.json, or, while there is none yet, those that a run has kept.

    Raises:
        OptionError: where there are none, or one is damaged.
    """
    kept = sorted((folder / "cells").glob("[0-9a-f]*.json"))
    if (folder / FILE).exists() or not kept:
        return read_results(folder)["results"]
    return [unsealed(path, path.read_bytes(), FORMAT)["result"] for path in kept]


def write_parquet(folder: Path, results: Sequence[Mapping[str, Any]]) -> Path:
    """Write results.parquet, the view `cells`, in place of an earlier one; its path.

    Raises:
        OSError: where the system refuses; an earlier file is then as it was.
    """
    connection = _tables(results)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / PARQUET
        connection.execute("copy cells to $path (format parquet)", {"path": str(path)})
        content = path.read_bytes()
    connection.close()
    write_atomically(folder / PARQUET, content)
    return folder / PARQUET


def _tables(results: Sequence[Mapping[str, Any]]) -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect()
    _fill(connection, "cells", [_flat(result) for result in results])
    _fill(connection, "points", [point for result in results for point in _points(result)])
    return connection


def _flat(result: Mapping[str, Any]) -> dict[str, Any]:
    """A measurement as one row; samples of pictures stay out of it."""
    row = {k: v for k, v in result.items() if result["what"] != "picture" or not isinstance(v, (list, dict))}
    low, high = result["half_log_snr"]
    return {**row, "half_log_snr": [low, high], "half_log_snr_start": low, "half_log_snr_end": high}


def _points(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    place = {key: result[key] for key in _PLACE}
    if result["what"] == "order":
        lists = {name: result.get(plural, ()) for name, plural in (("steps", "steps"), ("error", "errors"))}
        calls = result.get("calls") or [None] * len(lists["steps"])
        for steps, n, error in zip(lists["steps"], calls, lists["error"], strict=True):
            yield {**place, "steps": steps, "calls": n, "error": error}
    for reading in result.get("readings") or ():
        yield {**place, "device": result["device"], "dtype": result["dtype"], **reading}
    for point in result.get("points") or ():
        yield {**place, **point}


def _fill(connection: duckdb.DuckDBPyConnection, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of all entries that any of the rows has."""
    keys = list(dict.fromkeys([*_PLACE, "status", *(key for row in rows for key in row)]))
    types = {key: _type([row[key] for row in rows if row.get(key) is not None]) for key in keys}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "rows.json"
        with path.open("w") as file:
            file.writelines(f"{json.dumps({key: row.get(key) for key in keys}, allow_nan=False)}\n" for row in rows)
        # By way of a file: values one by one take a hundred times as long.
        reader = "read_json($path, format = 'newline_delimited', columns = $types, maximum_object_size = $most)"
        given = {"path": str(path), "types": types, "most": 2**30}
        connection.execute(f"create table {name} as select * from {reader}", given)


def _type(values: Sequence[Any]) -> str:
    """The SQL type that holds all of these; JSON text where nothing simpler does."""
    kinds = {type(value) for value in values}
    if kinds <= {str}:
        return "varchar"
    if kinds == {bool}:
        return "boolean"
    if kinds <= {int, float}:
        return "bigint" if kinds == {int} and all(abs(value) < 2**63 for value in values) else "double"
    if kinds == {list}:
        inner = {type(v) for value in values for v in value if v is not None}
        if inner <= {int, float}:
            return "double[]"
        if inner == {str}:
            return "varchar[]"
    return "json"


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    return [row[0] for row in connection.execute(f"describe {table}").fetchall()]
