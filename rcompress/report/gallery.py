"""All plots of a report, in the order in which they are shown."""

from __future__ import annotations

from rcompress.report.build import Report
from rcompress.report.plots import Plot, plots_of
from rcompress.report.removal import removal_plots


def gallery(report: Report) -> tuple[list[Plot], list[str]]:
    """Every plot that the report allows, and a sentence for each of the main ones that it does not."""
    plots, missing = plots_of(report.frame.to_dicts())
    return [*plots, *removal_plots(report)], missing
