"""What TensorRT says: its one logger, and layers by precision as its descriptions tell."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from rcompress.engines.plan_file import PlanBackend
from rcompress.engines.status import IMPORT_NAMES

LAYER_TYPE = re.compile(
    r"LayerType: (\S*(?:correlation|conv|gemm|matmul|matrixmultiply)\S*?),", re.IGNORECASE
)
FIRST_TYPE = re.compile(
    r"Inputs: .*?(?:Datatype|Format)\S*: [^,}]*?(Int8|FP8|BFloat16|BF16|Half|FP16|Float|FP32)"
)
TYPE_NAMES = {"Int8": "I8", "FP8": "F8", "BFloat16": "BF16", "BF16": "BF16", "Half": "F16", "FP16": "F16"}


@functools.cache
def shared_logger(backend: PlanBackend) -> Any:
    """The logger of a process: TensorRT stays with the first one it is given, by a bare pointer.

    It keeps every message until ``clear`` is called.
    """
    trt: Any = import_module(IMPORT_NAMES.get(backend, backend))

    class KeepingLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._kept: list[tuple[Any, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self._kept.append((severity, message))

        def clear(self) -> None:
            self._kept.clear()

        def lines(self) -> list[str]:
            return [
                line for severity, text in self._kept for line in f"[{severity.name}] {text}".splitlines()
            ]

        def errors(self) -> list[str]:
            return [text for severity, text in self._kept if severity <= trt.ILogger.ERROR]

    return KeepingLogger()


def executed_precisions(lines: Iterable[str]) -> dict[str, int]:
    """Convolution and matrix layers by the type of their first input, from layer descriptions, one a line."""
    counts: Counter[str] = Counter()
    for line in lines:
        if LAYER_TYPE.search(line) and (found := FIRST_TYPE.search(line)):
            counts[TYPE_NAMES.get(found.group(1), "F32")] += 1
    return dict(counts)
