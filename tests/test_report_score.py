"""The MicroNet score, by hand."""

from __future__ import annotations

import pytest
import reporting

from rcompress.report.build import build_report
from rcompress.report.plots import plots_of
from rcompress.report.tables import table_of

BINARY = {"nonzero_bits": 11_000_000, "bit_operations": 32 * 560_000_000}
INT8 = {"nonzero_bits": 8 * 5_600_000, "bit_operations": 8 * 280_000_000}


def records() -> list[reporting.Record]:
    made = [reporting.evaluated(name, 90.0) for name in ("binary.pth", "int8.onnx", "old.pth")]
    for record, figures in zip(made, (BINARY, INT8, {}), strict=True):
        record.metrics.update(figures)
    return made


def test_storage_and_operations_over_the_references() -> None:
    rows = {row["artifact"]: row for row in build_report(records(), score=True).frame.to_dicts()}
    assert rows["int8.onnx"]["micronet_score"] == pytest.approx(0.25 + 0.25)
    assert rows["binary.pth"]["micronet_score"] == pytest.approx(11 / 32 / 5.6 + 2.0)
    assert rows["old.pth"]["micronet_score"] is None


def test_it_is_shown_where_it_is_asked_for() -> None:
    asked, plain = build_report(records(), score=True), build_report(records())
    headers = [column.header for column in table_of(asked).columns]
    assert "MicroNet score" in headers
    assert "MicroNet score" not in [column.header for column in table_of(plain).columns]
    drawn = [{plot.name for plot in plots_of(report.frame.to_dicts())[0]} for report in (asked, plain)]
    assert drawn[0] - drawn[1] == {"accuracy-score"}


def test_records_without_the_figures_say_so() -> None:
    report = build_report([reporting.evaluated("old.pth", 90.0)], score=True)
    missing = plots_of(report.frame.to_dicts())[1]
    assert any("MicroNet score" in sentence and "rcompress eval" in sentence for sentence in missing)
