"""Where a training starts: fresh networks, checkpoints on other data, torchvision's weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.data import open_dataset
from rcompress.errors import RcompressError
from rcompress.models import build_model, load_model
from rcompress.training import Recipe
from rcompress.training.start import fresh, from_checkpoint, from_torchvision, normalized_as, replace_head


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits")


@pytest.mark.parametrize("std", [(0.5,), (0.0, 0.5, 0.5)])
def test_a_recipes_normalisation_must_fit_the_images(digits, std):
    with pytest.raises(RcompressError, match="recipe: mean"):
        normalized_as(Recipe(mean=(0.5,) * 3, std=std), digits.preprocessing())


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("torchvision:alexnet", "does not take images of 3 x 32 x 32"),
        ("three_outputs:other", r"makes \(1, 3\)"),
    ],
)
def test_networks_that_do_not_fit_the_images_are_refused(digits, tmp_path, monkeypatch, arch, said):
    (tmp_path / "three_outputs.py").write_text(
        "import torch\n"
        "def other(num_classes):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RcompressError, match=said):
        fresh(arch, {}, digits, seed=0)


def test_a_head_of_unnamed_classes_stays(trained, tmp_path):
    loaded = load_model(trained)
    unnamed = replace(loaded.spec.preprocessing, dataset=None, class_names=())
    path = write_checkpoint(
        tmp_path / "m.pth", replace(loaded.spec, preprocessing=unnamed), loaded.module.state_dict()
    )
    start = from_checkpoint(path, None, "digits")
    assert torch.equal(start.module.fc.weight, loaded.module.fc.weight)
    assert start.spec.preprocessing.dataset == "digits"


def write_images(folder, classes):
    for part in ("train", "test"):
        for name in classes:
            (folder / part / name).mkdir(parents=True)
            for number in range(10):
                Image.new("RGB", (32, 32)).save(folder / part / name / f"{number}.png")


def test_going_on_from_a_checkpoint_with_other_classes(trained, tmp_path):
    write_images(tmp_path, "abc")
    start = from_checkpoint(trained, None, f"imagefolder:{tmp_path}")
    assert start.spec.num_classes == 3
    assert start.module(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert start.spec.preprocessing.class_names == ("a", "b", "c")
    assert start.spec.preprocessing.mean == load_model(trained).spec.preprocessing.mean


def test_classes_renamed_under_a_checkpoint_are_refused(tmp_path):
    write_images(tmp_path, "ab")
    begun = fresh("resnet20", {}, open_dataset(f"imagefolder:{tmp_path}", image_size=32), seed=0)
    path = write_checkpoint(tmp_path / "m.pth", begun.spec, begun.module.state_dict())
    assert from_checkpoint(path).spec.preprocessing.class_names == ("a", "b")
    for part in ("train", "test"):
        (tmp_path / part / "a").rename(tmp_path / part / "c")  # now the second, where the first was
    with pytest.raises(RcompressError, match=r"m\.pth: calls its class 0 'a', but .* 'b'"):
        from_checkpoint(path)


def test_new_head_keeps_the_features(trained):
    module = load_model(trained).module
    features = module.fc.in_features
    replace_head(module, 7)
    assert (module.fc.in_features, module.fc.out_features) == (features, 7)


@pytest.mark.parametrize("fault", [None, RuntimeError("invalid hash value")])
def test_torchvisions_download_says_nothing_on_stdout(digits, monkeypatch, capsys, fault):
    from torchvision import models

    def get_model(name, weights=None):
        if weights is not None:
            print("Downloading")
            if fault:
                raise fault
        return build_model("resnet18", 10, stem="imagenet")

    monkeypatch.setattr(models, "get_model", get_model)
    if fault:
        with pytest.raises(RcompressError, match="no pretrained resnet18"):
            from_torchvision("resnet18", {}, digits, 0)
    else:
        assert from_torchvision("resnet18", {}, digits, 0).pretrained
    assert capsys.readouterr().out == ""
