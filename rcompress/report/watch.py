"""The page of records that still arrive, served to browsers on this machine."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from typing import Any, TypeVar

from rcompress.artifacts.records import Record, find_record_files, read_records
from rcompress.errors import RcompressError
from rcompress.report.build import TITLE, build_report
from rcompress.report.frame import frame_from_records
from rcompress.report.gallery import gallery
from rcompress.report.page import page, waiting_page
from rcompress.report.published import read_published
from rcompress.report.training_logs import find_logs, read_log, run_names

T = TypeVar("T")
HOST, HTTP_PORT = "127.0.0.1", 80
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Watched:
    """What a page is made of, read again whenever something changed.

    Attributes:
        sources: record files, and folders that hold some; those that are not there yet are waited for.
        against: tables of published figures.
        baseline: as in `build_report`.
        title: the page's heading.
        score: as in `build_report`.
    """

    sources: Sequence[Path]
    against: Sequence[Path] = ()
    baseline: str | None = None
    title: str = TITLE
    score: bool = False

    def version(self) -> str:
        """Changes when a file appears, changes or goes."""
        files = [*find_record_files(self.sources)[0], *find_logs(self.sources)]
        said = "\n".join(_stamp(path) for path in [*files, *self.against])
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def page(self, version: str) -> str:
        """The page; a file that cannot be read is named in it, and where nothing can be shown it says why."""
        records, faults = _readable(find_record_files(self.sources)[0], _records)
        names = run_names(find_logs(self.sources))
        runs, more = _readable(names, lambda path: [(names[path], read_log(path))])
        faults += more
        try:
            published = read_published(self.against) if self.against else None
            report = build_report(records, self.baseline, self.title, published, dict(runs), self.score)
        except RcompressError as error:
            return waiting_page(self.title, [str(error), *faults], version)
        report = replace(report, notes=[*report.notes, *(f"left out: {fault}" for fault in faults)])
        return page(report, *gallery(report), version)


class ReportServer(ThreadingHTTPServer):
    """Serves ``/`` (the page) and ``/version`` on 127.0.0.1 until it is shut down; port 0 takes a free one.

    Raises:
        RcompressError: the port is taken or may not be used.
    """

    daemon_threads = True

    def __init__(self, watched: Watched, port: int = 0) -> None:
        self.watched = watched
        self._shown = ("", b"")
        self._lock = threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            remedy = "choose another, or leave --port out for a free one"
            raise RcompressError(f"port {port}", f"cannot be used ({error.strerror})", remedy) from None

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.server_port}/"

    def page(self) -> bytes:
        """The current page, made anew only after a change."""
        with self._lock:
            version = self.watched.version()
            if version != self._shown[0]:
                self._shown = (version, self.watched.page(version).encode())
            return self._shown[1]

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """A browser that went away in the middle of an answer is no fault."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer
    server_version, sys_version = "rcompress", ""

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self._names():  # another site's name that leads here
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif self.path == "/":
            self._answer("text/html; charset=utf-8", self.server.page())
        elif self.path == "/version":
            self._answer("text/plain; charset=utf-8", self.server.watched.version().encode())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _names(self) -> tuple[str, ...]:
        """What a browser may call this server; at HTTP's own port it leaves the number out."""
        names, port = (HOST, "localhost"), self.server.server_port
        return (*(f"{name}:{port}" for name in names), *(names if port == HTTP_PORT else ()))

    def _answer(self, kind: str, content: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not worth a line."""


def _readable(files: Iterable[Path], read: Callable[[Path], list[T]]) -> tuple[list[T], list[str]]:
    """What the sound files hold, and what is wrong with the others."""
    found: list[T] = []
    faults: list[str] = []
    for path in files:
        try:
            found += read(path)
        except RcompressError as error:
            faults.append(f"{error.subject}: {error.fault}")
        except OSError as error:  # it went between being found and being read
            faults.append(f"{path}: {error.strerror}")
    return found, faults


def _records(path: Path) -> list[Record]:
    """A file's records, if a report can be made of them."""
    found = read_records(path)
    if found:
        frame_from_records(found)
    return found


def _stamp(path: Path) -> str:
    try:
        state = path.stat()
    except OSError:
        return f"{path} -"
    return f"{path} {state.st_mtime_ns} {state.st_size} {state.st_ino}"
