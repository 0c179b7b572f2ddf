"""Tuning: ranges, studies that are shared and resumed, trials as CSV, on every kind of storage."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rcompress.artifacts.checkpoint import read_checkpoint, write_checkpoint
from rcompress.data import open_dataset
from rcompress.errors import RcompressError
from rcompress.models import build_model
from rcompress.search.ranges import TUNABLE, read_ranges
from rcompress.search.studies import StudyPlace, add_trials, open_study, trials_csv
from rcompress.search.tune import Tuning, best_recipe, counts, identity_of, tune
from rcompress.search.tune_workers import Plan
from rcompress.training import Recipe, Settings, Trainer
from rcompress.training.recipe_file import recipe_from_toml, recipe_toml
from rcompress.training.start import Origin, Start, fresh
from tests.tiny import tiny_checkpoint

optuna = pytest.importorskip("optuna", reason="the extra `tune` is not installed")

CPU = Settings(torch.device("cpu"))
BASE = Recipe(epochs=3, batch_size=32, ema=0.0)
RANGES = """
[learning_rate]
low = 0.01
high = 0.5
log = true

[batch_size]
choices = [16, 32]
"""
NETWORK = """
from torch import nn


def build(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(128, num_classes),
    )
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "ranges.toml").write_text(RANGES)
    (tmp_path / "quick.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def start():
    """A network that learns digits a little in no time."""
    from rcompress.artifacts.spec import ModelSpec

    dataset = open_dataset("digits")
    space: dict = {}
    exec(NETWORK, space)
    torch.manual_seed(0)
    return Start(space["build"](10), ModelSpec(10, dataset.preprocessing(), "quick:build"), dataset)


@pytest.fixture
def tuning(folder):
    return Tuning(read_ranges(folder / "ranges.toml", BASE), BASE, trials=3)


@pytest.fixture
def opened():
    """Open studies that are closed at the end of the test."""
    with ExitStack() as stack:

        def enter(tuning, start, storage, name="s"):
            identity = identity_of(tuning, start, CPU)
            return stack.enter_context(
                open_study(StudyPlace(str(storage), name), tuning.pruner, tuning.epochs, identity)
            )

        yield enter


def test_the_packages_ranges_cover_what_is_tuned():
    ranges = read_ranges(None, Recipe())
    assert set(ranges) == {"learning_rate", "batch_size", "optimizer", "weight_decay", "schedule", "epochs"}
    assert Tuning(ranges, Recipe(), 1).epochs == 20
    assert ranges["epochs"].distribution() == optuna.distributions.IntDistribution(5, 20, step=5)
    assert ranges["learning_rate"].distribution() == optuna.distributions.FloatDistribution(
        0.005, 0.5, log=True
    )
    assert "mean" not in TUNABLE


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("# nothing", "holds no ranges"),
        ("[learning_rat]\nlow = 1\nhigh = 2", "learning_rat"),
        ("[learning_rate]\nlow = 1", "wrong kind"),
        ("[learning_rate]\nlow = 2\nhigh = 1", "low below high"),
        ("[learning_rate]\nlow = 0.0\nhigh = 1.0\nlog = true", "above 0"),
        ("[learning_rate]\nlow = 0.0\nhigh = inf", "low below high"),
        ("[epochs]\nlow = 1\nhigh = 4\nstep = 0.5", "step"),
        ("[epochs]\nlow = 1.5\nhigh = 4", "wrong kind"),
        ("[optimizer]\nchoices = ['sgd', 'lion']", "lion"),
        ("[optimizer]\nlow = 'adamw'\nhigh = 'sgd'", "low below high"),
        ("[schedule]\nchoices = 'cosine'", "as a list"),
        ("learning_rate = 3", "no range of a recipe"),
        ("[learning_rate\n", "no TOML"),
    ],
)
def test_ranges_that_cannot_be_tried_are_refused(tmp_path, text, word):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(RcompressError, match=re.escape(word)):
        read_ranges(tmp_path / "r.toml", Recipe())


def test_a_recipe_survives_its_file(tmp_path):
    recipe = Recipe(epochs=7, learning_rate=0.123, schedule="step", mean=(0.5, 0.5, 0.5))
    (tmp_path / "r.toml").write_bytes(recipe_toml(recipe, "said\nabove"))
    assert recipe_from_toml(tmp_path / "r.toml", Recipe()) == recipe


@pytest.mark.parametrize("storage", ["s.db", "s.journal"])
def test_a_study_goes_on_where_it_stood(start, tuning, folder, storage, opened):
    before = {name: tensor.clone() for name, tensor in start.module.state_dict().items()}
    tune(opened(tuning, start, folder / storage), start, replace(tuning, trials=1), CPU)
    study = opened(tuning, start, folder / storage)
    tune(study, start, tuning, CPU)
    assert len(study.trials) == 3
    assert all(torch.equal(before[name], tensor) for name, tensor in start.module.state_dict().items())
    once = opened(tuning, start, folder / "once.db")
    tune(once, start, tuning, CPU)
    assert [t.params for t in once.trials] == [t.params for t in study.trials]
    assert [t.values for t in once.trials] == [t.values for t in study.trials]
    best = max(study.trials, key=lambda t: t.value or 0)
    assert best_recipe(study, BASE) == replace(BASE, **best.params)
    assert study.best_value == max(best.intermediate_values.values())


