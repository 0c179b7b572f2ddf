"""Plots as pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
import reporting
from PIL import Image

from rcompress.artifacts.records import Record
from rcompress.report.build import build_report
from rcompress.report.charts import COLOURS, HEIGHT, PICTURE_WIDTH, SCALE, scatter
from rcompress.report.confusion import confusion_png
from rcompress.report.plots import Plot, plots_of
from rcompress.report.points import ACCURACY, SIZE
from rcompress.report.write import sheet


def _plots(records: list[Record]) -> tuple[list[Plot], list[str]]:
    return plots_of(build_report(records).frame.to_dicts())


def _pixels(png: bytes, colour: str, below: float = 0.0) -> int:
    """Of this colour, in the whole picture or under its legend."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    image = image[int(below * len(image)) :]
    return int((image == wanted).all(axis=2).sum())


def test_all_plots_show_both_backends() -> None:
    plots, missing = _plots(reporting.family())
    assert [plot.name for plot in plots] == [
        "accuracy-size",
        "accuracy-latency",
        "accuracy-parameters",
        "throughput-size",
        "latency",
    ]
    assert missing == []
    for plot in plots:
        assert _pixels(plot.png, COLOURS["torch"]) > 20, plot.name
        assert _pixels(plot.png, COLOURS["onnxruntime"]) > 20, plot.name


def test_a_point_on_the_front_is_filled_and_a_beaten_one_hollow() -> None:
    front, beaten = reporting.family(), reporting.family()
    beaten[0] = reporting.evaluated("b.onnx", 92.0, "onnxruntime", lineage=beaten[0].lineage)

    def orange(records: list[Record]) -> int:
        return _pixels(_plots(records)[0][0].png, COLOURS["torch"])

    assert orange(front) > orange(beaten) + 150


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("a.pth", f"a-{'long-' * 6}x.onnx"), {"a.pth", "a-long-long-\u2026ng-long-x.onnx"}),
        ((f"a-{'1-' * 20}x.onnx", f"a-{'1-' * 19}x.onnx"), {f"a-{'1-' * 20}x.onnx", f"a-{'1-' * 19}x.onnx"}),
    ],
    ids=["shortened", "alike"],
)
def test_long_names_are_told_by_their_ends(names: tuple[str, str], shown: set[str]) -> None:
    rows = [
        {
            "artifact": name,
            "backend": "torch",
            "lineage": [],
            "top1_percent": 90.0 + 4 * i,
            "size_bytes": 2**20 * (1 + 5 * i),
        }
        for i, name in enumerate(names)
    ]
    (points,) = scatter(rows, SIZE, ACCURACY).to_dict()["datasets"].values()
    assert {point["label"] for point in points} == shown


def test_the_subtitle_says_what_is_compared() -> None:
    subtitles = {plot.name: plot.subtitle for plot in _plots(reporting.family())[0]}
    assert (
        subtitles["accuracy-latency"][0]
        == "digits, test split, 1,000 images, Test CPU (AVX2), 1 thread, batch 1"
    )
    assert subtitles["throughput-size"][0] == "Test CPU (AVX2), 1 thread, batch 64"
    assert "95 %" in subtitles["accuracy-size"][1]
    assert "95 %" not in subtitles["throughput-size"][1]


def test_one_artifact_in_two_backends_has_two_bars() -> None:
    records = [reporting.benched("a.onnx", 1.0, backend=name) for name in ("onnxruntime", "openvino")]
    [plot] = [plot for plot in _plots(records)[0] if plot.name == "latency"]
    assert min(_pixels(plot.png, COLOURS[name]) for name in ("onnxruntime", "openvino")) > 10_000


def test_latencies_far_apart_are_dots_on_a_logarithmic_axis() -> None:
    records = [
        reporting.benched("a.onnx", ms, backend=name)
        for name, ms in (("onnxruntime", 1.0), ("openvino", 30.0))
    ]
    [plot] = [plot for plot in _plots(records)[0] if plot.name == "latency"]
    assert min(_pixels(plot.png, COLOURS[name], 0.5) for name in ("onnxruntime", "openvino")) > 100


