"""The main job through the command line, on digits, as a shell script would do it."""

from __future__ import annotations

import json

import reporting

from rcompress.artifacts.checkpoint import read_checkpoint
from rcompress.artifacts.records import read_records

BACKENDS = ("openvino", "onnxruntime")


def test_prune_export_build_eval_bench_report_inspect(folder, rcompress):
    pruned = rcompress(
        "prune", "r20.pth", "--ratio", "0.5", "--finetune-epochs", "3", "-b", "32", "--threads", 2
    )
    assert (pruned.code, pruned.out) == (0, "r20-pruned50.pth\n")
    assert "parameters 272,474 -> " in pruned.err
    assert rcompress("export", "r20-pruned50.pth").out == "r20-pruned50.onnx\n"
    engines = [
        rcompress(
            "build-engine", "r20-pruned50.onnx", "--int8", "--backend", backend, "--calib-images", 64
        ).out.strip()
        for backend in BACKENDS
    ]
    assert engines == ["r20-pruned50-int8.xml", "r20-pruned50-int8.onnx"]
    scores = {}
    for name in ("r20.pth", "r20-pruned50.pth", "r20-pruned50.onnx", *engines):
        found = rcompress("eval", name, "--json")
        assert found.code == 0, found.err
        scores[name] = json.loads(found.out)["metrics"]["top1_percent"]
    assert scores["r20-pruned50.pth"] == scores["r20-pruned50.onnx"]
    assert min(scores.values()) > 90
    timed = rcompress("bench", "r20.pth", *engines, "-b", 1, "--iterations", 3, "--trials", 2, "--warmup", 1)
    assert timed.code == 0, timed.err
    assert [record.artifact for record in read_records(folder / "bench.result.json")] == ["r20.pth", *engines]
    assert rcompress("report", folder, "-o", "report.html").out == "report.html\n"
    assert "r20-pruned50-int8.xml" in (folder / "report.html").read_text()
    shown = json.loads(rcompress("inspect", engines[0], "--json").out)
    history = [step["command"] for step in shown["model"]["lineage"]]
    assert history == ["train", "prune", "export", "build-engine"]
    assert not list(folder.glob(".*"))


def test_untrained_checkpoints(tmp_path, rcompress, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = rcompress("train", "--arch", "resnet20", "--dataset", "digits", "--epochs", 0, "--json")
    answer = json.loads(made.out)
    assert (made.code, answer["output"]) == (0, "resnet20.pth")
    assert answer["metrics"]["top1_percent"] < 60
    told = read_checkpoint(tmp_path / "resnet20.pth").spec.lineage[0].options
    assert (told["arch"], told["image_size"]) == ("resnet20", 32)
    assert told.keys() == reporting.TRAIN["options"].keys()
    assert json.loads(rcompress("inspect", "resnet20.pth", "--json").out)["metrics"]["parameters"] == 272_474


def test_predict_on_image_files(folder, rcompress):
    from PIL import Image

    from rcompress.data import open_dataset

    images, labels = next(open_dataset("digits").split("test").batches(5))
    for position, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"{position}.png")
    shown = rcompress("predict", "r20.pth", *[f"{position}.png" for position in range(5)], "--json")
    guesses = json.loads(shown.out)
    found = [guesses[f"{position}.png"][0]["class_name"] for position in range(5)]
    assert sum(guess == str(label) for guess, label in zip(found, labels.tolist(), strict=True)) >= 4
    assert sum(guess["probability_percent"] for guess in guesses["0.png"]) <= 100.01
    assert "no such file" in rcompress("predict", "r20.pth", "missing.png").err


def test_eval_options(folder, rcompress):
    shown = rcompress(
        "eval", "r20.pth", "--per-class", "--confusion", "confusion.png", "-o", "here.result.json"
    )
    assert shown.code == 0, shown.err
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
    (record,) = read_records(folder / "here.result.json")
    assert sum(map(sum, record.context["confusion"])) == record.context["images"] == 500
    assert record.lineage[0]["command"] == "train"
    refused = rcompress("eval", "r20.pth", "--mean", "0,0,0")
    assert (refused.code, "already says" in refused.err) == (1, True)


def test_preprocessing_inside_the_graph_keeps_the_accuracy(folder, rcompress):
    plain = json.loads(rcompress("eval", "r20.pth", "--json").out)["metrics"]["top1_percent"]
    assert rcompress("export", "r20.pth", "--with-preprocessing", "-o", "inside.onnx").code == 0
    inside = json.loads(rcompress("eval", "inside.onnx", "--json").out)["metrics"]["top1_percent"]
    assert inside == plain


def test_public_network_gives_its_published_accuracy(test_data, data_dir, tmp_path, rcompress, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = test_data / "models/akamaster/resnet32-d509ac18.th"
    words = ["--arch", "resnet32", "--shortcut", "pad", "--dataset", "cifar10", "--data-dir", data_dir]
    norm = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    assert rcompress("import", source, *words, *norm, "-o", "r32.pth").code == 0
    assert rcompress("export", "r32.pth").code == 0
    built = rcompress("build-engine", "r32.onnx", "--int8", "--data-dir", data_dir)
    assert built.code == 0, built.err
    for name, least in (("r32.pth", 92.61), ("r32-int8.xml", 92.5)):
        found = json.loads(rcompress("eval", name, "--data-dir", data_dir, "--json").out)
        assert found["metrics"]["top1_percent"] >= least
        assert "imported weights" in found["notes"][0]
