"""README.md's tables of pruning, from the records under ``artifacts/reference/pruning``."""

from __future__ import annotations

from collections.abc import Callable

from rcompress.report.build import build_report, read_sources
from rcompress.report.text import with_spread
from tests.result_tables import RECORDS, STEMS, Facts, facts_of, table

IMPORTANCES = ("l1", "l2", "bn-scale", "fpgm", "lamp", "taylor", "hessian", "activation", "random")
SCOPES = ("local", "global", "adaptive")
REMOVED = (30, 50, 60, 75, 90)
STRENGTHS = {
    "l2, local": "l2-local",
    "l2, global": "l2-global",
    "l2, adaptive": "l2-adaptive",
    "taylor, global": "taylor-global",
    "taylor, adaptive": "taylor-adaptive",
}
ZEROS = {
    "50 % of the weights": "sparse50",
    "75 % of the weights": "sparse75",
    "90 % of the weights": "sparse90",
    "2:4": "nm24",
    "30 % of the filters": "filters30",
}
TRAINED = {
    "": "",
    "half the MACs: l2, local": "-l2-local-macs50-ft",
    "half the MACs: l2, global": "-l2-global-macs50-ft",
    "half the MACs: taylor, global": "-taylor-global-macs50-ft",
    "half the MACs: l2, adaptive": "-l2-adaptive-macs50-ft",
    "half the MACs: l2, adaptive, 15 epochs": "-l2-adaptive-macs50-long",
    "30 % of the channels, at once": "-ratio30-ft",
    "30 % of the channels, in three steps": "-ratio30-steps3-ft",
    "75 % of the weights": "-sparse75-ft",
    "90 % of the weights": "-sparse90-ft",
    "90 % of the weights, little by little": "-sparse90-cubic-ft",
    "2:4": "-nm24-ft",
    "30 % of the filters": "-filters30-ft",
}


def pruning() -> str:
    """What stays of the accuracy without training, and what training gives back, as Markdown."""
    records, _, _ = read_sources([RECORDS / "pruning"])
    facts = facts_of(build_report(records).frame.to_dicts())
    stems = STEMS.values()

    def recovered(name: str) -> Callable[[str], str]:
        return lambda way: _recovered(facts, name.format(way))

    halved = _ways(
        ["half the MACs", *(f"{name}, {scope}" for name in STEMS for scope in SCOPES)],
        {way: way for way in IMPORTANCES},
        [recovered(f"{stem}-{{}}-{scope}-macs50.pth") for stem in stems for scope in SCOPES],
    )
    stronger = _ways(
        ["fewer MACs", *(f"{name}, {share} %" for name in STEMS for share in REMOVED)],
        STRENGTHS,
        [recovered(f"{stem}-{{}}-macs{share}.pth") for stem in stems for share in REMOVED],
    )
    zeros = _ways(["zeros", *STEMS], ZEROS, [recovered(f"{stem}-{{}}.pth") for stem in stems])
    trained = table(
        [
            "trained again",
            "top-1 (%)",
            "difference",
            "parameters (k)",
            "not zero (k)",
            "MACs (M)",
            "KiB",
            "ms",
        ],
        [
            _trained(facts, name, stem, way, suffix)
            for name, stem in STEMS.items()
            for way, suffix in TRAINED.items()
            if f"{stem}{suffix}.pth" in facts
        ],
    )
    return "\n\n".join([halved, stronger, zeros, trained])


def _ways(heads: list[str], ways: dict[str, str], cells: list[Callable[[str], str]]) -> str:
    return table(heads, [[shown, *(cell(way) for cell in cells)] for shown, way in ways.items()])


def _recovered(facts: dict[str, Facts], artifact: str) -> str:
    """The accuracy, with BatchNorm re-estimated, on images that chose nothing."""
    return f"{facts[artifact][None]['top1_percent']:.2f}" if artifact in facts else ""


def _trained(facts: dict[str, Facts], name: str, stem: str, way: str, suffix: str) -> list[str]:
    row, origin = facts[f"{stem}{suffix}.pth"][None], facts[f"{stem}.pth"][None]
    timed = facts.get(f"{stem}{suffix}.onnx", {}).get(1, {})
    counts = [row["parameters"] / 1e3, row["nonzero_parameters"] / 1e3, row["macs"] / 1e6]
    return [
        f"{name}{', ' if way else ''}{way}",
        with_spread(row, "top1_percent", decimals=2),
        f"{row['top1_percent'] - origin['top1_percent']:+.2f}",
        *(f"{count:.1f}" for count in counts),
        f"{row['size_bytes'] / 1024:.0f}",
        with_spread(timed, "latency_p50_ms"),
    ]
