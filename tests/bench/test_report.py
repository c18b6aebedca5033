"""The report: all in one file, inert whatever the data; in a browser it works and asks the network for nothing."""

from __future__ import annotations

import base64
import copy
import gzip
import hashlib
import html.parser
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from plotly import offline
from rich.console import Console

from sdekit.bench import command, report, results, strips
from sdekit.errors import OptionError
from tests.bench.conftest import STRONG, TINY


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a run of a small suite."""
    top = tmp_path_factory.mktemp("report")
    (top / "tiny.toml").write_text(TINY)
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere)
        suite, only = str(top / "tiny.toml"), "[der][dku]*[4mr]"  # ddim, ddpm, euler, rk4
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SDEKIT_CACHE", str(tmp_path_factory.getbasetemp() / "references"))
            assert command.run_suite(suite, out=top / "out", workers=1, only=only, console=console) == 0
    return top / "out"


@pytest.fixture
def content(folder: Path) -> dict[str, Any]:
    return copy.deepcopy(results.read_results(folder))


class Page(html.parser.HTMLParser):
    """The elements of a page with their attributes, and the texts of the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.texts: list[str] = []
        self._script: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs).get("id") or "code"
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.texts.append(data)
        else:
            self.scripts[self._script] += data


def test_page_holds_the_numbers(content: dict[str, Any]) -> None:
    page = Page(report.page(content))
    data = json.loads(page.scripts["data"])
    orders = [r for r in content["results"] if r["what"] == "order"]
    assert [o["measured"] for o in data["orders"]] == [pytest.approx(r["measured"], rel=1e-5) for r in orders]
    assert [o["half_log_snr"] for o in data["orders"]] == [r["half_log_snr"] for r in orders]
    shared = {name: c for c in data["curves"] for name in c["solvers"]}
    for r in content["results"]:
        if r["what"] == "work" and r["kind"] == "deterministic":
            errors = [p["error"] for p in r["points"] if p["error"]]
            assert shared[r["solver"]]["errors"] == pytest.approx(errors, rel=1e-5)
            for key in ("low", "high"):
                band = [p[key] for p in r["points"] if p["error"]]
                assert shared[r["solver"]][key] == pytest.approx(band, rel=1e-5)
        elif r["what"] == "work":
            assert shared[r["solver"]]["low"] == []
    text = " ".join(page.texts)
    for value in (content["environment"]["cpu"], content["environment"]["date"], content["numbers"]):
        assert value in text
    assert "Every measured order reaches the declared one" in text
    assert f"sdekit bench run {content['source']}" in text


def test_page_names_the_code_that_a_run_needs(content: dict[str, Any]) -> None:
    """Each word by itself, for the page's own commands; what no shell reads stays one word and runs nothing."""
    for source, words in {
        "'my own.toml' --solver a/b.py:My": ["my own.toml", "--solver", "a/b.py:My"],
        "x'; touch y": ["x'; touch y"],
    }.items():
        given = {**content, "source": source}
        assert report._data(given)["run"] == words
        assert report._command(given) == shlex.join(["sdekit", "bench", "run", *words])


def test_page_depends_on_the_results_alone(folder: Path, content: dict[str, Any], tmp_path: Path) -> None:
    path = report.write_report(folder, tmp_path / "new" / "page.html")
    assert path.read_text() == report.page(content) == (folder / report.FILE_NAME).read_text()


def test_page_is_one_file(content: dict[str, Any]) -> None:
    page = Page(report.page(content))
    for tag, attributes in page.elements:
        for key in ("src", "href", "srcset", "action", "data"):
            if attributes.get(key):
                assert re.match(r"#|data:", str(attributes[key])), (tag, attributes)
    assert not [tag for tag, _ in page.elements if tag in ("iframe", "object", "embed", "base")]
    assert gzip.decompress(base64.b64decode(page.scripts["plotly"])).decode() == offline.get_plotlyjs()
    assert len(report.page(content)) < 3_000_000


