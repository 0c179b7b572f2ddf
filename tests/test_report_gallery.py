"""Plots beyond accuracy and speed: layers, data sets, training, confusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reporting

from rcompress.artifacts.records import Record
from rcompress.errors import RcompressError
from rcompress.report.build import Report, build_report
from rcompress.report.charts import PICTURE_WIDTH
from rcompress.report.gallery import gallery
from rcompress.report.plots import Plot
from rcompress.report.training_logs import find_logs, read_logs

PLOTS = (
    "accuracy-size",
    "accuracy-latency",
    "accuracy-parameters",
    "throughput-size",
    "latency",
    "accuracy-macs-removed",
    "accuracy-weights-removed",
    "drop-datasets",
    "layer-widths",
    "layer-sparsity",
    "training-loss",
    "training-accuracy",
    "confusion-baseline",
    "confusion-smallest",
)
PRUNE = {**reporting.PRUNE, "parent_sha256": reporting.sha("a.pth")}


def _record(name: str, top1: float = 90.0, steps: tuple[Any, ...] = (), **context: Any) -> Record:
    found = reporting.evaluated(name, top1, lineage=[reporting.TRAIN, *steps])
    found.context.update(context)
    return found


def _plots(report: Report) -> dict[str, Plot]:
    return {plot.name: plot for plot in gallery(report)[0]}


def _layered_report(pruned: Any = reporting.PRUNED_LAYERS) -> Report:
    records = [_record("a.pth", layers=reporting.LAYERS), _record("b.pth", steps=(PRUNE,), layers=pruned)]
    return build_report([*records, reporting.benched("b.pth", 1.0, lineage=records[1].lineage)])


def test_widths_stand_before_the_root_s_and_sparsity_is_a_share() -> None:
    plots = _plots(_layered_report())
    widths = reporting.drawn(plots["layer-widths"].chart)
    assert [(p["layer"], p["artifact"], p["x"], p["whole"]) for p in widths] == [
        ("conv1", "b.pth", 8, 16),
        ("fc", "b.pth", 10, 10),
    ]
    assert "a.pth" in plots["layer-widths"].subtitle[0]
    sparsity = reporting.drawn(plots["layer-sparsity"].chart)
    assert [(p["layer"], p["x"]) for p in sparsity] == [("conv1", 50.0), ("fc", 0.0)]


@pytest.mark.parametrize(
    "layers",
    [
        {},
        "x",
        {"conv1": 3},
        {"conv1": {"width": 0, "weights": 1, "nonzero": 1}},
        {"other": reporting.LAYERS["fc"]},
    ],
    ids=["none", "text", "number", "no width", "other layers"],
)
def test_layers_that_do_not_fit_are_not_drawn(layers: Any) -> None:
    assert "layer-widths" not in _plots(_layered_report(layers))


def test_of_many_artifacts_the_layers_are_spread_evenly() -> None:
    records = [_record("a.pth", layers=reporting.LAYERS)]
    for width in range(1, 13):
        layers = {**reporting.LAYERS, "conv1": {**reporting.LAYERS["conv1"], "width": width}}
        records.append(_record(f"{width}.pth", steps=(PRUNE,), layers=layers))
    plot = _plots(build_report(records))["layer-widths"]
    assert len(plot.legend) == 8
    names = list(plot.legend)
    assert (names[0], names[-1]) == ("1.pth", "12.pth")
    assert "8 of 12 artifacts." in plot.subtitle


def test_the_same_method_on_two_data_sets_is_one_row() -> None:
    points = reporting_drops(
        [
            *reporting.on_dataset("cifar10", 1000, 92.0, 90.0),
            *reporting.on_dataset("cifar100", 1005, 70.0, 65.0),
        ]
    )
    assert [(p["row"], p["dataset"], round(p["x"], 6)) for p in points] == [
        ("prune 0.5 (torch)", "cifar10", -2.0),
        ("prune 0.5 (torch)", "cifar100", -5.0),
    ]


def test_the_same_method_on_several_networks_is_a_row_for_each() -> None:
    records = []
    for network, macs, root in (("r20", 1000, 92.0), ("r56", 3000, 94.0)):
        for dataset, drop in (("cifar10", 1.0), ("cifar100", 2.0)):
            family = reporting.on_dataset(f"{network}-{dataset}", macs, root, root - drop)
            for record in family:
                record.context["dataset"] = dataset
            records += family
    points = reporting_drops(records)
    rows: dict[str, set[str]] = {}
    for point in points:
        rows.setdefault(point["row"], set()).add(point["artifact"])
    assert rows == {
        "prune 0.5 (torch), r20-cifar10.pth": {"r20-cifar10-p.pth", "r20-cifar100-p.pth"},
        "prune 0.5 (torch), r56-cifar10.pth": {"r56-cifar10-p.pth", "r56-cifar100-p.pth"},
    }


def test_other_networks_are_not_compared_across_data_sets() -> None:
    records = [
        *reporting.on_dataset("cifar10", 1000, 92.0, 90.0),
        *reporting.on_dataset("cifar100", 2000, 70.0, 65.0),
    ]
    assert "drop-datasets" not in _plots(build_report(records))
    assert "drop-datasets" not in _plots(build_report(reporting.on_dataset("cifar10", 1000, 92.0, 90.0)))


def reporting_drops(records: list[Record]) -> list[dict[str, Any]]:
    chart = _plots(build_report(records))["drop-datasets"].chart.to_dict()
    return next(points for points in chart["datasets"].values() if "x" in points[0])


def test_training_curves_come_from_the_logs(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    reporting.log(tmp_path / "sub", "a", 3, train_top1_percent=float("nan"))
    report = build_report([_record("a.pth")], logs=read_logs(find_logs([tmp_path])))
    plots = _plots(report)
    loss = reporting.drawn(plots["training-loss"].chart)
    assert [(p["x"], p["y"], p["dashed"]) for p in loss][:4] == [
        (1, 2.5, False),
        (2, 1.25, False),
        (3, pytest.approx(2.5 / 3), False),
        (1, 2.0, True),
    ]
    accuracy = reporting.drawn(plots["training-accuracy"].chart)
    assert [p["y"] for p in accuracy] == [10.0, 20.0, 30.0]
    assert list(plots["training-loss"].legend) == ["a"]


def test_a_hover_over_either_split_tells_its_figure(tmp_path: Path) -> None:
    reporting.log(tmp_path, "a", 2, train_top1_percent=50.0)
    plots = _plots(build_report([_record("a.pth")], logs=read_logs(find_logs([tmp_path]))))
    for name in ("training-loss", "training-accuracy"):
        chart = plots[name].chart
        [told] = {tuple(t["field"] for t in layer["encoding"]["tooltip"]) for layer in _hovered(chart)}
        assert all(set(told) <= point.keys() for point in reporting.drawn(chart)), name


def _hovered(chart: Any) -> list[dict[str, Any]]:
    return [layer for layer in chart.to_dict()["layer"] if "tooltip" in layer["encoding"]]


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder, name in (("seed0", "r20"), ("seed1", "r20"), ("seed1", "r56"), ("old/seed1", "r20")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        reporting.log(tmp_path / folder, name, 1)
    root = tmp_path.name
    assert set(read_logs(find_logs([tmp_path]))) == {"seed0/r20", f"{root}/seed1/r20", "r56", "old/seed1/r20"}


def test_more_runs_than_colours_are_counted(tmp_path: Path) -> None:
    for number in range(10):
        reporting.log(tmp_path, f"r{number}", 2)
    report = build_report([_record("a.pth")], logs=read_logs(find_logs([tmp_path])))
    assert "8 of 10 runs" in _plots(report)["training-loss"].subtitle


@pytest.mark.parametrize("text", ["", "{", "[]", '{"loss": 1}', '{"epoch": "one"}'])
def test_what_is_no_log_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.log.jsonl"
    path.write_text(text)
    with pytest.raises(RcompressError, match=r"x\.log\.jsonl"):
        read_logs([path])


def test_the_matrices_of_the_baseline_and_of_the_smallest() -> None:
    records = [
        _record("a.pth", confusion=[[9, 1], [0, 10]], classes=["cat", "dog"]),
        _record("big.pth", confusion=[[9, 1], [0, 10]]),
        _record("small.pth", confusion=[[5, 5], [2, 8]], classes=["only one"]),
        _record("other.pth", confusion=[[5, 5], [2, 8]], split="validation"),
    ]
    for record, size in zip(records, (400, 300, 100, 50), strict=True):
        record.metrics["size_bytes"] = size
    plots = _plots(build_report(records))
    assert plots["confusion-baseline"].title == "Confusion of a.pth"
    assert plots["confusion-smallest"].title == "Confusion of small.pth"
    cells = reporting.drawn(plots["confusion-baseline"].chart)
    assert [(c["of"], c["as"], c["images"], c["shown"]) for c in cells] == [
        ("cat", "cat", 9, "90"),
        ("cat", "dog", 1, "10"),
        ("dog", "dog", 10, "100"),
    ]
    assert reporting.drawn(plots["confusion-smallest"].chart)[0]["of"] == "0"


def test_matrices_of_two_files_of_one_name_are_told_apart() -> None:
    records = [
        reporting.evaluated("a.pth", 90.0, sha256="1" * 64),
        reporting.evaluated("a.pth", 80.0, sha256="2" * 64),
    ]
    for record, size in zip(records, (400, 300), strict=True):
        record.metrics["size_bytes"] = size
        record.context["confusion"] = [[9, 1], [0, 10]]
    plots = _plots(build_report(records))
    assert plots["confusion-baseline"].title == "Confusion of a.pth (1111111)"
    assert plots["confusion-smallest"].title == "Confusion of a.pth (2222222)"


@pytest.mark.parametrize(
    "matrix",
    [[[1, 2]], "xy", [[1.5, 0], [0, 1]], [[-1, 0], [0, 1]], [[1, [2]], [3, 4]], [[2**70, 0], [0, 1]], 7],
)
def test_a_matrix_that_is_none_is_said(matrix: Any) -> None:
    plots, missing = gallery(build_report([_record("a.pth", confusion=matrix)]))
    assert not [plot for plot in plots if plot.name.startswith("confusion")]
    assert any(line.startswith("No confusion matrix of a.pth: ") for line in missing)


def test_every_plot_is_a_picture_and_a_specification(tmp_path: Path) -> None:
    reporting.log(tmp_path, "a", 3)
    report = build_report(reporting.everything(), logs=read_logs(find_logs([tmp_path])))
    plots = _plots(report)
    assert set(PLOTS) <= set(plots)
    for plot in plots.values():
        assert plot.png.startswith(b"\x89PNG")
        assert plot.spec["marks"]
        assert "legends" not in plot.spec
        assert len(plot.png) > PICTURE_WIDTH


def test_odd_records_draw_what_they_can() -> None:
    odd = reporting.everything()
    for record in odd:
        record.lineage.extend(
            [{"command": None, "options": [1], "parent_sha256": ["x"]}, {"options": {"ratio": {}}}]
        )
    nameless = reporting.evaluated("\x00.pth", 50.0, sha256="\x00", lineage=[])
    nameless.context.update(layers=reporting.LAYERS, confusion=[[1, 0], [0, 1]], classes=[None, {}])
    plots, _ = gallery(build_report([nameless, *odd]))
    assert plots[0].name == "accuracy-size"
    assert "confusion-baseline" in [plot.name for plot in plots]


def test_a_log_with_an_endless_number_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "x.log.jsonl"
    path.write_text('{"epoch": 1, "train_loss": 1' + "0" * 400 + "}")
    with pytest.raises(RcompressError, match="is no log"):
        read_logs([path])
