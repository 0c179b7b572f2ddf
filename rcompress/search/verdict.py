"""Which precision to ship: the INT8 engine timed against the same network in FP32 and half precision."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from rcompress.artifacts.records import Record
from rcompress.artifacts.spec import ModelSpec
from rcompress.data import Split, balanced_indices
from rcompress.engines import Backend, Engine, RunOptions, load_engine
from rcompress.engines.base import Precision
from rcompress.engines.evaluation import engine_logits
from rcompress.engines.inputs import random_inputs
from rcompress.errors import RcompressError
from rcompress.measure.accuracy import Tally
from rcompress.measure.latency import Call, time_interleaved
from rcompress.measure.size import size_bytes
from rcompress.methods.deploy import EngineRequest, deploy
from rcompress.methods.graph_prepare import prepare_graph
from rcompress.methods.source_graph import SourceGraph
from rcompress.progress import SILENT, Progress
from rcompress.search.weighing import Answers, Contender, Decision, weigh

TRIALS = 7
"""All on one side by chance: once in 64 comparisons."""
TRIAL_SECONDS = 0.1
EVALUATION_BATCH = 64
IMAGE_SEED = 0


@dataclass(frozen=True)
class VerdictOptions:
    """How to compare.

    Attributes:
        batch_size: images per timed call; an engine of a fixed batch is timed at its own.
        images: images on which accuracy is compared, at most.
        run: device and threads.
    """

    batch_size: int = 1
    images: int = 2000
    run: RunOptions = field(default_factory=lambda: RunOptions(device="auto"))


@dataclass(frozen=True)
class ChoiceData:
    """Labelled images on which a choice may be made, and their names."""

    dataset: str
    name: str
    split: Split


@dataclass(frozen=True)
class Verdict:
    """What was measured and what follows from it.

    Attributes:
        engine: the INT8 engine as it was built.
        decision: see there.
        contenders: FP32, then half precision where the backend computes in it, INT8 last.
        context: the conditions of the comparison, as records name them.
    """

    engine: Engine
    decision: Decision
    contenders: tuple[Contender, ...]
    context: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Primitives."""
        contenders = [contender.to_dict(self.context["batch_size"]) for contender in self.contenders]
        return {
            "ship": self.decision.ship,
            "said": list(self.decision.said),
            **self.context,
            "contenders": contenders,
        }

    def record(self) -> Record:
        """The INT8 engine's figures of this comparison; the other contenders stand in the context."""
        info, context = self.engine.info, self.to_dict()
        mine = context["contenders"][-1]
        conditions = {name: mine[name] for name in ("precision", "executed_layers")}
        return Record(
            kind="verdict",
            artifact=info.path.name,
            sha256=info.sha256,
            metrics={name: value for name, value in mine.items() if name not in conditions},
            context={**context, **conditions, "speedup_against": "fp32"},
            lineage=info.spec.to_dict()["lineage"] if info.spec else [],
            notes=[f"verdict: {'; '.join(self.decision.said)}", *self._caution],
        )

    @property
    def _caution(self) -> list[str]:
        """Half the test split of an imported network has served a choice then."""
        if self.context.get("split") != "test-a":
            return []
        return ["test-a served this recommendation: accuracy to be reported comes from test-b"]


def rivals(backend: Backend) -> tuple[Precision, ...]:
    """The precisions other than INT8 that ``backend`` really computes in on this machine, FP32 first."""
    if backend.startswith("tensorrt"):
        return ("fp32", "fp16")
    if backend != "openvino":
        return ("fp32",)
    from rcompress.engines.ov import computes

    halves: tuple[Precision, ...] = ("fp16", "bf16")
    return ("fp32", *(half for half in halves if computes(half.upper())))


