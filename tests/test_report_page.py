"""The HTML page: what it holds, what it never does, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import reporting
from browser import Browser, browsers

from rcompress.artifacts.records import Record
from rcompress.report.build import build_report
from rcompress.report.gallery import gallery
from rcompress.report.page import page
from rcompress.report.published import read_published
from rcompress.report.training_logs import find_logs, read_logs

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}$title</style>"


def _page(records: list[Record], title: str = "A report") -> str:
    report = build_report(records, title=title)
    return page(report, *gallery(report))


class _Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def family_page() -> str:
    return _page(reporting.family())


def test_rows_history_and_conditions_are_there_without_scripts(family_page: str) -> None:
    elements = _Elements(family_page)
    assert sum(tag == "tbody" for tag, _ in elements.found) == 4
    assert "rcompress train --arch resnet20 --dataset digits --epochs 3" in elements.texts
    assert "rcompress prune a.pth --ratio 0.5" in elements.texts
    assert "Test CPU, 2 cores, AVX2, Linux x86_64" in " ".join(elements.texts)
    assert any("batch" in text for text in elements.texts)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 10**400], ids=("nan", "inf", "huge"))
def test_a_history_s_figure_that_is_none_is_left_out(odd: float) -> None:
    step = {**reporting.TRAIN, "metrics": {"loss": odd, "top1_percent": 91.0}}
    elements = _Elements(_page([reporting.evaluated("a.pth", 90.0, lineage=[step])]))
    assert "2026-01-02 03:04 · top1_percent 91.00" in elements.texts


def test_one_backend_is_the_baseline() -> None:
    text = _page([reporting.benched("a.onnx", 1.0, backend=name) for name in ("onnxruntime", "openvino")])
    tagged = [row for row in text.split("<tbody")[1:] if '<span class="tag">baseline</span>' in row]
    assert len(tagged) == 1
    assert "onnxruntime" in tagged[0]


def test_nothing_is_fetched_and_nothing_but_its_own_scripts_may_run(family_page: str) -> None:
    elements = _Elements(family_page)
    assert not [attrs for _, attrs in elements.found if {"src", "style"} & set(attrs)]
    assert [attrs["href"] for _, attrs in elements.found if "href" in attrs] == ["data:,"]
    assert not [name for _, attrs in elements.found for name in attrs if name.startswith("on")]
    [policy] = [a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag, allowed in (("script", "script-src"), ("style", "style-src")):
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", family_page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies]
        [directive] = [part for part in policy.split("; ") if part.startswith(allowed)]
        assert directive.split()[1:] == [f"'sha256-{value}'" for value in hashes]


def test_the_plots_library_is_there_once_or_not_at_all(family_page: str) -> None:
    assert family_page.count("window.vegaEmbed=") + family_page.count("window.vegaEmbed =") == 1
    assert len(_page([reporting.evaluated("a.pth", 90.0)])) < 40_000


def _published_page(folder: Path) -> str:
    table = folder / "table.csv"
    table.write_text(
        "published_id,method,artifact,top1_percent,needs,command\n"
        "s/same,As published,a.pth,92,,make same\ns/missing,<b>FP16</b>,c.plan,93,a GPU,make missing\n"
    )
    report = build_report(reporting.family(), published=read_published([table]))
    return page(report, *gallery(report))


def test_published_rows_stand_there_without_scripts(tmp_path: Path, family_page: str) -> None:
    text = _published_page(tmp_path)
    elements = _Elements(text)
    assert sum(tag == "tbody" for tag, _ in elements.found) == 4 + 3
    assert {"make same", "make missing", "<b>FP16</b>", "not measured; needed: a GPU"} <= set(elements.texts)
    assert "Beside published figures" not in family_page


def test_missing_plots_are_explained() -> None:
    assert "the records hold no latency p50 (ms)" in _page([reporting.evaluated("a.pth", 90.0)])


def _hostile() -> list[Record]:
    step = {"command": HOSTILE, "options": {HOSTILE: HOSTILE}, "notes": [HOSTILE], "created": HOSTILE}
    more = {"lineage": [step], "notes": [HOSTILE], "sha256": HOSTILE, "cpu": HOSTILE}
    return [
        reporting.evaluated(HOSTILE, 90.0, HOSTILE, split=HOSTILE, **more),
        reporting.benched(HOSTILE, 1.0, backend=HOSTILE, **more),
    ]


def test_what_records_say_stays_text() -> None:
    elements = _Elements(_page(_hostile(), HOSTILE))
    tags = [tag for tag, _ in elements.found]
    assert "img" not in tags
    assert tags.count("script") == 3
    assert not [name for _, attrs in elements.found for name in attrs if name.startswith("on")]
    assert sum(HOSTILE in text for text in elements.texts) >= 5


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from browsers()


@pytest.fixture(scope="module")
def family_file(family_page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "family.html"
    path.write_text(family_page, encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_a_browser_draws_every_plot_and_asks_for_nothing(
    browser: Browser, family_file: Path, device: str, scheme: str
) -> None:
    browser.open(family_file, device, scheme)
    marks = browser.js(
        "return [...document.querySelectorAll('.plot')].map((plot) => "
        "plot.querySelectorAll('.mark-symbol path, .mark-rect path, .mark-line path').length)"
    )
    assert len(marks) == 5
    assert all(marks)
    assert browser.js("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.complaints() == []
    assert browser.requests() == [family_file.as_uri()]


@pytest.fixture(scope="module")
def everything_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("everything")
    reporting.log(folder, "a", 12, train_top1_percent=50.0)
    report = build_report(reporting.everything(), "a.pth", logs=read_logs(find_logs([folder])))
    path = folder / "everything.html"
    path.write_text(page(report, *gallery(report)), encoding="utf-8")
    return path


MARKS = """return Object.fromEntries([...document.querySelectorAll('.plot')].map((plot) => [plot.id,
    plot.querySelectorAll('.mark-symbol path, .mark-rect path, .mark-line path').length]))"""
CROWDED = """const boxes = (node, what) => [...node.querySelectorAll(what)]
    .filter((text) => text.getAttribute("opacity") !== "0").map((text) => text.getBoundingClientRect())
    .filter((box) => box.width > 0);
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const crowded = [];
  for (const plot of document.querySelectorAll('.plot')) {
    const frame = plot.getBoundingClientRect();
    if (boxes(plot, 'text').some((box) => box.left < frame.left - 1 || box.right > frame.right + 1))
      crowded.push(plot.id + ' is cut');
    for (const axis of plot.querySelectorAll('.role-axis')) {
      const labels = boxes(axis, '.role-axis-label text');
      if (labels.some((one, i) => labels.slice(i + 1).some((other) => meet(one, other))))
        crowded.push(plot.id + ' has labels over each other');
    }
  }
  return crowded"""


@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_every_plot_can_be_read(browser: Browser, everything_file: Path, device: str) -> None:
    browser.open(everything_file, device)
    marks = browser.js(MARKS)
    assert len(marks) >= 14
    assert all(marks.values()), marks
    assert browser.js(CROWDED) == []
    assert browser.js("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.complaints() == []
    assert browser.requests() == [everything_file.as_uri()]


def test_a_browser_runs_nothing_from_records(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(_page(_hostile(), HOSTILE), encoding="utf-8")
    browser.open(path)
    assert browser.complaints() == []
    assert browser.js("return document.querySelectorAll('img').length") == 0
    assert browser.js("return document.scripts.length") == 3
    assert browser.js("return document.querySelector('h1').textContent") == HOSTILE


NAMES = """return [...arguments[0].querySelectorAll("tbody.row:not([hidden])")]
    .map((row) => row.rows[0].cells[0].querySelector("button").textContent
                  + "/" + row.rows[0].cells[arguments[1]].textContent)"""
CLICK = """[...arguments[0].querySelectorAll("th")]
    .find((th) => th.textContent.startsWith(arguments[1])).querySelector("button").click()"""
FILTER = """const field = arguments[0].querySelector("input"); field.value = arguments[1];
    field.dispatchEvent(new Event("input")); return arguments[0].querySelector("output").value"""


def test_sorting_filtering_and_unfolding(browser: Browser, family_file: Path) -> None:
    browser.open(family_file)
    table = browser.js("return document.querySelector('[data-table=Results]')")
    a1, a64, b1, b64 = "a.pth/1", "a.pth/64", "b.onnx/1", "b.onnx/64"
    assert browser.js(NAMES, table, 3) == [a1, a64, b1, b64]
    browser.js(CLICK, table, "latency")
    assert browser.js(NAMES, table, 3) == [b1, a1, b64, a64]
    browser.js(CLICK, table, "latency")
    assert browser.js(NAMES, table, 3) == [a64, b64, a1, b1]
    assert browser.js(FILTER, table, "onnxruntime 64") == "1 of 4 rows"
    assert browser.js(NAMES, table, 3) == [b64]
    unfolded = "return arguments[0].querySelectorAll('tr.history:not([hidden])').length"
    assert browser.js(unfolded, table) == 0
    browser.js("arguments[0].querySelector('td.name button').click()", table)
    assert browser.js(unfolded, table) == 1


def test_hovering_tells_how_an_artifact_was_made(browser: Browser, family_file: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser.open(family_file)
    titles = browser.js(
        "return [...document.querySelectorAll('td.name button')].map((button) => button.title)"
    )
    assert titles[-1].endswith("→ prune a.pth --ratio 0.5")
    dot = browser.js("return document.querySelectorAll('#plot-accuracy-size .mark-symbol path')[0]")
    ActionChains(browser.driver).scroll_to_element(dot).move_to_element(dot).perform()
    said = browser.js("return document.getElementById('vg-tooltip-element').innerText")
    assert "made by" in said
    assert "train" in said


def test_the_published_table_sorts_filters_and_unfolds_by_itself(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "published.html"
    path.write_text(_published_page(tmp_path), encoding="utf-8")
    browser.open(path)
    table = browser.js("return document.querySelector('[data-table=Published]')")
    assert browser.js(NAMES, table, 1) == ["same/a.pth", "same/a.pth", "missing/–"]
    browser.js(CLICK, table, "top-1 published")
    browser.js(CLICK, table, "top-1 published")
    assert browser.js(NAMES, table, 1)[0] == "missing/–"
    assert browser.js(FILTER, table, "needed gpu") == "1 of 3 rows"
    browser.js("arguments[0].querySelector('tbody:not([hidden]) td.name button').click()", table)
    assert "make missing" in browser.js("return arguments[0].innerText", table)
    assert browser.js("return document.querySelectorAll('[data-table=Results] tbody[hidden]').length") == 0
    assert browser.complaints() == []
