"""From a request to widths: the family that its scope names, and the search that its target asks for."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from rcompress.data import Dataset, balanced_indices
from rcompress.methods.calibration_data import CalibrationImages
from rcompress.methods.importance import Importance, comparable
from rcompress.progress import SILENT, Progress
from rcompress.search.adaptation import Adaptation
from rcompress.search.allocation import Cost, Widths
from rcompress.search.families import Adaptive, Family, Global, Local
from rcompress.search.latency import Conditions, Stopwatch
from rcompress.search.material import Material
from rcompress.search.targets import Fit, Target, fit_computed, fit_drop, fit_latency
from rcompress.training.loop import validate
from rcompress.training.recovery import reestimate_batchnorm
from rcompress.training.settings import Settings

CALIBRATION_IMAGES = 128
Scope = Literal["local", "global", "adaptive"]


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        target: of the network.
        scope: ``local``, ``global`` or ``adaptive``, see `families`.
        importance: by which the channels were scored.
        round_to: widths are multiples of it.
        conditions: of a latency.
    """

    target: Target
    scope: Scope
    importance: Importance
    round_to: int
    conditions: Conditions | None = None

    @property
    def decided_by_data(self) -> bool:
        """Whether images on which choices may be made decide the widths."""
        return self.scope == "adaptive" or self.target.quantity == "drop_points"

    def options(self) -> dict[str, Any]:
        """Primitives for the lineage."""
        return asdict(self)


def find_widths(
    material: Material,
    request: Request,
    settings: Settings,
    dataset: Dataset | None = None,
    adapted: Adaptation | None = None,
    progress: Progress = SILENT,
) -> Fit:
    """The widths that ``request`` asks for.

    Args:
        dataset: for ``drop_points``, and to calibrate INT8.
        adapted: for ``adaptive``: where the harms come from.

    Raises:
        RcompressError: the target is met already or cannot be met, or the backend cannot run here.
    """
    costs, target = material.costs(), request.target
    cost = costs.get(target.quantity, costs["macs"])
    family = family_of(material, request, cost, adapted)
    if target.quantity == "latency_ms":
        assert request.conditions is not None, "a latency needs conditions"
        calibration = _calibration(material, dataset, settings) if request.conditions.int8 else None
        stopwatch = Stopwatch(material.spec, request.conditions, calibration, progress)
        with closing(stopwatch):
            return _fit_latency(material, family, target, stopwatch, progress)
    if target.quantity == "drop_points":
        assert dataset is not None, "an accuracy needs data"
        return _fit_accuracy(material, family, target, dataset, settings, progress)
    of_file = target.quantity == "size_bytes" and target.relative
    whole = float(material.file_bytes) if of_file else cost(material.whole)
    return fit_computed(family, cost, whole, target)


def family_of(material: Material, request: Request, cost: Cost, adapted: Adaptation | None = None) -> Family:
    """The networks among which a target chooses; ``cost`` is what shares and budgets are of."""
    groups = material.groups
    if request.scope == "local":
        return Local(groups, request.round_to, cost)
    if request.scope == "global":
        return Global(groups, comparable(material.scores, request.importance), request.round_to, cost)
    assert adapted is not None, "adaptive needs harms"
    return Adaptive(cost, adapted.harms, adapted.measure)


def _calibration(material: Material, dataset: Dataset | None, settings: Settings) -> CalibrationImages:
    """Real images, though a latency hardly depends on the ranges."""
    assert dataset is not None, "INT8 needs data"
    train = dataset.split("train")
    chosen = balanced_indices(train.labels, min(CALIBRATION_IMAGES, len(train)), settings.seed)
    return CalibrationImages(dataset.name, train.subset(chosen), material.spec)


def _fit_latency(
    material: Material, family: Family, target: Target, stopwatch: Stopwatch, progress: Progress
) -> Fit:
    """See `fit_latency`; what is found is timed once more, in turns with the whole network."""

    def measure(widths: Widths) -> float:
        found = stopwatch.measure({"candidate": material.candidate(widths)})[0].p50_ms
        progress.note(f"network {stopwatch.builds}: {found:.4g} ms")
        return found

    fit = fit_latency(family, measure, target, measure(material.whole))
    before, after = stopwatch.measure({"whole": material.module, "cut": material.candidate(fit.widths)})
    return fit.with_figures(
        latency_p50_ms=after.p50_ms,
        latency_p50_ms_before=before.p50_ms,
        latency_speedup=after.metrics(1)["latency_speedup"],
    )


def _fit_accuracy(
    material: Material,
    family: Family,
    target: Target,
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
) -> Fit:
    """See `fit_drop`. BatchNorm statistics are re-estimated before each evaluation."""
    preprocessing = material.spec.preprocessing
    judges = dataset.split(material.spec.choice_split).on(settings.device)
    train = dataset.split("train").on(settings.device)

    def top1_percent(module: nn.Module) -> float:
        return validate(module, judges, preprocessing, settings).top1_percent

    def measure(widths: Widths) -> float:
        module = material.candidate(widths).to(settings.device)
        reestimate_batchnorm(module, train, preprocessing, settings)
        found = top1_percent(module)
        progress.note(f"{sum(widths.values())} channels: {found:.2f} %")
        return found

    return fit_drop(family, measure, target, top1_percent(material.candidate({}).to(settings.device)))
