"""One HTML page that needs nothing but itself: no network, no server, a strict content security policy."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

import vl_convert

from rcompress.report.build import Report
from rcompress.report.charts import backend_colours
from rcompress.report.frame import LARGEST, Row
from rcompress.report.lineage import Step, command_text
from rcompress.report.plots import Plot
from rcompress.report.published_table import COMPARISON, NOT_MEASURED, published_table
from rcompress.report.tables import Column, Table, table_of, without_column
from rcompress.report.text import printable, significant

SIGNED = ("top1_difference_points", "difference_top1_points", "difference_top5_points")


def page(report: Report, plots: Sequence[Plot], missing: Sequence[str], version: str | None = None) -> str:
    """The page as text.

    Everything that comes from records is escaped, and the policy in its head lets no script or style run but
    the page's own (by their hashes) and no request leave. Without scripts the table and all histories show.

    A page with a ``version`` is served: it asks its server, and nobody else, for the current one and loads
    itself again when that differs.
    """
    table, published = table_of(report), published_table(report)
    scripts = [_asset("page.js")]
    if plots:
        bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        scripts = [_without_carriage_returns(bundle), *scripts]
    return Template(_asset("page.html")).substitute(
        **_frame(report.title, scripts, version),
        caption=escape(table.caption),
        published="" if published is None else _published(report, published),
        machines=_items(f"Measured on {machine}" for machine in report.machines),
        results=_filtered("Results", table, [_row(report, table, index) for index in range(len(table.rows))]),
        footnotes=_items(table.footnotes),
        legend=_backends(table.rows) if plots else "",
        figures="\n".join(_figure(plot) for plot in plots),
        missing="".join(f'<p class="missing">{escape(sentence)}</p>' for sentence in missing),
        versions=escape(_versions(report)),
        specs=_json({plot.name: plot.spec for plot in plots}),
    )


def waiting_page(title: str, faults: Iterable[str], version: str) -> str:
    """A served page that has nothing to show yet, and why."""
    return Template(_asset("waiting.html")).substitute(**_frame(title, [], version), faults=_items(faults))


def _frame(title: str, scripts: Sequence[str], version: str | None) -> dict[str, str]:
    """What both pages have around their content."""
    style = _asset("page.css")
    live = version is not None
    scripts = [*scripts, _asset("live.js")] if live else scripts
    return {
        "title": escape(title),
        "style": style,
        "policy": _policy(scripts, style) + ("; connect-src 'self'" if live else ""),
        "version": f'<meta name="version" content="{escape(version)}">' if version is not None else "",
        "live": '<p class="lead"><output id="live"></output></p>' if live else "",
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }


def _asset(name: str) -> str:
    return _without_carriage_returns(files("rcompress.report").joinpath("assets", name).read_text("utf-8"))


def _without_carriage_returns(text: str) -> str:
    """A browser hashes what it parsed, and parsing turns them into line feeds."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _policy(scripts: Iterable[str], style: str) -> str:
    allowed = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(content: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(content).replace("<", "\\u003c")


def _items(texts: Iterable[str]) -> str:
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def _header(column: Column) -> str:
    name, bracket, unit = column.header.partition(" (")
    small = f"<small>{escape(bracket.strip() + unit)}</small>" if unit else ""
    kind = ' class="text"' if column.text else ""
    return f'<th scope="col"{kind}><button type="button">{escape(name)}{small}</button></th>'


def _filtered(label: str, table: Table, rows: Sequence[str]) -> str:
    """A table with the field that filters it; the script finds both by their section."""
    head = "".join(_header(column) for column in table.columns)
    return Template(_asset("table.html")).substitute(label=label, head=head, rows="\n".join(rows))


def _row(report: Report, table: Table, index: int) -> str:
    row = table.rows[index]
    is_baseline = (row["artifact"], row["backend"]) == (report.baseline, report.baseline_backend)
    tag = '<span class="tag">baseline</span>' if is_baseline else ""
    steps = _history(row["sha256"], report.histories.get(row["sha256"], []))
    return _unfolding(table, index, tag, steps)


def _published(report: Report, table: Table) -> str:
    """The method stands under its row's name here, which leaves the width to the figures."""
    table = without_column(table, "method")
    rows = [_published_row(report, table, index) for index in range(len(table.rows))]
    return Template(_asset("published.html")).substitute(
        caption=escape(table.caption), table=_filtered("Published", table, rows)
    )


def _published_row(report: Report, table: Table, index: int) -> str:
    row = table.rows[index]
    command = f"<p><code>{escape(row['command'])}</code></p>"
    made = _history(row["sha256"], report.histories.get(row["sha256"], [])) if row["sha256"] else ""
    method = f'<small class="method">{escape(row["method"])}</small>'
    return _unfolding(table, index, method, f'<div class="steps">{command}</div>{made}')


def _unfolding(table: Table, index: int, tag: str, details: str) -> str:
    """A row, and below it what its first cell unfolds."""
    row, cells = table.rows[index], table.cells[index]
    shown = [_cell(column, row[column.key], cell) for column, cell in zip(table.columns, cells, strict=True)]
    title = f' title="{escape(row["lineage"])}"' if row["lineage"] else ""
    name = f'<button type="button" aria-expanded="false"{title}>{_breakable(cells[0])}</button>{tag}'
    first = f'<td class="text name" data-sort="{escape(cells[0])}">{name}</td>'
    return (
        f'<tbody class="row"><tr>{first}{"".join(shown[1:])}</tr>'
        f'<tr class="history"><td colspan="{len(cells)}">{details}</td></tr></tbody>'
    )


def _breakable(name: str) -> str:
    """A name that may go on in the next line after a slash."""
    return escape(name).replace("/", "/<wbr>")


def _cell(column: Column, value: float | str | None, text: str) -> str:
    """A cell; the spread behind a figure is set smaller, a gain or loss of accuracy in its colour."""
    figure, space, spread = text.partition(" ")
    shown = escape(text)
    if spread and not column.text and text != NOT_MEASURED:
        shown = f'{escape(figure)}{space}<small class="spread">{escape(spread)}</small>'
    kinds = ["text"] if column.text else []
    if column.key == COMPARISON:
        kinds.append("prose")
    if text == NOT_MEASURED:
        kinds.append("absent")
    if column.key in SIGNED and isinstance(value, float) and text.startswith(("-", "+")):
        kinds.append("gain" if value > 0 else "loss")
    sort = "" if value is None else escape(str(value))
    return f'<td class="{" ".join(kinds)}" data-sort="{sort}">{shown}</td>'


def _history(sha256: str, steps: Sequence[Step]) -> str:
    lines = "".join(f"<li>{_step(step)}</li>" for step in steps)
    told = f"<ol>{lines}</ol>" if steps else "<p>Its file tells no history.</p>"
    return f'<div class="steps">{told}<small>SHA-256 {escape(sha256)}</small></div>'


def _step(step: Step) -> str:
    command = escape(str(printable(f"rcompress {command_text(step)}")))
    metrics, notes = step.get("metrics"), step.get("notes")
    figures = [
        f"{name} {significant(value, 4)}"
        for name, value in (metrics.items() if isinstance(metrics, dict) else ())
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    ]
    details = [
        str(step.get("created") or "")[:16].replace("T", " "),
        *figures,
        *(notes if isinstance(notes, list) else ()),
    ]
    said = " · ".join(str(printable(detail)) for detail in details if detail)
    return f"<code>{command}</code>" + (f"<small>{escape(said)}</small>" if said else "")


def _backends(rows: Sequence[Row]) -> str:
    """One legend for all plots that tell backends apart."""
    drawn = [row for row in rows if row["top1_percent"] or row["latency_p50_ms"]]
    return _legend("Backends", backend_colours(drawn))


def _legend(label: str, colours: Mapping[str, str]) -> str:
    """Colours as attributes, since the policy forbids styles in the text."""
    dot = '<svg viewBox="0 0 10 10" aria-hidden="true"><circle cx="5" cy="5" r="5" fill="{}"/></svg>'
    items = (f"<li>{dot.format(hue)}{escape(name)}</li>" for name, hue in colours.items())
    return f'<ul class="legend" aria-label="{label}">{"".join(items)}</ul>'


def _figure(plot: Plot) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in plot.subtitle)
    legend = _legend("Colours", plot.legend) if plot.legend else ""
    return (
        f"<figure><figcaption><h2>{escape(plot.title)}</h2>{lines}</figcaption>{legend}"
        f'<div class="plot" id="plot-{plot.name}"></div></figure>'
    )


def _versions(report: Report) -> str:
    return "Measured with " + ", ".join(
        f"{name} {' / '.join(known)}" for name, known in report.versions.items()
    )
