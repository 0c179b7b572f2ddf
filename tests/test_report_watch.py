"""The served page: it follows the records, survives broken ones, and answers nobody but this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import reporting
from browser import Browser, browsers

from rcompress.errors import RcompressError
from rcompress.report.watch import ReportServer, Watched


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReportServer]:
    """Serves the records of ``tmp_path``, where there are none yet."""
    with ReportServer(Watched([tmp_path], title="Watched")) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _get(server: ReportServer, path: str = "", **headers: str) -> str:
    request = urllib.request.Request(server.address + path, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.read().decode())


def test_it_waits_follows_and_keeps_what_did_not_change(server: ReportServer, tmp_path: Path) -> None:
    assert "there is no record to show" in _get(server)
    first = _get(server, "version")
    reporting.write(tmp_path, [reporting.evaluated("a.pth", 91.0)], "a")
    second = _get(server, "version")
    assert second != first
    shown = _get(server)
    assert f'<meta name="version" content="{second}">' in shown
    assert "a.pth" in shown
    assert server.page() is server.page()
    reporting.write(tmp_path, [reporting.evaluated("a.pth", 92.0)], "a")
    assert _get(server, "version") != second
    assert "92.00" in _get(server)


BROKEN = {
    "half": '{"schema": "rcompress-result/1", "records": [{"kind": "eval", "art',
    "deep": '{"schema": "rcompress-result/1", "records": ' + "[" * 100_000,
    "words": '{"schema": "rcompress-result/1", "records": [{"kind": "eval", "artifact": "x", "sha256": "y", '
    '"metrics": {"top1_percent": "high"}}]}',
    "none": '{"schema": "rcompress-result/1", "records": []}',
    "bytes": b"\xff\xfe",
    "empty": "",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_record_is_named_and_left_out(
    server: ReportServer, tmp_path: Path, content: str | bytes
) -> None:
    path = tmp_path / "broken.result.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    reporting.write(tmp_path, [reporting.evaluated("sound.pth", 91.0)], "sound")
    shown = _get(server)
    assert "sound.pth" in shown
    assert ("left out: " in shown) == (content != BROKEN["none"])


def test_a_broken_table_or_baseline_is_said(tmp_path: Path) -> None:
    reporting.write(tmp_path, [reporting.evaluated("a.pth", 91.0)])
    table = tmp_path / "table.csv"
    table.write_text("published_id\n")
    assert "the column method is missing" in Watched([tmp_path], [table]).page("1")
    assert "is not among the artifacts" in Watched([tmp_path], baseline="b.pth").page("1")
    before = Watched([tmp_path], [table]).version()
    table.write_text("published_id,method,command\nx,X,make x\n")
    assert Watched([tmp_path], [table]).version() != before
    assert "make x" in Watched([tmp_path], [table]).page("1")


@pytest.mark.parametrize("path", ["table.csv", "../", "version/", "all.result.json"])
def test_nothing_else_is_served(server: ReportServer, tmp_path: Path, path: str) -> None:
    reporting.write(tmp_path, [reporting.evaluated("a.pth", 91.0)])
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        _get(server, path)
    caught.value.close()


def test_another_name_for_this_machine_gets_nothing(server: ReportServer) -> None:
    with pytest.raises(urllib.error.HTTPError, match="421") as caught:
        _get(server, Host=f"evil.example:{server.server_port}")
    caught.value.close()
    assert server.server_address[0] == "127.0.0.1"


def test_at_http_s_own_port_a_browser_names_none(
    server: ReportServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = server.address
    request = urllib.request.Request(address, headers={"Host": "localhost"})
    with pytest.raises(urllib.error.HTTPError, match="421") as caught:
        urllib.request.urlopen(request, timeout=20)
    caught.value.close()
    monkeypatch.setattr(server, "server_port", 80)
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200


def test_a_folder_that_goes_while_it_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    reporting.write(tmp_path, [reporting.evaluated("a.pth", 91.0)])
    opened = os.scandir

    def scandir(path: Any = ".") -> Any:
        if Path(path).name == "gone":
            raise FileNotFoundError(path)
        return opened(path)

    monkeypatch.setattr(os, "scandir", scandir)
    watched = Watched([tmp_path])
    assert "a.pth" in watched.page(watched.version())


def test_runs_of_one_name_are_both_drawn(tmp_path: Path) -> None:
    reporting.write(tmp_path, [reporting.evaluated("a.pth", 91.0)])
    for folder in ("seed0", "seed1"):
        (tmp_path / folder).mkdir()
        reporting.log(tmp_path / folder, "r20", 2)
    (tmp_path / "seed1" / "broken.log.jsonl").write_text("{")
    shown = Watched([tmp_path]).page("1")
    assert "seed0/r20" in shown
    assert "seed1/r20" in shown
    assert "broken.log.jsonl: is no log" in shown


POLLED = """
const state = { value: "" }, said = [];
let later = null;
globalThis.document = {
  querySelector: () => ({ content: "1" }), getElementById: () => state, querySelectorAll: () => [] };
