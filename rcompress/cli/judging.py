"""The verdict after building an INT8 engine, as ``build-engine`` says it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcompress.cli.output import Output
from rcompress.errors import RcompressError

if TYPE_CHECKING:
    from rcompress.artifacts.spec import ModelSpec
    from rcompress.methods.deploy import Deployed, EngineRequest
    from rcompress.methods.source_graph import SourceGraph
    from rcompress.search.verdict import ChoiceData, VerdictOptions


def say_verdict(
    out: Output,
    done: Deployed,
    graph: SourceGraph,
    spec: ModelSpec,
    request: EngineRequest,
    data_dir: Path | None,
    options: VerdictOptions,
) -> dict[str, Any]:
    """Compare the engine with other precisions, say which one to ship, and keep the figures beside it.

    Returns:
        What --json says of it; nothing where the engine cannot run here.
    """
    from rcompress.artifacts.records import write_records
    from rcompress.engines import backend_status
    from rcompress.search.verdict import judge

    if not done.runs_here:
        out.note(
            f"no verdict on INT8: {request.backend} cannot run here, {backend_status(request.backend).fault}"
        )
        return {}
    data = _choice_data(out, done.path, spec, data_dir)
    verdict = judge(done.path, graph, spec, request, data, options, out)
    record = done.path.with_name(f"{done.path.name}.verdict.result.json")
    write_records(record, [verdict.record()])
    for sentence in verdict.decision.said:
        out.note(f"verdict: {sentence}")
    return {"verdict": {**verdict.to_dict(), "record": str(record)}}


def _choice_data(out: Output, engine: Path, spec: ModelSpec, data_dir: Path | None) -> ChoiceData | None:
    """The images on which this network's choices are made; None, with a word, where they cannot be opened."""
    from rcompress.data import matching_dataset
    from rcompress.search.verdict import ChoiceData

    name = spec.choice_split
    if spec.preprocessing.dataset is None:
        out.note("the verdict compares speed alone: the file names no dataset")
        return None
    try:
        dataset = matching_dataset(engine, spec, None, data_dir)
        return ChoiceData(dataset.name, name, dataset.split(name))
    except RcompressError as error:
        out.note(f"the verdict compares speed alone: {error.subject}: {error.fault}")
        return None
