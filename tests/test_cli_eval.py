"""Several artifacts judged on the same images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.artifacts.records import read_records
from rcompress.artifacts.spec import Step
from rcompress.data import normalize, open_dataset
from rcompress.engines import evaluation
from rcompress.errors import RcompressError
from rcompress.measure.paired import paired
from rcompress.models import load_model


@pytest.fixture
def folder(folder):
    """r20.pth and a worse.pth, with noise on its weights."""
    worse(folder / "r20.pth", folder / "worse.pth")
    return folder


def worse(source, target, **changes):
    loaded = load_model(source)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in loaded.module.parameters():
            spread = parameter.std(correction=0)
            parameter += 0.5 * spread * torch.randn(parameter.shape, generator=generator)
    spec = replace(loaded.spec, **changes).with_step(Step("damage"))
    return write_checkpoint(target, spec, loaded.module.state_dict())


def right(path):
    loaded, split = load_model(path), open_dataset("digits").split("test")
    with torch.inference_mode():
        logits = [loaded.module(normalize(x, loaded.spec.preprocessing)) for x, _ in split.batches(250)]
    return (torch.cat(logits).argmax(1) == split.labels).numpy()


def test_differences_are_of_the_same_images(folder, rcompress):
    run = rcompress("eval", "r20.pth", "worse.pth", "--json", "--threads", 1)
    assert run.code == 0, run.err
    told = json.loads(run.out)
    (found,) = told["against_first"]
    pair = paired(right(folder / "worse.pth"), right(folder / "r20.pth"))
    assert pair.lost > 0
    assert (found["artifact"], found["lost"], found["gained"]) == ("worse.pth", pair.lost, pair.gained)
    tops = [record["metrics"]["top1_percent"] for record in told["records"]]
    assert found["top1_difference_points"] == pytest.approx(tops[1] - tops[0])
    assert found["top1_difference_points_low"] == pytest.approx(pair.interval_percent[0])
    for name, top in zip(("r20.pth", "worse.pth"), tops, strict=True):
        (record,) = read_records(folder / f"{name}.eval.result.json")
        assert (record.artifact, record.metrics["top1_percent"]) == (name, top)


def test_the_table_and_the_classes(folder, rcompress):
    assert rcompress("export", "r20.pth").code == 0
    run = rcompress("eval", "r20.pth", "r20.onnx", "worse.pth", "--per-class", "-o", "all.result.json")
    assert run.code == 0, run.err
    assert "digits test (500 images); points, images lost and gained: against r20.pth" in run.out
    rows = {line.split()[0]: line.split() for line in run.out.splitlines() if line.strip()}
    assert rows["r20.onnx"][4:9] == ["+0.00", "-0.55", "to", "+0.55", "0"]
    digits = [int(rows[str(digit)][1]) for digit in range(10)]
    assert sum(digits) == 500
    assert len(rows["0"]) == 5
    names = [record.artifact for record in read_records(folder / "all.result.json")]
    assert names == ["r20.pth", "r20.onnx", "worse.pth"]
    assert not list(folder.glob("*.eval.result.json"))


def test_a_folder_takes_a_record_of_each(folder, rcompress):
    (folder / "records").mkdir()
    run = rcompress("eval", "r20.pth", "worse.pth", "-o", "records")
    assert run.code == 0, run.err
    for name in ("r20.pth", "worse.pth"):
        (record,) = read_records(folder / "records" / f"{name}.eval.result.json")
        assert record.artifact == name
    assert not list(folder.glob("*.result.json"))


def test_images_that_chose_something_for_one_judge_none(folder, rcompress):
    loaded = load_model(folder / "r20.pth")
    chosen = loaded.spec.with_step(Step("prune", chosen_on="test-a"))
    write_checkpoint(folder / "chosen.pth", chosen, loaded.module.state_dict())
    told = json.loads(rcompress("eval", "r20.pth", "chosen.pth", "--json").out)
    assert [record["context"]["split"] for record in told["records"]] == ["test-b", "test-b"]
    assert told["against_first"][0]["lost"] == 0


def test_what_cannot_be_compared_is_refused_before_anything_runs(folder, rcompress):
    other = replace(load_model(folder / "r20.pth").spec.preprocessing, dataset="cifar10", class_names=())
    worse(folder / "r20.pth", folder / "other.pth", preprocessing=other)
    (folder / "sub").mkdir()
    shutil.copy("r20.pth", folder / "sub" / "r20.pth")
    for words, said in (
        (("r20.pth", "other.pth"), "is of cifar10, r20.pth of digits"),
        (("r20.pth", "sub/r20.pth"), "not the only r20.pth"),
        (("r20.pth", "missing.pth"), "no such file"),
        (("r20.pth", "worse.pth", "-o", "worse.pth"), "also the input"),
    ):
        run = rcompress("eval", *words)
        assert (run.code, run.out) == (1, ""), words
        assert said in run.err
        assert not list(folder.rglob("*.result.json"))
    assert rcompress("eval", "r20.pth", "worse.pth", "--confusion", "c.png").code == 2


def test_names_may_repeat_in_one_file(folder, rcompress):
    (folder / "sub").mkdir()
    shutil.copy("worse.pth", folder / "sub" / "r20.pth")
    run = rcompress("eval", "r20.pth", "sub/r20.pth", "-o", "both.result.json", "--json")
    assert run.code == 0, run.err
    records = read_records(folder / "both.result.json")
    assert len({record.sha256 for record in records}) == len(records) == 2
    assert np.diff([record.metrics["top1_percent"] for record in records])[0] < 0


def test_a_folder_that_is_not_there_is_made(folder, rcompress):
    run = rcompress("eval", "r20.pth", "worse.pth", "-o", "results/first")
    assert run.code == 0, run.err
    assert sorted(path.name for path in (folder / "results" / "first").iterdir()) == [
        "r20.pth.eval.result.json",
        "worse.pth.eval.result.json",
    ]


def test_a_common_file_holds_all_records_or_stays(folder, rcompress, monkeypatch):
    assert rcompress("eval", "r20.pth", "worse.pth", "-o", "all.result.json").code == 0
    before = (folder / "all.result.json").read_bytes()
    judged = evaluation.judge_engine

    def interrupted(engine, *words):
        if engine.info.path.name == "worse.pth":
            raise RcompressError("worse.pth", "broke", "mend it")
        return judged(engine, *words)

    monkeypatch.setattr(evaluation, "judge_engine", interrupted)
    run = rcompress("eval", "r20.pth", "worse.pth", "-o", "all.result.json", "--batch-size", 100)
    assert run.code == 1, run.err
    assert (folder / "all.result.json").read_bytes() == before
