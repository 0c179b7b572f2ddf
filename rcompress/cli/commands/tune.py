"""``rcompress tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli import options
from rcompress.cli.naming import beside
from rcompress.cli.output import Output, launched
from rcompress.cli.recipes import changed_recipe
from rcompress.cli.starting import builder_of
from rcompress.errors import RcompressError

if TYPE_CHECKING:
    from optuna import Study


def command(
    arch: Annotated[
        str | None, typer.Option("--arch", help="Architecture to train from nothing, as `train` takes it.")
    ] = None,
    dataset: options.Dataset = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The best recipe, for `train --config`.")
    ] = Path("best.toml"),
    init: Annotated[
        str | None, typer.Option("--init", help="Fine-tune a checkpoint, or `torchvision`'s weights.")
    ] = None,
    shortcut: options.Shortcut = None,
    stem: options.Stem = None,
    ranges: Annotated[
        Path | None,
        typer.Option("--ranges", help="TOML file, a table per part of the recipe (default: the package's)."),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", min=0, help="How many the study is to have at the end.")
    ] = 20,
    pruner: Annotated[
        Literal["median", "hyperband", "none"], typer.Option(help="What stops bad trials early.")
    ] = "median",
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            help="Optuna URL, or a .db (SQLite) or .journal file (default: NAME.db beside the output).",
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", help="Its name in the storage (default: the output's name).")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that share the work.")] = 1,
    from_trials: Annotated[
        Path | None, typer.Option("--from-trials", help="Begin the study with the trials of a CSV file.")
    ] = None,
    recipe: options.RecipeName = "default",
    config: options.Config = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Of every trial, in place of their range.")
    ] = None,
    precision: options.Precision = "auto",
    image_size: options.ImageSize = None,
    data_dir: options.DataDir = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search the recipe that trains a network best, by its validation accuracy.

    The study lives in its storage: the same command goes on with it, and may run several times at once. Beside the
    output: NAME.trials.csv, which --from-trials reads, and Optuna's plots, NAME.*.png and NAME.plots.html.
    A range in TOML: [learning_rate] with low = 0.01, high = 0.5, log = true; [schedule] with choices = ["cosine"].

    Example: rcompress tune --arch resnet20 --dataset digits --epochs 3 --trials 4 -o best.toml
    """
    builder = builder_of(init, arch, shortcut, stem, dataset, image_size)
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_named_output, require_output, write_atomic
        from rcompress.artifacts.machine import available_cores
        from rcompress.cli.session import open_settings
        from rcompress.search.ranges import read_ranges
        from rcompress.search.studies import StudyPlace, add_trials, require_optuna
        from rcompress.search.tune import Tuning, best_recipe
        from rcompress.search.tune_workers import Plan, tune_together
        from rcompress.training.recipe_file import recipe_toml
        from rcompress.training.start import Origin

        if launched()[1] > 1:
            raise RcompressError("tune", "was started by torchrun", "start it as it is, with --workers")
        origin = Origin(init, arch, builder, dataset, data_dir, image_size)
        inputs = [path for path in (ranges, config, from_trials, origin.source) if path]
        require_named_output(output, "recipe", ".toml", inputs)
        require_output(beside(output, ".trials.csv"), inputs)
        require_optuna()
        base = changed_recipe(recipe, config, epochs=epochs)
        tried = read_ranges(ranges, base)
        if epochs is not None:
            tried.pop("epochs", None)
        plan = Plan(
            StudyPlace(storage or str(beside(output, ".db")), study or output.stem),
            origin,
            Tuning(tried, base, trials, pruner),
            open_settings(device, threads, precision, seed=seed),
            threads or max(1, available_cores() // workers),
        )
        start = plan.start(out)
        with plan.study(start) as found:
            if from_trials is not None and found.get_trials(deepcopy=False):
                out.note(f"the study goes on with its own trials; {from_trials} only begins one")
            elif from_trials is not None:
                out.note(f"{add_trials(found, from_trials, tried)} trials taken from {from_trials}")
            tune_together(plan, start, found, workers, out)
            best = best_recipe(found, base)
            write_atomic(output, recipe_toml(best, _comment(found, start.spec.choice_split)))
            details = _beside(found, output, out)
        out.path(output, **details)


def _comment(study: Study, split: str) -> str:
    best = study.best_trial
    return (
        f"The best of study {study.study_name}: trial {best.number}, {study.best_value:.2f} % on {split},\n"
        "which chose it: `rcompress train --config` gives the accuracy on data that did not."
    )


def _beside(study: Study, output: Path, out: Output) -> dict[str, Any]:
    """Write the trials and the plots; what --json says of the study."""
    from rcompress.artifacts.files import write_atomic
    from rcompress.report.study_plots import study_pictures
    from rcompress.search.studies import trials_csv
    from rcompress.search.tune import counts

    write_atomic(beside(output, ".trials.csv"), trials_csv(study))
    pictures, page, missing = study_pictures(study)
    for name, content in pictures.items():
        write_atomic(beside(output, f".{name}.png"), content)
    write_atomic(beside(output, ".plots.html"), page.encode())
    for line in missing:
        out.note(line)
    best, states = study.best_trial, counts(study)
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    out.note(f"best trial {best.number}: {study.best_value:.2f} % on the split that chose it; trials: {told}")
    return {
        "best_trial": best.number,
        "validation_top1_percent": study.best_value,
        "parameters": best.params,
        "trials": dict(states),
    }
