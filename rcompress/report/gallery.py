"""All plots of a report, in the order in which they are shown."""

from __future__ import annotations

from typing import NamedTuple

from rcompress.report.build import Report
from rcompress.report.confusion import confusion_plots
from rcompress.report.drops import drop_plots
from rcompress.report.embeddings import feature_plots
from rcompress.report.layer_dots import layer_plots
from rcompress.report.plots import Plot, plots_of
from rcompress.report.removal import removal_plots
from rcompress.report.training_cost import cost_plots
from rcompress.report.training_logs import training_plots


class Gallery(NamedTuple):
    """Plots, and a sentence for each of the main ones that the records do not allow."""

    plots: list[Plot]
    missing: list[str]


def gallery(report: Report) -> Gallery:
    """Every plot that the report allows."""
    plots, missing = plots_of(report.frame.to_dicts())
    matrices, faults = confusion_plots(report)
    features, more_faults = feature_plots(report)
    more = [
        *removal_plots(report),
        *cost_plots(report),
        *drop_plots(report),
        *layer_plots(report),
        *training_plots(report.logs),
        *matrices,
        *features,
    ]
    return Gallery([*plots, *more], [*missing, *faults, *more_faults])
