"""The report of a run: one HTML page with all in it, which needs no network and can make no request."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from plotly import offline

from sdekit.bench import parts_page, readings, sampled_page, speed_page, strips
from sdekit.bench.curves import TITLES, fitted_line, merged
from sdekit.bench.files import write_as_asked
from sdekit.bench.results import read_results
from sdekit.bench.summary import ABOVE, OWN_STEPS, work_spots

__all__ = ["FILE_NAME", "page", "write_report"]

FILE_NAME = "report.html"
_SCRIPTS = ("common.js", "orders.js", "curves.js", "sections.js")
_SECTIONS = {"orders": "order", "work": "work", "samples": "picture"}
_DIGITS = 6  # significant ones of errors on the page; results.json has all
_MORE = (parts_page.sections, sampled_page.section, speed_page.section)
_LINKS = (parts_page.links, sampled_page.link, speed_page.link)
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of the results in a folder, by default into the same folder, and return its path.

    Raises:
        OptionError: for a folder without results, for damaged ones, or a file that cannot be written.
    """
    path = folder / FILE_NAME if out is None else out
    content = page(read_results(folder)).encode()
    write_as_asked(path, content)
    return path


def page(content: Mapping[str, Any]) -> str:
    """The HTML of the results that `read_results` gives. The same results make the same page."""
    code = "\n".join(_asset(name) for name in _SCRIPTS)
    library, packed = _library()
    parts = {
        "policy": _policy(code, library),
        "title": html.escape(f"sdekit: {content['suite']['name']}"),
        "description": html.escape(content["suite"]["description"]),
        "style": _asset("page.css"),
        "notice": _notice(content),
        "parts": "".join(make(content["results"]) for make in _MORE),
        "parts_link": "".join(make(content["results"]) for make in _LINKS),
        "pictures": _pictures(content),
        "environment": _environment(content),
        "command": html.escape(_command(content)),
        "data": _json(_data(content)),
        "plotly": packed,
        "code": code,
    }
    return _PLACE.sub(lambda found: parts[found[1]], _asset("page.html"))


