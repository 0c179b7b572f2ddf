"""The options by which `prune` is told what the network shall be, and the search that they ask for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rcompress.cli.output import Output

if TYPE_CHECKING:
    from rcompress.cli.opening import Opened
    from rcompress.methods.channel_groups import ChannelGraph
    from rcompress.methods.channel_selection import Scores
    from rcompress.methods.importance import Importance
    from rcompress.search.fitting import Request
    from rcompress.search.targets import Fit, Quantity
    from rcompress.training import Settings

BackendName = Literal["openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"]
ScopeName = Literal["local", "global", "adaptive"]

Scope = Annotated[
    ScopeName,
    typer.Option(
        "--scope",
        help="local: the same share of each layer; global: the least important channels of the whole network; "
        "adaptive: what measured sensitivity says, for a target.",
    ),
]
TargetMacs = Annotated[
    str | None, typer.Option("--target-macs", help="At most these MACs: 0.5x of what it has, or 35M.")
]
TargetParams = Annotated[
    str | None, typer.Option("--target-params", help="At most these parameters: 0.5x, or 200k.")
]
TargetSize = Annotated[
    str | None, typer.Option("--target-size", help="A checkpoint of at most this size: 0.5x, or 1MiB.")
]
TargetLatency = Annotated[
    str | None,
    typer.Option("--target-latency", help="At most this median time per call, measured: 0.5x, or 0.2ms."),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        min=0,
        help="The smallest network that loses at most so many points of accuracy on the data for choices, "
        "before any fine-tuning.",
    ),
]
SensitivityFile = Annotated[
    Path | None,
    typer.Option(
        "--sensitivity", help="--scope adaptive: curves to go by, from rcompress sensitivity (measure them)."
    ),
]
LatencyBackend = Annotated[
    BackendName | None, typer.Option("--backend", help="--target-latency: where to time (openvino).")
]
Int8 = Annotated[bool, typer.Option("--int8", help="--target-latency: of the network quantized to INT8.")]

UNITS: dict[str, dict[str, float]] = {
    "macs": {"": 1, "k": 1e3, "M": 1e6, "G": 1e9},
    "parameters": {"": 1, "k": 1e3, "M": 1e6, "G": 1e9},
    "size_bytes": {"": 1, "B": 1, "kB": 1e3, "MB": 1e6, "KiB": 2**10, "MiB": 2**20},
    "latency_ms": {"ms": 1, "us": 1e-3, "s": 1e3},
}
NAMES = {"macs": "macs", "parameters": "params", "size_bytes": "size", "latency_ms": "latency"}
SHOWN = {
    "macs": "at most {limit:,.0f} MACs asked for, {reached:,.0f} reached",
    "parameters": "at most {limit:,.0f} parameters asked for, {reached:,.0f} reached",
    "size_bytes": "at most {limit:,.0f} bytes asked for, {reached:,.0f} expected",
    "latency_ms": "at most {limit:.4g} ms asked for, {reached:.4g} ms measured ({trials} networks tried)",
    "drop_points": "at most {limit:.2f} points asked for, {reached:.2f} lost on the data for choices "
    "({trials} networks tried)",
}
EXAMPLES = {"macs": "35M", "parameters": "200k", "size_bytes": "1MiB", "latency_ms": "0.2ms"}


@dataclass(frozen=True)
class Asked:
    """A target as given: ``amount`` of ``quantity``, of what the network has where it is ``relative``; ``tag`` names
    it in a file's name."""

    quantity: Quantity
    amount: float
    relative: bool
    tag: str


