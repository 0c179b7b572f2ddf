"""PyTorch's own INT8 as an engine: made from the checkpoint's module, not from its graph."""

from __future__ import annotations

from pathlib import Path

from rcompress.artifacts.spec import Step, parent_fields
from rcompress.engines import torch_x86
from rcompress.errors import RcompressError
from rcompress.measure.size import size_bytes
from rcompress.measure.static import inherited, module_metrics
from rcompress.methods.calibration_cache import CalibrationCache
from rcompress.methods.calibration_data import BATCH_SIZE, CalibrationImages
from rcompress.methods.deploy import COMMAND, Deployed
from rcompress.models import load_model
from rcompress.progress import SILENT, Progress, tracked


def deploy_x86(
    source: Path,
    target: Path,
    calibration: CalibrationCache | CalibrationImages | None,
    arch: str | None = None,
    progress: Progress = SILENT,
) -> Deployed:
    """Quantize the checkpoint ``source`` with PyTorch's x86 defaults into ``target``.

    Args:
        calibration: images; PyTorch keeps no ranges that could be given back.
        arch: the user's own architecture.

    Raises:
        RcompressError: the source is no checkpoint, there are no images, or PyTorch cannot quantize it.
    """
    if source.suffix != ".pth":
        raise RcompressError(source, "torch-x86 is made from a module, not a graph", "give the .pth")
    if not isinstance(calibration, CalibrationImages):
        raise RcompressError(
            source, "torch-x86 is INT8, calibrated with images", "use --int8 and --calib DATASET"
        )
    loaded = load_model(source, arch)
    batches = -(-len(calibration) // BATCH_SIZE)
    converted = torch_x86.convert(
        loaded.module, tracked(calibration.batches(), batches, "calibrating", progress), source
    )
    step = Step(
        COMMAND,
        {
            "backend": "torch-x86",
            "precision": "int8",
            "calibration": {
                "dataset": calibration.dataset,
                "images": len(calibration),
                "method": "histogram",
            },
        },
        metrics=dict(inherited(module_metrics(loaded.module, loaded.spec.preprocessing.input_size))),
        **parent_fields(source, loaded.sha256),
    )
    torch_x86.write(target, loaded.spec.with_step(step), loaded.module.state_dict(), converted)
    return Deployed(
        path=target,
        cache=None,
        report=None,
        executed=torch_x86.executed_precisions(converted),
        runs_here=True,
        size_bytes=size_bytes(target),
        source_bytes=size_bytes(source),
    )