@cache
def _library() -> tuple[str, str]:
    """plotly.js, and the same compressed in base64: two megabytes instead of five."""
    text = offline.get_plotlyjs()
    return text, base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _asset(name: str) -> str:
    return (resources.files("sdekit.bench") / "page" / name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    """Content-Security-Policy: these scripts and no others, pictures from the page itself, and no connection at all."""
    allowed = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in scripts
    )
    rules = {
        "default-src": "'none'",
        "script-src": allowed,
        "style-src": "'unsafe-inline'",  # plotly sets styles as it draws
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _json(data: Any) -> str:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(content: Mapping[str, Any]) -> dict[str, Any]:
    results = content["results"]
    solvers = {
        r["solver"]: {"family": r["family"], "variant": bool(r["options"]), "package": r.get("package")}
        for r in results
    }
    return {
        "run": _words(content["source"]),
        "tolerance": content["suite"]["tolerance"],
        "above": ABOVE,
        "calls": content["suite"]["table_calls"],
        "solvers": solvers,
        "orders": [_order(r) for r in results if r["what"] == "order"],
        "curves": _curves(results),
        "titles": TITLES,
        "own_steps": OWN_STEPS,
        "empty": [name for name, what in _SECTIONS.items() if not any(r["what"] == what for r in results)],
        "skipped": list(dict.fromkeys(r["message"] for r in results if r["status"] == "skipped")),
    }


def _solver(result: Mapping[str, Any]) -> dict[str, Any]:
    return {"family": result["family"], "variant": bool(result["options"]), "package": result.get("package")}


def _order(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("solver", "kind", "target", "process", "grid", "half_log_snr", "status", "message")
    found = {key: result[key] for key in kept}
    if result["status"] == "ok":
        found |= {key: result[key] for key in ("declared", "exact", "steps")}
        found["measured"] = _rounded(result["measured"])
        found["interval"] = [_rounded(v) for v in result["interval"] or ()]
        found["errors"] = [_rounded(v) for v in result["errors"]]
    return found


def _curves(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[Any]] = {}
    spots = work_spots(results)
    for r in results:
        if r["what"] == "work" and r["status"] == "ok":
            groups.setdefault((r["target"], r["process"], r["grid"], r["kind"]), []).append(r)
    return [
        {
            **dict(zip(("target", "process", "grid", "kind"), place, strict=True)),
            "spot": spots[place[0], place[1], place[2]],
            "solvers": names,
            "declared": declared,
            "calls": calls,
            "errors": [_rounded(e) for e in errors],
            "seconds": _seconds(group, names[0]),
            **_band(group, names[0]),
            "fit": [_rounded(v) for v in fitted_line(calls, errors) or ()],
        }
        for place, group in groups.items()
        for names, declared, (calls, errors) in merged(group)
    ]


def _seconds(results: Sequence[Mapping[str, Any]], solver: str) -> list[float | None]:
    """What the points of a solver's curve cost."""
    of_it = next(r for r in results if r["solver"] == solver)
    pairs = zip(of_it["points"], of_it.get("point_seconds") or (), strict=False)
    return [_rounded(s) for s in {p["calls"]: s for p, s in pairs if p["error"]}.values()]


def _band(results: Sequence[Mapping[str, Any]], solver: str) -> dict[str, list[float | None]]:
    """The intervals of a solver's curve, empty for errors that have none."""
    points = next(r["points"] for r in results if r["solver"] == solver)
    found = {p["calls"]: p for p in points if p["error"]}.values()
    known = any(p.get("low") is not None for p in found)
    return {key: [_rounded(p.get(key)) for p in found] if known else [] for key in ("low", "high")}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _notice(content: Mapping[str, Any]) -> str:
    """The verdict of the whole run, in words."""
    lines = content["summary"]
    measured = sum(line["count"] for line in lines)
    solvers = len({line["solver"] for line in lines})
    bad = [line for line in lines if line["verdict"] in ("SHORT", "FAILED")]
    tolerance = content["suite"]["tolerance"]
    parts = [f"{solvers} solvers and variants, {measured:,} orders of convergence measured."]
    if not measured:
        number = len(content["results"])
        names = {r["solver"] for r in content["results"] if r["what"] != "speed"}
        parts = [f"{len(names)} solvers and variants, {number:,} measurements."]
        if not names:
            parts = [f"{number:,} measurements of speed. {readings.told(content['results'])}"]
    if bad:
        parts += [f"<strong>{len(bad)} fall short or failed: {_escaped(line['solver'] for line in bad)}.</strong>"]
    elif measured:
        parts += [f"Every measured order reaches the declared one, or is at most {tolerance:g} below it."]
    if not content["complete"]:
        parts += ["<strong>The run was interrupted: some measurements are missing.</strong>"]
    if content["reused"]:
        parts += [f"{content['reused']:,} of its measurements were re-used from an earlier run of the same code."]
    return " ".join(parts)


def _escaped(texts: Iterable[str]) -> str:
    return ", ".join(html.escape(text) for text in dict.fromkeys(texts))


def _pictures(content: Mapping[str, Any]) -> str:
    """Every section of sample pictures: a row for each solver, a figure for each number of calls."""
    parts = []
    for section in content["suite"]["pictures"]:
        rows = [
            r
            for r in content["results"]
            if r["what"] == "picture" and r["target"] == section["target"] and r["status"] == "ok"
        ]
        if not rows:
            continue
        place = f"{section['target']}, process {section['process']}, grid {section['grid']}"
        parts.append(f"<p>{html.escape(place)}. Every row starts from the same noise.</p>")
        parts += [_picture_row(row["solver"], _blocks(row), section) for row in rows]
        real = rows[0]["real"][: len(rows[0]["exact"])]
        parts.append(_picture_row("real data", [("from the data set", real)], section))
    return "\n".join(parts) or "<p>This run drew no samples.</p>"


def _blocks(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    blocks = []
    for block in row["blocks"]:
        error = "" if block["error"] is None else f", error {block['error']:.2g}"
        calls = f"{block['calls']} calls{error}" if block["x"] else f"no step fits {block['budget']} calls"
        blocks.append((calls, block["x"]))
    if row["kind"] == "deterministic":
        blocks.append(("exact flow", row["exact"]))
    return blocks


def _picture_row(name: str, blocks: Sequence[tuple[str, Any]], section: Mapping[str, Any]) -> str:
    (height, width), values = section["size"], section["values"]
    figures = []
    for caption, images in blocks:
        text = html.escape(caption)
        strip = ""
        if images:
            data = base64.b64encode(strips.png(images, height, width, *values)).decode()
            alt = html.escape(f"{len(images)} samples, {name}, {caption}")
            strip = f'<img src="data:image/png;base64,{data}" alt="{alt}">'
        figures.append(f"<figure>{strip}<figcaption>{text}</figcaption></figure>")
    return f'<h3><code>{html.escape(name)}</code></h3>\n<div class="strip">{"".join(figures)}</div>'


def _environment(content: Mapping[str, Any]) -> str:
    more = {"seconds": f"{content['seconds']:,.0f}", "digest of the numbers": content["numbers"]}
    about = {k.replace("_", " "): str(v) for k, v in {**content["environment"], **more}.items() if v is not None}
    return "\n".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in about.items())


def _command(content: Mapping[str, Any]) -> str:
    return shlex.join(["sdekit", "bench", "run", *_words(content["source"])])


def _words(source: str) -> list[str]:
    """Of a command; what no shell would read is one word."""
    try:
        return shlex.split(source)
    except ValueError:
        return [source]
