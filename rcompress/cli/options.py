"""Options that mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Source = Annotated[Path, typer.Argument(help="The model file to read.", show_default=False)]
OutputPath = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="File to write (default: derived from the source's name)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no prose.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
Device = Annotated[
    str, typer.Option("--device", help="auto (a GPU where there is one), cpu, cuda or cuda:N.")
]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0: all cores.")]
BatchSize = Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images per batch.")]
RunBackend = Annotated[
    Literal["torch", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"] | None,
    typer.Option("--backend", help="Runtime, where several run the file (default: by its suffix)."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="RCOMPRESS_DATA_DIR",
        help="Folder under which the datasets lie (default: the user's cache folder).",
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="cifar10, cifar100, tiny-imagenet, digits, imagefolder:PATH or parquet:PATH "
        "(default: what the file names).",
    ),
]
ArchCode = Annotated[
    str | None,
    typer.Option(
        "--arch", help="Your own architecture, package.module:callable, where the file was built by one."
    ),
]
Shortcut = Annotated[
    Literal["projection", "pad"] | None, typer.Option(help="Shortcut of the CIFAR family (projection).")
]
Stem = Annotated[Literal["cifar", "imagenet"] | None, typer.Option(help="Stem of resnet18/34/50 (cifar).")]
Teachers = Annotated[
    list[Path] | None,
    typer.Option("--teacher", help="Network to learn from (.pth, .onnx, engine); again for several."),
]
Distill = Annotated[
    bool, typer.Option("--distill/--no-distill", help="Learn from the parent where no --teacher is named.")
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", help="Softness of the teacher's outputs (5).")
]
Alpha = Annotated[
    float | None, typer.Option("--alpha", help="Weight of the teacher against the labels, 0 to 1 (0.7).")
]
RecipeName = Annotated[
    Literal["default", "finetune", "trt-study", "cpu-study"],
    typer.Option("--recipe", help="Named recipe; the options below change it."),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help="TOML file with parts of the recipe (tune writes one); options go before it."
    ),
]
Epochs = Annotated[int | None, typer.Option("--epochs", min=0, help="Passes over the training split.")]
TrainingBatchSize = Annotated[int | None, typer.Option("--batch-size", "-b", min=1)]
LearningRate = Annotated[float | None, typer.Option("--learning-rate", "--lr", min=0, help="Its peak.")]
Optimizer = Annotated[
    Literal["sgd", "adamw"] | None, typer.Option("--optimizer", help="sgd has Nesterov momentum.")
]
Schedule = Annotated[Literal["onecycle", "cosine", "step"] | None, typer.Option("--schedule")]
WeightDecay = Annotated[float | None, typer.Option("--weight-decay", "--wd", min=0)]
LabelSmoothing = Annotated[float | None, typer.Option("--label-smoothing", min=0, max=0.9)]
Mixup = Annotated[float | None, typer.Option("--mixup", min=0, help="Alpha of mixup; 0: off.")]
Cutout = Annotated[int | None, typer.Option("--cutout", min=0, help="Side of the blanked square; 0: off.")]
Ema = Annotated[
    float | None, typer.Option("--ema", min=0, max=0.99999, help="Decay of the moving average; 0: off.")
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option("--precision", help="auto: BF16 on GPUs and on CPUs that multiply in BF16, FP32 elsewhere."),
]
Compile = Annotated[bool, typer.Option("--compile", help="Run the network through torch.compile.")]
ImageSize = Annotated[
    int | None,
    typer.Option("--image-size", min=8, max=1024, help="Side of the inputs for imagefolder sets (224)."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where a killed run with the same options stood.")
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard events.")]
BnReestimation = Annotated[
    bool,
    typer.Option(
        "--bn-reestimation/--no-bn-reestimation",
        help="Measure BatchNorm's statistics anew on training images before anything else.",
    ),
]
Importance = Annotated[
    Literal["l1", "l2", "bn-scale", "fpgm", "lamp", "taylor", "hessian", "activation", "random"],
    typer.Option("--importance", help="Channels of least importance go first."),
]
