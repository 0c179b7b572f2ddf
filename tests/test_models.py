"""Architectures, rebuilding from shapes, weights from elsewhere."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.errors import RcompressError
from rcompress.models import ARCHITECTURES, build_model, load_model
from rcompress.models.cifar_resnet import FixedShortcut
from rcompress.models.foreign import ForeignError, guess_architectures, module_from_foreign
from rcompress.models.importing import ImportOptions, import_checkpoint

PREPROCESSING = Preprocessing((3, 32, 32), (0.5,) * 3, (0.25,) * 3)
PARAMETERS = {  # He et al. 2016, table 6 (0.27 M, 0.46 M, ...), with projection shortcuts; torchvision's for the rest
    "resnet20": 272_474,
    "resnet32": 466_906,
    "resnet44": 661_338,
    "resnet56": 855_770,
    "resnet110": 1_730_714,
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
}


def save(path, module, arch, **options):
    return write_checkpoint(path, ModelSpec(10, PREPROCESSING, arch, options), module.state_dict())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_parameters(arch):
    with torch.device("meta"):
        module = build_model(arch, 10)
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[arch]


def test_fixed_shortcut_is_slice_and_pad():
    images = torch.randn(2, 16, 8, 8)
    expected = F.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
    assert torch.equal(FixedShortcut(16, 32, 2)(images), expected)


def test_imagenet_stem_is_torchvisions_own():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    reference = resnet18(num_classes=10).eval()
    module = build_model("resnet18", 10, stem="imagenet").eval()
    module.load_state_dict(reference.state_dict())
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(module(images), reference(images))


@pytest.mark.parametrize("arch", ["resnet20", "resnet18", "torchvision:mobilenet_v2"])
def test_reload_gives_equal_outputs(tmp_path, arch):
    module = build_model(arch, 10).eval()
    loaded = load_model(save(tmp_path / "m.pth", module, arch))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.module(images), module(images))


def test_shapes_and_dtypes_come_from_the_file(tmp_path):
    module = build_model("resnet20", 10).eval()
    state = module.state_dict()
    state["fc.weight"] = state["fc.weight"].double()
    state["fc.bias"] = state["fc.bias"].double()
    path = write_checkpoint(tmp_path / "m.pth", ModelSpec(10, PREPROCESSING, "resnet20"), state)
    with pytest.raises(RcompressError, match="do not make a resnet20"):
        load_model(path)  # float features meet a double head: found by the forward pass, not by loading


def test_several_filters_for_each_input_come_back(tmp_path, monkeypatch):
    """A depthwise convolution with a multiplier, whole and with inputs removed."""
    (tmp_path / "multiplied.py").write_text(
        "import torch\n"
        "def net(num_classes):\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 16, 3, groups=8),\n"
        "        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    whole = build_model("multiplied:net", 10)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(
        load_model(save(tmp_path / "m.pth", whole, "multiplied:net"), "multiplied:net").module(images),
        whole(images),
    )
    cut = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 10, 3, groups=5), *whole[2:4], nn.Linear(10, 10))
    assert torch.equal(
        load_model(save(tmp_path / "c.pth", cut, "multiplied:net"), "multiplied:net").module(images),
        cut(images),
    )


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_heads_answer_with_logits_alone(arch):
    with torch.device("meta"):
        module = build_model(f"torchvision:{arch}", 10).train()
        assert module(torch.zeros(2, 3, 96, 96)).shape == (2, 10)


@pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
def test_tensors_that_do_not_fit_are_refused(tmp_path, fault):
    state = build_model("resnet20", 10).state_dict()
    if fault == "missing":
        del state["bn1.weight"]
    elif fault == "extra":
        state["surprise"] = torch.zeros(1)
    else:
        state["layer1.0.conv1.weight"] = torch.zeros(7, 16, 3, 3)
    path = write_checkpoint(tmp_path / "m.pth", ModelSpec(10, PREPROCESSING, "resnet20"), state)
    with pytest.raises(RcompressError, match=r"m\.pth: its tensors do not make a resnet20"):
        load_model(path)


def test_a_file_never_names_code_to_run(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def net(num_classes):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    module = build_model("mine:net", 10)
    path = save(tmp_path / "m.pth", module, "mine:net")
    with pytest.raises(RcompressError, match="add --arch mine:net"):
        load_model(path)
    assert isinstance(load_model(path, "mine:net").module, torch.nn.Sequential)


@pytest.mark.parametrize(
    ("arch", "options"),
    [("resnet21", {}), ("resnet20", {"stem": "cifar"}), ("resnet18", {"stem": "vit"}), ("no_such:thing", {})],
)
def test_unknown_architectures(arch, options):
    with pytest.raises(RcompressError, match=arch):
        build_model(arch, 10, **options)


def foreign_state(shortcut):
    state = build_model("resnet20", 10, shortcut=shortcut).state_dict()
    return {
        f"module.{name.replace('fc.', 'linear.')}": tensor
        for name, tensor in state.items()
        if "num_batches" not in name and not (shortcut == "pad" and "downsample" in name)
    }


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_foreign_weights_are_guessed_and_imported(tmp_path, shortcut):
    source = tmp_path / "foreign.pth"
    torch.save({"state_dict": foreign_state(shortcut)}, source)
    with pytest.raises(RcompressError, match=f"--arch resnet20 --shortcut {shortcut}"):
        load_model(source)
    target = tmp_path / "r20.pth"
    spec = import_checkpoint(source, target, ImportOptions("resnet20", PREPROCESSING, {"shortcut": shortcut}))
    assert spec.imported
    assert load_model(target).spec.options == {"shortcut": shortcut}


def test_wrong_architecture_names_the_right_one(tmp_path):
    source = tmp_path / "foreign.pth"
    torch.save(foreign_state("pad"), source)
    with pytest.raises(RcompressError, match="they fit --arch resnet20 --shortcut pad"):
        import_checkpoint(source, tmp_path / "x.pth", ImportOptions("resnet32", PREPROCESSING))
    assert not (tmp_path / "x.pth").exists()


def test_a_network_that_does_not_take_the_images_is_neither_imported_nor_opened(tmp_path, monkeypatch):
    """As torchvision's ViTs, which assert the size of their images; here without a word."""
    (tmp_path / "choosy.py").write_text(
        "import torch\n"
        "class Choosy(torch.nn.Linear):\n"
        "    def forward(self, images):\n"
        "        assert images.shape[2] == 64\n"
        "        return super().forward(images.mean((2, 3)))\n"
        "def net(num_classes):\n"
        "    return Choosy(3, num_classes)\n"
    )
    monkeypatch.chdir(tmp_path)
    module = build_model("choosy:net", 10)
    torch.save(module.state_dict(), tmp_path / "foreign.pth")
    with pytest.raises(
        RcompressError, match=r"foreign\.pth: does not take images of 3 x 32 x 32 .*AssertionE"
    ):
        import_checkpoint(
            tmp_path / "foreign.pth", tmp_path / "x.pth", ImportOptions("choosy:net", PREPROCESSING)
        )
    assert not (tmp_path / "x.pth").exists()
    path = save(tmp_path / "m.pth", module, "choosy:net")
    with pytest.raises(RcompressError, match=r"m\.pth: .* do not make a choosy:net \(AssertionError\)"):
        load_model(path, "choosy:net")


def test_foreign_shapes_are_compared():
    state = build_model("resnet20", 10).state_dict() | {"bn1.weight": torch.zeros(3)}
    with pytest.raises(ForeignError, match=r"bn1\.weight"):
        module_from_foreign("resnet20", {}, state)
    assert guess_architectures(state) == []


def test_public_resnet32_is_recognised(test_data):
    from rcompress.artifacts.checkpoint import load_tensors, unwrap_state_dict

    state = unwrap_state_dict(load_tensors(test_data / "models/akamaster/resnet32-d509ac18.th"))
    assert state is not None
    assert guess_architectures(state) == [("resnet32", {"shortcut": "pad"})]