globalThis.sessionStorage = { getItem: () => null };
globalThis.setTimeout = (poll) => { later = poll; };
const answers = [...process.argv[1]];
globalThis.fetch = async () => {
  if (answers.shift() === "x") throw new TypeError("failed");
  return { ok: true, text: async () => "1" };
};
(async () => {
  (0, eval)(require("fs").readFileSync(0, "utf8"));
  while (true) {
    await new Promise(setImmediate);
    said.push(state.value.split(":")[0]);
    if (!answers.length) break;
    await later();
  }
  console.log(JSON.stringify(said));
})();
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on the path")
@pytest.mark.parametrize(
    ("answers", "last"),
    [(".x.", "Live"), ("xxxx", ""), ("xxxxx", "No longer live"), ("xxxxxx.", "Live")],
)
def test_a_page_gives_up_after_several_failures_and_comes_back(answers: str, last: str) -> None:
    script = resources.files("rcompress.report").joinpath("assets", "live.js").read_text()
    done = subprocess.run(
        ["node", "-e", POLLED, answers], input=script, capture_output=True, text=True, timeout=60, check=True
    )
    said = json.loads(done.stdout)
    assert len(said) == len(answers)
    assert said[-1] == last


def test_a_taken_port_is_one_line(server: ReportServer, tmp_path: Path) -> None:
    with pytest.raises(RcompressError, match=f"port {server.server_port}: cannot be used"):
        ReportServer(Watched([tmp_path]), server.server_port)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from browsers()


def test_a_browser_refreshes_by_itself_and_keeps_its_view(
    server: ReportServer, browser: Browser, tmp_path: Path
) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.open(server.address)
    reporting.write(tmp_path, [reporting.evaluated("a.pth", 91.0), reporting.evaluated("b.onnx", 90.0)], "ab")
    rows = "return [...document.querySelectorAll('tbody.row:not([hidden]) td.name button')].map((c) => c.innerText)"
    WebDriverWait(browser.driver, 20).until(lambda _: len(browser.js(rows)) == 2)
    browser.js(
        "document.querySelector('th:last-child button').click();"
        "const field = document.querySelector('input'); field.value = 'pth';"
        "field.dispatchEvent(new Event('input'))"
    )
    (tmp_path / "half.result.json").write_text("{")
    reporting.write(tmp_path, [reporting.evaluated("c.pth", 80.0)], "c")
    WebDriverWait(browser.driver, 20).until(lambda _: len(browser.js(rows)) == 2)
    assert browser.js(rows) == ["c.pth", "a.pth"]
    assert browser.js("return document.querySelector('input').value") == "pth"
    assert browser.complaints() == []
    assert {address.split("/")[2] for address in browser.requests() if address.startswith("http")} == {
        f"127.0.0.1:{server.server_port}"
    }


def test_the_command_says_its_address_and_ends_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rcompress", "report", str(tmp_path / "later"), "--watch"]
    variables = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert b"later" in answer.read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert (out, err.splitlines()) == ("", [f"{tmp_path / 'later'}: not there yet; waiting for it"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--watch", "-o", "r.html"), "leave -o and --json out"),
        (("--watch", "--json"), "leave -o and --json out"),
        (("--port", "8000"), "is the port of --watch"),
        (("--watch", "--port", "70000"), "70000"),
    ],
)
def test_options_that_mean_nothing_together(rcompress, tmp_path: Path, arguments, said: str) -> None:
    done = rcompress("report", tmp_path, *arguments)
    assert done.code == 2
    assert said in done.err
