"""The HTML page: what it holds, what it never does, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import reporting

from rcompress.artifacts.records import Record
from rcompress.report.build import build_report
from rcompress.report.page import page
from rcompress.report.plots import plots_of

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_BROWSER = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}$title</style>"


def _page(records: list[Record], title: str = "A report") -> str:
    report = build_report(records, title=title)
    return page(report, *plots_of(report.frame.to_dicts()))


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
    assert "rcompress train --arch resnet20 --epochs 3 --nesterov" in elements.texts
    assert "rcompress prune a.pth --ratio 0.5" in elements.texts
    assert "Test CPU, 2 cores, AVX2, Linux x86_64" in " ".join(elements.texts)
    assert any("batch" in text for text in elements.texts)


def test_nothing_is_fetched_and_nothing_but_its_own_scripts_may_run(family_page: str) -> None:
    elements = _Elements(family_page)
    assert not [attrs for _, attrs in elements.found if {"src", "href", "style"} & set(attrs)]
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


def _browsed(text: str, folder: Path) -> tuple[str, str]:
    """The page's elements after its scripts have run, and what the browser complained of."""
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --dump-dom --window-size=390,844 "
        "--virtual-time-budget=8000"
    )
    assert BROWSER is not None
    command = [BROWSER, *flags.split(), f"--user-data-dir={folder / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@NEEDS_BROWSER
def test_a_browser_draws_every_plot_under_the_policy(family_page: str, tmp_path: Path) -> None:
    shown, complaints = _browsed(family_page, tmp_path)
    assert complaints == ""
    assert len(re.findall(r"<svg[^>]*class=\"marks\"", shown)) == 4
    assert shown.count('<tr class="history" hidden="">') == 4


@NEEDS_BROWSER
def test_a_browser_runs_nothing_from_records(tmp_path: Path) -> None:
    shown, complaints = _browsed(_page(_hostile(), HOSTILE), tmp_path)
    assert complaints == ""
    elements = _Elements(shown)
    assert "img" not in [tag for tag, _ in elements.found]
    assert [tag for tag, _ in elements.found].count("script") == 3
    assert "<h1>&lt;script&gt;alert(1)" in shown


@NEEDS_BROWSER
def test_sorting_filtering_and_unfolding(family_page: str, tmp_path: Path) -> None:
    probe = """<script>
    const names = () => [...document.querySelectorAll("tbody.row:not([hidden])")]
        .map((row) => row.rows[0].cells[0].textContent + "/" + row.rows[0].cells[3].textContent).join(" ");
    const header = [...document.querySelectorAll("th")].find((th) => th.textContent.startsWith("latency"));
    const said = [names()];
    header.querySelector("button").click(); said.push(names());
    header.querySelector("button").click(); said.push(names());
    const filter = document.getElementById("filter");
    filter.value = "onnxruntime 64"; filter.dispatchEvent(new Event("input")); said.push(names());
    document.querySelector("td.name button").click();
    said.push(document.querySelectorAll("tr.history:not([hidden])").length);
    document.documentElement.dataset.said = said.join("|");
    </script></body>"""
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", family_page)
    shown, _ = _browsed(open_page.replace("</body>", probe), tmp_path)
    [said] = re.findall(r'data-said="([^"]*)"', shown)
    a1, a64, b1, b64 = "a.pthbaseline/1", "a.pthbaseline/64", "b.onnx/1", "b.onnx/64"
    assert said.split("|") == [
        f"{a1} {a64} {b1} {b64}",
        f"{b1} {a1} {b64} {a64}",
        f"{a64} {b64} {a1} {b1}",
        b64,
        "1",
    ]