def test_policy_allows_these_scripts_and_no_connection(content: dict[str, Any]) -> None:
    page = Page(report.page(content))
    policy = next(str(a["content"]) for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    for code in (page.scripts["code"], offline.get_plotlyjs()):
        assert base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() in rules["script-src"]
    assert "unsafe" not in rules["script-src"]


PAYLOADS = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onclick='alert(1)",
    "<!--<script>",
    "{{plotly}}",
    "\u2028]]>&lt;b&gt;",
]


def poisoned(value: Any, payload: str) -> Any:
    """Every text of the results with the payload after it, names of entries left as they are."""
    if isinstance(value, str) and value not in ("ok", "failed", "order", "work", "picture", "deterministic", "weak"):
        return value + payload
    if isinstance(value, list):
        return [poisoned(v, payload) for v in value]
    return {k: poisoned(v, payload) for k, v in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_becomes_an_element(content: dict[str, Any], payload: str) -> None:
    def form(page: Page) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(attributes)) for tag, attributes in page.elements]

    bad = Page(report.page(poisoned(content, payload)))
    assert form(bad) == form(Page(report.page(content)))
    assert json.loads(bad.scripts["data"])["orders"][0]["solver"].endswith(payload)


def test_escaping_is_what_keeps_them_out(content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: nothing is escaped."""
    monkeypatch.setattr(report.html, "escape", str)
    with pytest.raises(AssertionError):
        test_no_text_becomes_an_element(content, PAYLOADS[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"complete": False}, "interrupted"),
        ({"reused": 7}, "7 of its measurements were re-used"),
    ],
)
def test_what_a_reader_must_know_is_said(content: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    assert words not in report.page(content).partition("<main>")[0]
    assert words in report.page({**content, **changes}).partition("<main>")[0]


def test_solver_that_fell_short_is_named_on_top(content: dict[str, Any]) -> None:
    content["summary"][0]["verdict"] = "SHORT"
    top = report.page(content).partition("<main>")[0]
    assert f"1 fall short or failed: {content['summary'][0]['solver']}" in top
    assert "Every measured order" not in top


def test_damaged_results_make_no_page(folder: Path, tmp_path: Path) -> None:
    raw = (folder / results.FILE).read_text()
    (tmp_path / results.FILE).write_text(raw.replace('"declared": 1', '"declared": 2', 1))
    with pytest.raises(OptionError, match="damaged or edited"):
        report.write_report(tmp_path)
    assert not (tmp_path / report.FILE_NAME).exists()


def test_committed_results_make_a_page(root: Path) -> None:
    folders = [path.parent for path in (root / "benchmarks" / "results").glob("*/*/results.json")]
    assert folders
    for folder in folders:
        assert f"<h1>sdekit: {folder.name}</h1>" in report.page(results.read_results(folder))


def test_strips_are_the_images(tmp_path: Path) -> None:
    data = strips.png([[-1, 0, 1, 2, -2, 0.5], [1, 1, 1, 1, 1, 1]], 2, 3, -1.0, 1.0)
    (tmp_path / "strip.png").write_bytes(data)
    pixels = image.imread(tmp_path / "strip.png")  # (height, width, grey and alpha)
    assert pixels.shape[:2] == (2, 7)
    first = [[0, 0.5, 1], [1, 0, 0.75]]
    np.testing.assert_allclose(pixels[:, :3, 0], first, atol=0.5 / 255)
    np.testing.assert_allclose(pixels[:, 4:, 0], 1)
    assert (pixels[:, 3, -1] == 0).all()
    assert (pixels[:, [0, 1, 2, 4, 5, 6], -1] == 1).all()


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for word in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-dev-shm-usage"),
        *("disable-background-networking", "disable-component-update", "disable-sync", "window-size=1400,1000"),
        "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
    ):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, folder: Path) -> Any:
    return shows(browser, folder / report.FILE_NAME)


def shows(browser: Any, path: Path) -> Any:
    """The browser with this page, its charts drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    WebDriverWait(browser, 60).until(lambda d: d.execute_script("return document.body.dataset.charts") == "ready")
    return browser


def complaints(driver: Any) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser")]


def requests(driver: Any) -> list[str]:
    """What was asked for besides the page itself and what it carries."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert len([u for u in urls if u.startswith("file:")]) == 1
    return [u for u in urls if not u.startswith(("file:", "data:"))]


def shown(driver: Any) -> list[tuple[str, str]]:
    rows = "[...document.querySelectorAll('#order-table tr[data-solver]')]"
    return [tuple(r) for r in driver.execute_script(f"return {rows}.map(r => [r.dataset.solver, r.dataset.kind])")]


def choose(driver: Any, form: str, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(driver.find_element("css selector", f"#{form} [name={name}]")).select_by_value(value)


@pytest.mark.browser
@pytest.mark.slow
def test_page_works_and_asks_for_nothing(opened: Any, content: dict[str, Any]) -> None:
    orders = {(r["solver"], r["kind"]) for r in content["results"] if r["what"] == "order"}
    assert set(shown(opened)) == orders
    assert opened.execute_script("return document.querySelectorAll('#chart .scatterlayer .trace').length") >= 2
    size = opened.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert size
    assert complaints(opened) == []
    assert requests(opened) == []
    assert opened.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.browser
@pytest.mark.slow
def test_page_can_make_no_request(opened: Any) -> None:
    """The mutant: a script that asks for something. The policy forbids it, and the console says so."""
    opened.execute_script("const i = new Image(); i.src = 'http://localhost:9/x.png'; document.body.append(i)")
    assert any("Content Security Policy" in line for line in complaints(opened))


@pytest.mark.browser
@pytest.mark.slow
def test_filters_leave_what_they_name(opened: Any, content: dict[str, Any]) -> None:
    orders = [r for r in content["results"] if r["what"] == "order"]
    choose(opened, "order-filters", "kind", "weak")
    assert set(shown(opened)) == {(r["solver"], r["kind"]) for r in orders if r["kind"] == "weak"}
    opened.find_element("css selector", "#order-filters button").click()
    choose(opened, "order-filters", "process", "vp")
    choose(opened, "order-filters", "family", "Runge-Kutta")
    wanted = [r for r in orders if r["process"] == "vp" and r["family"] == "Runge-Kutta"]
    assert set(shown(opened)) == {(r["solver"], r["kind"]) for r in wanted}
    # The least order is now that of this process.
    cell = opened.find_element("css selector", f"tr[data-solver='{wanted[0]['solver']}'] td.number:nth-of-type(4)")
    assert cell.text == f"{wanted[0]['measured']:.2f}"
    opened.find_element("css selector", "#order-filters [name=solver]").send_keys("nothing is called so")
    assert shown(opened) == []
    assert "0 rows" in opened.find_element("id", "order-status").text
    assert complaints(opened) == []


@pytest.mark.browser
@pytest.mark.slow
def test_keyboard_reaches_a_point_and_its_command(opened: Any, content: dict[str, Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    button = opened.find_element("css selector", "tr[data-solver='ddim'] .open")
    button.send_keys(Keys.ENTER)
    assert opened.switch_to.active_element == button
    assert button.get_attribute("aria-expanded") == "true"
    opened.find_element("css selector", ".detail .ask").send_keys(Keys.SPACE)
    text = opened.find_element("css selector", ".command code").text
    first = next(r for r in content["results"] if r["what"] == "order" and r["solver"] == "ddim")
    place = f"{first['target']}, {first['process']}, {first['grid']}"
    assert f"--only ddim --on '{place}'" in text
    assert text.startswith("sdekit bench run ")
    labels = "return [...document.querySelectorAll('form input, form select')].every(e => e.labels.length === 1)"
    assert opened.execute_script(labels)


@pytest.mark.browser
@pytest.mark.slow
def test_curves_are_shown_and_hidden(opened: Any) -> None:
    visible = "return document.getElementById('chart').data.filter(t => t.visible !== false).length"
    choose(opened, "curve-filters", "show", "all")
    everything = opened.execute_script(visible)
    assert everything == len(opened.find_elements("css selector", "#curve-table tbody tr"))
    choose(opened, "curve-filters", "show", "none")
    assert opened.execute_script(visible) == 0
    opened.find_element("css selector", "#curve-table tbody input").click()
    assert (
        opened.execute_script("return document.getElementById('chart').data.filter(t => t.visible && t.name).length")
        == 1
    )
    choose(opened, "curve-filters", "kind", "weak")
    assert opened.find_elements("css selector", "#curve-table tbody tr")
    assert complaints(opened) == []


@pytest.mark.browser
@pytest.mark.slow
def test_one_curve_at_a_time_shows_its_band(opened: Any) -> None:
    filled = "return document.getElementById('chart').data.filter(t => t.fill === 'toself')"
    about = "return document.getElementById('work-about').textContent"
    choose(opened, "curve-filters", "kind", "deterministic")
    assert opened.execute_script(filled) == []
    row = opened.find_element("css selector", "#curve-table tr[data-solver='rk4']")
    row.find_element("css selector", "input").send_keys("")  # brings the focus
    (band,) = opened.execute_script(filled)
    curve = opened.execute_script("return data.curves.find(c => c.solvers[0] === 'rk4' && c.kind === 'deterministic')")
    assert band["y"] == [*curve["high"], *reversed(curve["low"])]
    assert "95 %" in opened.execute_script(about)
    title = row.find_elements("css selector", "td.number[title]")[0].get_attribute("title")
    assert re.fullmatch(r"95 %: \S+e\S+ to \S+e\S+", title)
    choose(opened, "curve-filters", "kind", "weak")
    assert opened.execute_script(filled) == []
    assert "no band" in opened.execute_script(about)
    assert complaints(opened) == []


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 820, 1400])
def test_page_fits_its_window(opened: Any, width: int, scheme: str) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    opened.find_element("css selector", "tr[data-solver='ddim'] .open").click()
    assert opened.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
    colours = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    text, page = (brightness(c) for c in opened.execute_script(colours))
    assert abs(text - page) > 150
    assert (page > text) == (scheme == "light")


def brightness(colour: str) -> float:
    return float(np.mean([float(v) for v in re.findall(r"[\d.]+", colour)[:3]]))


@pytest.mark.browser
@pytest.mark.slow
def test_errors_of_paths_are_chosen_like_others(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(STRONG)
    with open(os.devnull, "w") as nowhere:
        ran = command.run_suite(
            str(tmp_path / "mine.toml"),
            out=tmp_path / "out",
            workers=1,
            only="sra*",
            console=Console(file=nowhere),
        )
    assert ran == 0
    page = shows(browser, tmp_path / "out" / report.FILE_NAME)
    assert shown(page) == [("sra1", "strong")]
    choose(page, "order-filters", "kind", "strong")
    assert shown(page) == [("sra1", "strong")]
    choose(page, "curve-filters", "kind", "strong")
    choose(page, "curve-filters", "show", "all")
    rows = page.find_elements("css selector", "#curve-table tbody tr")
    assert {row.get_attribute("data-solver") for row in rows} == {"sra1", "sra3"}
    rows[0].find_element("css selector", "input").send_keys("")  # brings the focus
    filled = "return document.getElementById('chart').data.filter(t => t.fill === 'toself')"
    (band,) = page.execute_script(filled)
    name = rows[0].get_attribute("data-solver")
    curve = page.execute_script(f"return data.curves.find(c => c.solvers[0] === '{name}')")
    known = [i for i, low in enumerate(curve["low"]) if low > 0]
    assert band["y"][: len(known)] == [curve["high"][i] for i in known]
    about = page.find_element("id", "work-about").text
    assert "same Brownian path" in about and "over paths" in about
    assert page.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
    assert complaints(page) == []
    assert requests(page) == []