def judge(
    engine: Path,
    source: SourceGraph,
    spec: ModelSpec | None,
    request: EngineRequest,
    data: ChoiceData | None,
    options: VerdictOptions = VerdictOptions(),
    progress: Progress = SILENT,
) -> Verdict:
    """Compare ``engine`` with the rivals, which are built from ``source`` into a folder that goes afterwards.

    Args:
        engine: an INT8 engine made from ``source`` as ``request`` says; its backend must run here. The rivals
            are built from ``source`` as it was prepared for quantization, of the same batch sizes.
        spec: what describes ``source``; data are prepared accordingly.
        data: images for comparing accuracy; None: speed and size alone are compared.

    Raises:
        RcompressError: an engine cannot be built or run.
    """
    source = replace(source, model=prepare_graph(source.model, str(source.path)))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths: dict[Precision, Path] = {}
        for precision in rivals(request.backend):
            built = _built(precision, source, spec, request, Path(folder) / precision, progress)
            paths |= {} if built is None else {precision: built}
        paths["int8"] = engine
        engines = {
            precision: stack.enter_context(closing(load_engine(path, request.backend, options.run)))
            for precision, path in paths.items()
        }
        batch = engines["int8"].info.nearest_batch(options.batch_size)
        answers = {} if data is None else _answers(engines, data, options.images, progress)
        contenders = _timed(engines, answers, batch, progress)
        context = _context(engines["int8"], batch, data, options, answers)
        return Verdict(engines["int8"], weigh(contenders, _circumstances(context)), contenders, context)


def _built(
    precision: Precision,
    source: SourceGraph,
    spec: ModelSpec | None,
    request: EngineRequest,
    stem: Path,
    progress: Progress,
) -> Path | None:
    """A rival's engine; None, with a word, where a half-precision one cannot be made."""
    from rcompress.engines.selection import SUFFIXES

    target = stem.with_suffix(SUFFIXES[request.backend])
    wanted = replace(request, build=replace(request.build, precision=precision))
    try:
        return deploy(source, spec, target, wanted, None, progress).path
    except RcompressError as error:
        if precision == "fp32":
            raise
        progress.note(f"the verdict leaves {precision.upper()} out: {error.fault}")
        return None


def _answers(
    engines: dict[Precision, Engine], data: ChoiceData, images: int, progress: Progress
) -> dict[Precision, Answers]:
    """What each engine answers to the same class-balanced images."""
    count = min(images, len(data.split))
    split = data.split.subset(balanced_indices(data.split.labels, count, IMAGE_SEED))
    found = {}
    for precision, engine in engines.items():
        spec = engine.info.spec
        assert spec is not None, "data are opened for described networks alone"
        logits, labels = engine_logits(engine, split, spec.preprocessing, EVALUATION_BATCH, progress)
        tally = Tally()
        tally.add(logits, labels)
        right = (torch.from_numpy(logits).argmax(1) == labels).numpy()
        found[precision] = Answers(tally.scores(), right)
    return found


def _timed(
    engines: dict[Precision, Engine], answers: dict[Precision, Answers], batch: int, progress: Progress
) -> tuple[Contender, ...]:
    progress.note(f"timing {', '.join(name.upper() for name in engines)} against each other")
    calls: dict[str, Call] = {
        name: engine.prepare(random_inputs(engine.info, batch)) for name, engine in engines.items()
    }
    latencies = time_interleaved(calls, trials=TRIALS, progress=progress, trial_seconds=TRIAL_SECONDS)
    return tuple(
        Contender(name, engine.info.executed, size_bytes(engine.info.path), latency, answers.get(name))
        for (name, engine), latency in zip(engines.items(), latencies, strict=True)
    )


def _context(
    engine: Engine,
    batch: int,
    data: ChoiceData | None,
    options: VerdictOptions,
    answers: dict[Precision, Answers],
) -> dict[str, Any]:
    info = engine.info
    context = {
        "backend": info.backend,
        "device": info.device,
        "transfers": "none" if info.device == "cpu" else "excluded",
        "threads": options.run.cpu_threads,
        "batch_size": batch,
        "trials": TRIALS,
    }
    if data is not None:
        images = answers["int8"].scores.images
        context |= {"dataset": data.dataset, "split": data.name, "images": images}
    return context


def _circumstances(context: dict[str, Any]) -> tuple[str, str]:
    """The conditions of the timing and of the accuracy, in words."""
    threads = context["threads"]
    where = "" if context["device"] != "cpu" else f", {threads} thread{'s' if threads > 1 else ''}"
    speed = f"batch {context['batch_size']}{where}, {context['backend']} on {context['device']}"
    if "images" not in context:
        return speed, "accuracy was not measured"
    return speed, f"{context['images']:,} images of {context['dataset']} {context['split']}"