def test_bad_trials_are_stopped_early(start, folder, opened):
    (folder / "r.toml").write_text("[learning_rate]\nchoices = [0.1, 1e-6]\n")
    recipe = replace(BASE, epochs=4)
    tuning = Tuning(read_ranges(folder / "r.toml", recipe), recipe, trials=10)
    study = opened(tuning, start, folder / "s.db")
    for _ in range(4):
        study.enqueue_trial({"learning_rate": 0.1})
    study.enqueue_trial({"learning_rate": 1e-6})
    tune(study, start, replace(tuning, trials=5), CPU)
    assert counts(study) == {"complete": 4, "pruned": 1}
    assert len(study.trials[-1].intermediate_values) < 4


def test_a_trial_that_diverges_ends_alone(start, folder, opened):
    (folder / "r.toml").write_text("[learning_rate]\nchoices = [0.1, 1e30]\n")
    tuning = Tuning(read_ranges(folder / "r.toml", BASE), BASE, trials=2)
    study = opened(tuning, start, folder / "s.db")
    study.enqueue_trial({"learning_rate": 1e30})
    tune(study, start, replace(tuning, trials=1), CPU)
    with pytest.raises(RcompressError, match=r"no trial has finished.*no longer finite"):
        best_recipe(study, BASE)
    study.enqueue_trial({"learning_rate": 0.1})
    tune(study, start, tuning, CPU)
    assert best_recipe(study, BASE).learning_rate == 0.1


def test_another_search_is_refused(start, tuning, folder, opened):
    opened(tuning, start, folder / "s.db")
    other = replace(tuning, base=replace(BASE, momentum=0.5))
    with pytest.raises(RcompressError, match=r"another recipe; .*--study"):
        opened(other, start, folder / "s.db")
    opened(other, start, folder / "s.db", name="t")


@pytest.mark.parametrize(
    "storage", ["nonsense://x", "/proc/none/s.db", "postgresql://me:secret@127.0.0.1:1/none"]
)
def test_storages_that_cannot_be_opened_are_named_without_their_password(storage):
    with pytest.raises(RcompressError, match="storage of Optuna") as caught:
        open_study(StudyPlace(storage, "s")).__enter__()
    assert "secret" not in str(caught.value)


def test_a_study_is_rebuilt_from_its_trials(start, tuning, folder, opened):
    study = opened(tuning, start, folder / "s.db")
    tune(study, start, tuning, CPU)
    (folder / "t.csv").write_bytes(trials_csv(study))
    again = opened(tuning, start, folder / "again.db")
    assert add_trials(again, folder / "t.csv", tuning.ranges) == 3
    for one, other in zip(study.trials, again.trials, strict=True):
        assert (one.params, one.values, one.state) == (other.params, other.values, other.state)
        assert one.intermediate_values == other.intermediate_values
    assert (folder / "t.csv").read_bytes() == trials_csv(again)
    with pytest.raises(RcompressError, match="has trials already"):
        add_trials(again, folder / "t.csv", tuning.ranges)


@pytest.mark.parametrize(
    "row",
    [
        "0,COMPLETE,nan,0.1,16",
        "0,COMPLETE,90,5.0,16",
        "0,COMPLETE,90,0.1,17",
        "0,COMPLETE,,0.1,16",
        "0,COMPLETE",
    ],
)
def test_trials_that_cannot_be_read_are_refused(start, tuning, folder, row, opened):
    header = "number,state,value,params_learning_rate,params_batch_size"
    (folder / "t.csv").write_text(f"{header}\n{row}\n")
    with pytest.raises(RcompressError, match="line 2"):
        add_trials(opened(tuning, start, folder / "s.db"), folder / "t.csv", tuning.ranges)


def by_command(rcompress, *words):
    run = rcompress(
        "tune", "--arch", "quick:build", "--dataset", "digits", "--ranges", "ranges.toml", "--epochs", 2,
        "--json", *words,
    )  # fmt: skip
    assert run.code == 0, run.err
    return json.loads(run.out)


