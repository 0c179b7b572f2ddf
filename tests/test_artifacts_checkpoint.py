"""Checkpoints: tensors and primitives only, and nothing in a file is trusted."""

from __future__ import annotations

import pickle
import zipfile

import pytest
import torch

from rcompress.artifacts.checkpoint import (
    ForeignCheckpointError,
    load_tensors,
    read_checkpoint,
    unwrap_state_dict,
    write_checkpoint,
)
from rcompress.artifacts.spec import FORMAT, ModelSpec, Preprocessing, SpecError, Step
from rcompress.errors import RcompressError

SPEC = ModelSpec(
    2,
    Preprocessing((3, 8, 8), (0.5,) * 3, (0.25,) * 3, "digits", ("a", "b")),
    "resnet20",
    {"shortcut": "pad"},
).with_step(Step("train", {"epochs": 1}, metrics={"top1_percent": 50.0}, chosen_on="validation"))


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_round_trip(tmp_path):
    path = write_checkpoint(tmp_path / "m.pth", SPEC, {"w": torch.arange(6.0).view(2, 3)})
    read = read_checkpoint(path)
    assert read.spec == SPEC
    assert torch.equal(read.state_dict["w"], torch.arange(6.0).view(2, 3))


def test_plain_torch_opens_it(tmp_path):
    path = write_checkpoint(tmp_path / "m.pth", SPEC, {"w": torch.ones(3)})
    content = torch.load(path, weights_only=True)
    assert content["format"] == FORMAT
    assert content["model"]["lineage"][0]["metrics"] == {"top1_percent": 50.0}


def test_a_view_does_not_save_its_whole_storage(tmp_path):
    path = write_checkpoint(tmp_path / "m.pth", SPEC, {"w": torch.zeros(1_000_000)[:10]})
    assert path.stat().st_size < 10_000


def test_code_is_refused_and_does_not_run(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    torch.save({"format": FORMAT, "model": Evil()}, path)
    with pytest.raises(RcompressError, match="Python objects"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RcompressError, match=r"evil\.pth: "):
        read_checkpoint(path)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("kept", [10, 500, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path, kept):
    path = write_checkpoint(tmp_path / "m.pth", SPEC, {"w": torch.randn(1000)})
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    with pytest.raises(RcompressError, match=r"m\.pth: "):
        read_checkpoint(path)


def test_an_archive_that_inflates_is_refused(tmp_path):
    path = write_checkpoint(tmp_path / "m.pth", SPEC, {"w": torch.zeros(1_000_000)})
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(RcompressError, match="unpack to more"):
        read_checkpoint(bomb)


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    path = tmp_path / "m.pth"
    torch.save(
        {"format": FORMAT, "model": SPEC.to_dict(), "state_dict": {"w": torch.zeros(1).expand(10**9)}}, path
    )
    with pytest.raises(RcompressError, match="claims more values"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "best_prec1": 92.6},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": state},
    ],
    ids=["plain", "wrapped", "data-parallel", "model-key"],
)
def test_foreign_weights_are_recognised(tmp_path, wrap):
    path = tmp_path / "foreign.pth"
    torch.save(wrap({"conv.weight": torch.ones(2, 2)}), path)
    assert list(unwrap_state_dict(load_tensors(path)) or {}) == ["conv.weight"]
    with pytest.raises(ForeignCheckpointError, match="rcompress import"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": 0},
        {"num_classes": "ten"},
        {"arch": "os; rm"},
        {"preprocessing": None},
        {"lineage": "none"},
        {"preprocessing": {"input_size": [3, 10**9, 8], "mean": [0.5] * 3, "std": [0.5] * 3}},
        {"preprocessing": {"input_size": [3, 8, 8], "mean": [0.5] * 3, "std": [0.5, 0.5, 0.0]}},
        {"preprocessing": {"input_size": [3, 8, 8], "mean": [10**400, 0, 0], "std": [0.5] * 3}},
        {"preprocessing": {**SPEC.to_dict()["preprocessing"], "in_graph": torch.zeros(2)}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_broken_descriptions_are_refused(change):
    with pytest.raises(SpecError):
        ModelSpec.from_dict(SPEC.to_dict() | change)


def test_choices_of_imported_networks_use_one_half_of_the_test_split():
    imported = ModelSpec(2, SPEC.preprocessing, "resnet20").with_step(Step("import"))
    assert (imported.choice_split, imported.report_split) == ("test-a", "test")
    tuned = imported.with_step(Step("train", chosen_on="test-a"))
    assert tuned.report_split == "test-b"
    assert (SPEC.choice_split, SPEC.report_split) == ("validation", "test")