def test_the_fastest_dot_lies_on_a_logarithmic_axis() -> None:
    records = [reporting.benched(name, ms) for name, ms in (("a.pth", 1.0), ("b.pth", 30.0))]
    records[0].metrics["latency_p90_ms"] = 2.0
    [plot] = [plot for plot in _plots(records)[0] if plot.name == "latency"]
    low, _ = plot.chart.to_dict()["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert 0 < low < 1.0


def test_times_of_separate_runs_are_said_to_be() -> None:
    records = [
        reporting.evaluated("a.pth", 90.0),
        reporting.benched("a.pth", 1.0),
        reporting.benched("b.pth", 2.0),
    ]

    def said() -> set[str]:
        return {
            plot.name for plot in _plots(records)[0] if any("not taken in turns" in s for s in plot.subtitle)
        }

    for record in records[1:]:
        record.context["bench_run"] = "one"
    assert said() == set()
    records[1].context["bench_run"] = "two"
    assert said() == {"throughput-size", "latency"}


def test_an_accuracy_of_zero_is_drawn() -> None:
    records = [reporting.benched("a.pth", 1.0), reporting.evaluated("a.pth", 0.0)]
    assert "accuracy-size" in [plot.name for plot in _plots(records)[0]]


def test_without_latency_the_missing_plots_are_explained() -> None:
    plots, missing = _plots([reporting.evaluated("a.pth", 90.0)])
    assert plots == []
    assert any("latency" in line and "rcompress bench" in line for line in missing)
    plots, missing = _plots([reporting.benched("a.pth", 1.0)])
    assert [plot.name for plot in plots] == ["throughput-size", "latency"]
    assert all("top-1 accuracy (%)" in line and "rcompress eval" in line for line in missing)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([reporting.benched("a.pth", 1.0), reporting.evaluated("a.pth", 100.0)], id="one point"),
        pytest.param(
            [reporting.benched(f"{n}.pth", 10.0**n, 10**n * 1000) for n in range(5)], id="five magnitudes"
        ),
        pytest.param([reporting.benched(f"network-{n}.pth", 1.0 + n) for n in range(40)], id="40 artifacts"),
        pytest.param([reporting.benched("x" * 300, 1.0, backend="made-up")], id="long name, unknown backend"),
    ],
)
def test_odd_sets_are_drawn_at_the_agreed_size(records: list[Record]) -> None:
    for plot in _plots(records)[0]:
        image = Image.open(io.BytesIO(plot.png))
        assert SCALE * PICTURE_WIDTH <= image.width <= SCALE * PICTURE_WIDTH * 1.6
        assert image.height >= SCALE * min(plot.height, HEIGHT)
        assert plot.spec["marks"]


def test_a_sheet_holds_every_picture() -> None:
    one = io.BytesIO()
    Image.new("RGB", (10, 20), "red").save(one, "PNG")
    assert Image.open(io.BytesIO(sheet([one.getvalue()] * 3))).size == (20, 40)
    assert _pixels(sheet([one.getvalue()] * 3), "#ff0000") == 600


def test_the_confusion_matrix_shows_where_the_images_went() -> None:
    right, wrong = (
        confusion_png([[9, 0], [0, 9]], ["cat", "dog"]),
        confusion_png([[9, 0], [9, 0]], ["cat", "dog"]),
    )
    left, bottom = (
        np.asarray(Image.open(io.BytesIO(right)).convert("L")),
        np.asarray(Image.open(io.BytesIO(wrong)).convert("L")),
    )
    assert left.shape == bottom.shape
    dark = [(image < 120).sum() for image in (left, bottom)]
    assert dark[0] == pytest.approx(dark[1], rel=0.05)
    assert (left != bottom).mean() > 0.1


def test_class_names_are_text_whatever_they_hold() -> None:
    names = ["it's", '"];alert(1)//', "same", "same"]
    assert Image.open(io.BytesIO(confusion_png(np.eye(4, dtype=int), names, "title"))).width > 1000


@pytest.mark.parametrize("counts", [[], [[1, 2]], [[[1]]]], ids=["empty", "not square", "too deep"])
def test_a_matrix_that_is_not_square_is_refused(counts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="as many rows as columns"):
        confusion_png(counts)


def test_names_must_fit_the_classes() -> None:
    with pytest.raises(ValueError, match="1 names for 2 classes"):
        confusion_png([[1, 0], [0, 1]], ["cat"])