def test_two_workers_share_a_study_and_train_reads_the_best(folder, rcompress):
    answer = by_command(rcompress, "--workers", 2, "--trials", 4, "-o", "best.toml")
    assert 4 <= sum(answer["trials"].values()) <= 5
    rows = list(csv.DictReader((folder / "best.trials.csv").read_text().splitlines()))
    assert [row["number"] for row in rows] == [str(number) for number in range(len(rows))]
    assert len({row["params_learning_rate"] for row in rows}) == len(rows)  # workers do not try the same
    best = tomllib.loads((folder / "best.toml").read_text())
    assert best["learning_rate"] == answer["parameters"]["learning_rate"]
    for name in ("history", "importance", "parallel", "contour"):
        assert (folder / f"best.{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "best.plots.html").read_text()
    assert page.count("Plotly.newPlot(") >= 4
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
    made = rcompress(
        "train",
        "--arch",
        "quick:build",
        "--dataset",
        "digits",
        "--config",
        "best.toml",
        "-o",
        "t.pth",
        "--json",
    )
    assert made.code == 0, made.err
    metrics = json.loads(made.out)["metrics"]
    assert metrics["validation_top1_percent"] == pytest.approx(answer["validation_top1_percent"], abs=0.01)


def test_trials_alone_give_the_best_and_the_plots(folder, rcompress):
    rows = ["number,state,value,params_learning_rate,params_batch_size"]
    rows += [f"{n},COMPLETE,{70 + n},{0.02 * (n + 1)},{16 * (1 + n % 2)}" for n in range(5)]
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    answer = by_command(rcompress, "--trials", 0, "--from-trials", "t.csv", "-o", "b.toml")
    assert (answer["best_trial"], answer["parameters"]["learning_rate"]) == (4, 0.1)
    assert (folder / "b.importance.png").exists()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a database of a server of its own, on a socket of its own."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (the extra `tune`)")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses root
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True, user=user, cwd="/").strip())

    def run(program: str, *words: str) -> None:
        command = [str(programs[-1].with_name(program)), *words]
        subprocess.run(command, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL, timeout=60)

    server = ("-D", str(folder / "data"))
    run("initdb", *server, "-U", "tuner", "-A", "trust", "--no-sync")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    run("pg_ctl", *server, "-w", "-o", options, "-l", str(folder / "log"), "start")
    try:
        yield f"postgresql+psycopg://tuner@/postgres?host={folder}"
    finally:
        run("pg_ctl", *server, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def test_two_workers_share_a_postgresql_server(folder, postgres, rcompress):
    answer = by_command(rcompress, "--workers", 2, "--trials", 3, "--storage", postgres, "--study", "shared")
    assert 3 <= sum(answer["trials"].values()) <= 4
    with open_study(StudyPlace(postgres, "shared")) as kept:
        assert kept.best_value == answer["validation_top1_percent"]
    assert not (folder / "best.db").exists()


def test_what_decides_a_trial_is_the_studys_identity(tuning):
    start = fresh("resnet20", {}, open_dataset("digits"), 0)
    known = identity_of(tuning, start, CPU)
    other = replace(start.spec, preprocessing=replace(start.spec.preprocessing, mean=(0.1,) * 3))
    others = (
        identity_of(tuning, replace(start, pretrained=True), CPU),
        identity_of(tuning, replace(start, spec=other), CPU),
        identity_of(tuning, start, replace(CPU, seed=1)),
        identity_of(tuning, start, replace(CPU, precision="bf16")),
    )
    assert all(one != known for one in others)


def test_every_worker_draws_the_same_new_head(tmp_path, tuning):
    source = tiny_checkpoint(tmp_path / "tiny.pth")
    spec = replace(read_checkpoint(source).spec, num_classes=7)  # digits have ten
    write_checkpoint(source, spec, build_model("resnet20", 7).state_dict())
    origin = Origin(str(source), None, {}, "digits")
    plan = Plan(StudyPlace(str(tmp_path / "s.db"), "s"), origin, tuning, CPU, 1)
    heads = []
    for drawn_before in (1, 2):
        torch.manual_seed(drawn_before)
        heads.append(plan.start().module.fc.weight)
    assert heads[0].shape[0] == 10
    assert torch.equal(*heads)


def test_a_trial_without_memory_says_so_and_the_next_one_comes(tuning, opened, monkeypatch, tmp_path):
    def run(self, *_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(Trainer, "run", run)
    start = fresh("resnet20", {}, open_dataset("digits"), 0)
    study = opened(tuning, start, f"sqlite:///{tmp_path / 's.db'}")
    tune(study, start, tuning, CPU)
    trials = study.get_trials()
    assert len(trials) == 3
    assert all("out of memory; narrow the range of batch_size" in t.user_attrs["failure"] for t in trials)


def test_inputs_are_no_outputs(folder, rcompress):
    words = ("tune", "--arch", "quick:build", "--dataset", "digits", "--trials", 1)
    (folder / "best.trials.csv").write_text("number\n")
    for more, said in (
        (("-o", "r20.pth"), "is no name for a recipe"),
        (("--from-trials", "best.trials.csv"), "is also the input"),
    ):
        run = rcompress(*words, *more)
        assert run.code == 1 and said in run.err