@dataclass(frozen=True)
class Aim:
    """How the widths are to be found, as given; ``asked`` None: by a ratio.

    Attributes:
        backend, int8, calls_of: of a latency: where, of what, images per call.

    Raises:
        BadParameter: options contradict each other.
    """

    asked: Asked | None
    scope: ScopeName
    sensitivity: Path | None = None
    backend: BackendName | None = None
    int8: bool = False
    calls_of: int = 1
    threads: int = 0

    def __post_init__(self) -> None:
        if self.scope == "adaptive" and self.asked is None:
            raise typer.BadParameter("adaptive goes with a target (--target-macs 0.5x)", param_hint="--scope")
        if self.sensitivity is not None and self.scope != "adaptive":
            raise typer.BadParameter("goes with --scope adaptive", param_hint="--sensitivity")
        if not self.timed and (self.backend is not None or self.int8):
            raise typer.BadParameter("go with --target-latency", param_hint="--backend, --int8")

    def require_repeatable(self, measured_multiple: bool) -> None:
        """Refuse to resume where the network to go on with may come out otherwise.

        Raises:
            BadParameter: something would be measured again.
        """
        if measured_multiple:
            raise typer.BadParameter(
                "measured again, it may be another multiple: name the one that was said",
                param_hint="--round-to",
            )
        if self.timed:
            raise typer.BadParameter(
                "a latency measured again may ask for another network: prune first, then fine-tune with "
                "rcompress train --init",
                param_hint="--resume",
            )

    @property
    def timed(self) -> bool:
        """Whether networks are timed."""
        return self.asked is not None and self.asked.quantity == "latency_ms"

    @property
    def ranking(self) -> Literal["local", "global"]:
        """The scope as a ratio knows it."""
        return "global" if self.scope == "global" else "local"

    @property
    def decided_by_data(self) -> bool:
        """Whether images that serve choices decide the widths."""
        return self.asked is not None and (self.scope == "adaptive" or self.asked.quantity == "drop_points")

    @property
    def needs_data(self) -> bool:
        """Whether the search looks at images."""
        measured = self.decided_by_data and self.sensitivity is None
        return measured or self.int8 or (self.asked is not None and self.asked.quantity == "drop_points")

    def request(self, asked: Asked, importance: Importance, round_to: int) -> Request:
        """The same for the library."""
        from rcompress.search.fitting import Request
        from rcompress.search.latency import Conditions
        from rcompress.search.targets import Target

        target = Target(asked.quantity, asked.amount, asked.relative)
        conditions = Conditions(self.backend or "openvino", self.int8, self.calls_of, self.threads)
        return Request(target, self.scope, importance, round_to, conditions if self.timed else None)


def asked_for(
    macs: str | None, params: str | None, size: str | None, latency: str | None, max_drop: float | None
) -> Asked | None:
    """The one target that was given, if any.

    Raises:
        BadParameter: two were, or one is no amount.
    """
    texts: dict[Quantity, str | None] = {
        "macs": macs,
        "parameters": params,
        "size_bytes": size,
        "latency_ms": latency,
    }
    given = [_parsed(quantity, text) for quantity, text in texts.items() if text is not None]
    if max_drop is not None:
        given.append(Asked("drop_points", max_drop, False, f"drop{max_drop:g}"))
    if len(given) > 1:
        raise typer.BadParameter("give one of them", param_hint="--target-..., --max-drop")
    return given[0] if given else None


def _parsed(quantity: Quantity, text: str) -> Asked:
    number, unit = re.fullmatch(r"([0-9.]*)(.*)", text.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
    name, units = NAMES[quantity], UNITS[quantity]
    try:
        amount = float(number) * (1 if unit == "x" else units[unit])
    except (ValueError, KeyError):
        amount = 0.0
    if amount <= 0 or (unit == "x" and amount >= 1):
        raise typer.BadParameter(
            f"{text!r} is neither a share such as 0.5x nor an amount such as {EXAMPLES[quantity]}",
            param_hint=f"--target-{name}",
        )
    return Asked(
        quantity, amount, unit == "x", f"{name}{round(100 * amount)}" if unit == "x" else f"{name}{text}"
    )


def fitted(
    opened: Opened,
    graph: ChannelGraph,
    scores: Scores,
    request: Request,
    sensitivity: Path | None,
    settings: Settings,
    out: Output,
) -> Fit:
    """The widths that meet ``request``, and a word about how well.

    Args:
        sensitivity: curves to go by, for an adaptive request; None: they are measured.
    """
    from rcompress.measure.size import size_bytes
    from rcompress.search.adaptation import measured_adaptation, read_adaptation
    from rcompress.search.fitting import find_widths
    from rcompress.search.material import Material

    material = Material(graph, opened.spec, scores, size_bytes(opened.path))
    adapted = None
    if sensitivity is not None:
        sha256 = opened.parent["parent_sha256"]
        adapted = read_adaptation(sensitivity, sha256, material.groups, request.round_to, request.importance)
    elif request.scope == "adaptive":
        adapted = measured_adaptation(material, opened.start.dataset, settings, request.round_to, out)
    fit = find_widths(material, request, settings, opened.dataset, adapted, out)
    _say(fit, request, out)
    return fit


def _say(fit: Fit, request: Request, out: Output) -> None:
    out.note(SHOWN[fit.quantity].format(limit=fit.limit, reached=fit.reached, trials=fit.trials))
    if request.conditions is not None:
        before, after = fit.figures["latency_p50_ms_before"], fit.figures["latency_p50_ms"]
        out.note(
            f"timed in turns with the whole network: {before:.4g} ms -> {after:.4g} ms "
            f"({fit.figures['latency_speedup']:.2f} times as fast; {request.conditions})"
        )
        if after > fit.limit:
            out.note(
                f"warning: that is more than the {fit.limit:.4g} ms asked for: timings here vary so much"
            )
