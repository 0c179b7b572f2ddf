"""Optuna's plots of a study: one PNG each (by Matplotlib), and one offline page with all of them (by Plotly)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rcompress.errors import RcompressError

if TYPE_CHECKING:
    from optuna import Study

CONTOUR_PARAMETERS = 3  # the most important ones: a contour is drawn for every two
PLOTS = {
    "history": "plot_optimization_history",
    "importance": "plot_param_importances",
    "parallel": "plot_parallel_coordinate",
    "contour": "plot_contour",
}
VALUE = "validation top-1 (%)"
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 16px sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }}</style>
<h1>{title}</h1>
{figures}
</html>
"""


def study_pictures(study: Study) -> tuple[dict[str, bytes], str, list[str]]:
    """Draw what the study's trials allow.

    Returns:
        PNG files by the names of `PLOTS`; a page that needs no network; a sentence for each plot that is missing.

    Raises:
        RcompressError: Matplotlib or Plotly is not installed.
    """
    pictures: dict[str, bytes] = {}
    figures: list[str] = []
    missing: list[str] = []
    shown, drawn = _backend("optuna.visualization"), _backend("optuna.visualization.matplotlib")
    wanted = _wanted(study)
    for name, function in PLOTS.items():
        if name not in wanted:
            missing.append(
                f"no {name} plot: it needs two finished trials that differ in value, and two ranges"
            )
            continue
        pictures[name] = _png(getattr(drawn, function), study, wanted[name])
        height = 1000 if name == "contour" else 450
        figures.append(_html(getattr(shown, function), study, wanted[name], height, first=not figures))
    return pictures, PAGE.format(title=_escaped(study.study_name), figures="\n".join(figures)), missing


def _wanted(study: Study) -> dict[str, dict[str, Any]]:
    """The plots that the trials allow, with their arguments."""
    target = {"target_name": VALUE}
    wanted: dict[str, dict[str, Any]] = {"history": dict(target)}
    importance = _importance(study)
    if importance:
        wanted["importance"] = dict(target)
        wanted["parallel"] = dict(target)
    if len(importance) > 1:
        wanted["contour"] = {**target, "params": list(importance)[:CONTOUR_PARAMETERS]}
    return wanted


def _importance(study: Study) -> Mapping[str, float]:
    """Of every parameter, highest first; none where the trials do not tell."""
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len({trial.values[0] for trial in finished if trial.values}) < 2:
        return {}
    with _quiet():
        return get_param_importances(study)


def _png(plot: Callable[..., Any], study: Study, arguments: Mapping[str, Any]) -> bytes:
    pyplot = import_module("matplotlib.pyplot")
    content = io.BytesIO()
    with _quiet():
        axes = plot(study, **arguments)
        figure = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
        figure.set_size_inches(10, 10 if hasattr(axes, "flat") else 5.5)
        figure.savefig(content, format="png", dpi=130, bbox_inches="tight")
    pyplot.close(figure)
    return content.getvalue()


def _html(
    plot: Callable[..., Any], study: Study, arguments: Mapping[str, Any], height: int, first: bool
) -> str:
    """A part of a page; the first brings Plotly's script for all of them."""
    with _quiet():
        figure = plot(study, **arguments).update_layout(height=height)
        text: str = figure.to_html(full_html=False, include_plotlyjs=first)
    return text


def _backend(name: str) -> Any:
    """One of Optuna's two drawing modules, checked; Matplotlib draws without a screen."""
    try:
        import_module("plotly")
        import_module("matplotlib").use("agg")
        return import_module(name)
    except ImportError as error:
        raise RcompressError(
            "tune", f"the package {error.name} is not installed", "pip install 'rcompress[tune]'"
        ) from None


def _quiet() -> warnings.catch_warnings[None]:
    """Optuna calls its Matplotlib plots experimental."""
    return warnings.catch_warnings(action="ignore")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
