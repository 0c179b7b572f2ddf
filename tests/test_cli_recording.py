"""The history of a file in the words that were typed."""

from __future__ import annotations

import json
import shlex

import pytest

from rcompress.artifacts.checkpoint import read_checkpoint, write_checkpoint
from rcompress.artifacts.invocation import INVOCATION
from rcompress.artifacts.spec import ModelSpec, Step
from rcompress.cli.recording import FOLDERS
from rcompress.report.lineage import command_texts
from tests import tiny


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.tiny_checkpoint(tmp_path / "r20.pth")
    (tmp_path / "my models").mkdir()
    return tmp_path


def commands(rcompress, name):
    return command_texts(json.loads(rcompress("inspect", name, "--json").out)["model"]["lineage"])


def test_typed_again_the_words_make_the_same_file(folder, rcompress):
    first = rcompress(
        *("prune", "r20.pth", "--ratio", 0.5, "-o", "my models/a b.pth", "--round-to", 4, "--threads", 1),
        *("--no-bn-reestimation", "--ignore", "fc", "--ignore", "layer1.0.conv1", "-q"),
    )
    assert first.code == 0, first.err
    text = commands(rcompress, "my models/a b.pth")[-1]
    words = shlex.split(text)
    assert words[:2] == ["prune", "r20.pth"]
    assert words[words.index("--output") + 1] == "a b.pth"  # where it lay is nobody else's business
    assert [words[at + 1] for at, word in enumerate(words) if word == "--ignore"] == ["fc", "layer1.0.conv1"]
    assert "--no-bn-reestimation" in words
    assert not {"--threads", "--quiet", "-q"} & set(words)  # they change nothing in the file
    assert rcompress(*words).code == 0
    sizes = [
        json.loads(rcompress("inspect", name, "--json").out)["metrics"]["parameters"]
        for name in ("my models/a b.pth", "a b.pth")
    ]
    assert sizes[0] == sizes[1] < 272_474
    assert f"rcompress {text}" in rcompress("inspect", "a b.pth").out.splitlines()


def test_folders_are_told_of_no_text(folder, rcompress):
    words = ("distill", "--teacher", "r20.pth", "--epochs", 0, "-o", "d.pth", "--dataset", "digits")
    run = rcompress(*words, "--student", folder / "r20.pth")
    assert run.code == 0, run.err
    assert "--student r20.pth" in commands(rcompress, "d.pth")[-1]
    assert str(folder) not in rcompress("inspect", "d.pth", "--json").out.replace(f"{folder}/d.pth", "")
    assert FOLDERS.sub("", "imagefolder:/home/me/pets:512") == "imagefolder:pets:512"
    assert FOLDERS.sub("", "layer1.0=layer2.0") == "layer1.0=layer2.0"


def test_words_that_are_not_typed_are_not_told(folder, rcompress):
    assert rcompress("export", "r20.pth").code == 0
    assert commands(rcompress, "r20.onnx")[-1] == "export r20.pth"


def test_several_steps_of_one_command_are_one_command():
    typed = {"command": "export", "invocation": ["build-engine", "a.pth", "--int8"]}
    steps = [{"command": "train"}, typed, {**typed, "command": "build-engine"}]
    assert command_texts(steps) == ["train", "build-engine a.pth --int8"]


def test_words_from_a_file_are_quoted_for_the_shell():
    planted = {"command": "prune", "invocation": ["prune", "a.pth; rm -rf ~", "$(id)"]}
    assert command_texts([planted]) == ["prune 'a.pth; rm -rf ~' '$(id)'"]


def test_words_of_a_file_do_not_steer_the_terminal(folder, rcompress):
    erase = "\x1b[2K\x1b[1A"
    read = read_checkpoint(folder / "r20.pth")
    step = Step(f"prune{erase}", {"note": erase}, notes=(erase,), invocation=("prune", f"a.pth{erase}"))
    write_checkpoint(folder / "planted.pth", read.spec.with_step(step), read.state_dict)
    shown = rcompress("inspect", "planted.pth")
    assert shown.code == 0, shown.err
    assert "\x1b" not in shown.out + shown.err
    assert "rcompress prune 'a.pth\ufffd[2K\ufffd[1A'" in shown.out.splitlines()


def test_a_step_outlives_the_command_and_a_script_types_nothing():
    assert Step("prune").invocation == ()
    token = INVOCATION.set(("prune", "a.pth"))
    spec = tiny.tiny_spec().with_step(Step("prune"))
    INVOCATION.reset(token)
    assert ModelSpec.from_dict(spec.to_dict()).lineage[-1].invocation == ("prune", "a.pth")
    old = spec.to_dict()
    del old["lineage"][-1]["invocation"]
    assert ModelSpec.from_dict(old).lineage[-1].invocation == ()
