"""Structured pruning: the right channels go, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.errors import RcompressError
from rcompress.methods.prune import PruneOptions, kept_width, prune
from rcompress.models import build_model, load_model

SIZE = (3, 32, 32)


def randomised(arch, **options):
    """Untrained weights, but BatchNorm statistics as different from the start as trained ones."""
    torch.manual_seed(0)
    module = build_model(arch, 10, **options).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module


def kill_first_half(module):
    """Make the first half of every layer's channels exactly zero, wherever they are made or read."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d) and layer.weight.requires_grad:
                layer.weight[: layer.out_channels // 2] = 0
                if layer.in_channels > 3:
                    layer.weight[:, : layer.in_channels // 2] = 0
            elif isinstance(layer, nn.BatchNorm2d):
                for tensor in (layer.weight, layer.bias, layer.running_mean):
                    tensor[: layer.num_features // 2] = 0
            elif isinstance(layer, nn.Linear):
                layer.weight[:, : layer.in_features // 2] = 0


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("resnet20", {}),
        ("resnet32", {}),
        ("resnet56", {}),
        ("resnet18", {}),
        ("resnet34", {"stem": "imagenet"}),
        ("resnet50", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value.values()),
)
def test_removing_dead_channels_keeps_the_outputs(arch, options):
    module = randomised(arch, **options)
    kill_first_half(module)
    images = torch.randn(2, *SIZE)
    expected = module(images)
    report = prune(module, SIZE, PruneOptions(0.5, "l1", round_to=1))
    assert all(new == old // 2 for old, new in report.widths.values())
    torch.testing.assert_close(module(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ["resnet20", "resnet32"])
def test_padding_shortcuts_keep_their_coupling(arch):
    """Dead channels of stage k sit where the padding shortcut puts them: k's first half is not the next one's."""
    module = randomised(arch, shortcut="pad")
    dead = {16: [1, 4, 9], 32: [0, 9, 12, 17], 64: [2, 16, 25, 28, 33, 60]}
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for tensor in (layer.weight, layer.bias):
                    tensor[dead[layer.num_features]] = 0
    kept = sorted(set(range(64)) - set(dead[64]))
    prune(module, SIZE, PruneOptions(3 / 32, "l2", round_to=1))
    assert module.fc.in_features <= len(kept)
    shortcut = module.layer3[0].downsample
    assert set(shortcut.weight.unique().tolist()) <= {0.0, 1.0}
    assert not shortcut.weight.requires_grad
    assert module(torch.randn(2, *SIZE)).shape == (2, 10)


def test_pad_shortcut_dead_channels_in_the_whole_stage(arch="resnet20"):
    module = randomised(arch, shortcut="pad")
    with torch.no_grad():  # stage 1 channel 3 arrives as stage 2 channel 3 + 8 and stage 3 channel 11 + 16
        for stage, channel in ((None, 3), ("layer1", 3), ("layer2", 11), ("layer3", 27)):
            layers = [module.bn1] if stage is None else [b.bn2 for b in getattr(module, stage)]
            for layer in layers:
                layer.weight[channel] = layer.bias[channel] = 0
        for stage, channel in (("layer1", 3), ("layer2", 11), ("layer3", 27)):
            for block in getattr(module, stage):
                block.conv1.weight[
                    :, channel if block.downsample is None else channel - block.conv1.in_channels // 2
                ] = 0
                block.conv2.weight[channel] = 0
        module.conv1.weight[3] = 0
        module.fc.weight[:, 27] = 0
    images = torch.randn(2, *SIZE)
    expected = module(images)
    for block in [*module.layer1, *module.layer2, *module.layer3]:
        with torch.no_grad():  # one dead channel inside each block as well
            block.conv1.weight[0] = 0
            block.bn1.weight[0] = block.bn1.bias[0] = 0
            block.conv2.weight[:, 0] = 0
    expected = module(images)
    report = prune(module, SIZE, PruneOptions(1 / 64, "l2", round_to=1))
    assert report.widths["layer3.0.conv2"] == (64, 63)
    torch.testing.assert_close(module(images), expected, rtol=1e-4, atol=1e-5)


def test_published_size_of_resnet18(tmp_path):
    module = build_model("resnet18", 10)
    report = prune(module, SIZE, PruneOptions(0.6, "l1", round_to=1))
    assert report.parameters[1] == 1_776_662
    assert report.channels_removed_percent == pytest.approx(60.2, abs=0.1)
    spec = ModelSpec(10, Preprocessing(SIZE, (0.5,) * 3, (0.5,) * 3), "resnet18")
    path = write_checkpoint(tmp_path / "m.pth", spec, module.state_dict())
    assert path.stat().st_size / 2**20 == pytest.approx(6.79, abs=0.05)


def test_scores_agree_with_an_independent_computation():
    """Conv - BN - conv: a channel's score is the mean of its normalised weights' norms over the coupled layers."""
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),
    )
    first, second = module[0].weight.detach().clone(), module[2].weight.detach().clone()
    scores = first.abs().sum((1, 2, 3)) + second.abs().sum((0, 2, 3))
    kept = sorted(scores.argsort()[3:].tolist())
    prune(module, SIZE, PruneOptions(0.5, "l1", round_to=1))
    assert torch.equal(module[0].weight, first[kept])


@pytest.mark.parametrize(
    ("width", "ratio", "round_to", "kept"),
    [
        (64, 0.6, 1, 25),
        (64, 0.6, 8, 24),
        (64, 0.6, 16, 32),
        (16, 0.6, 8, 8),
        (512, 0.6, 8, 208),
        (10, 0.9, 1, 1),
        (4, 0.9, 8, 4),
        (20, 0.0, 16, 20),
    ],
)
def test_kept_widths(width, ratio, round_to, kept):
    assert kept_width(width, ratio, round_to) == kept


def test_random_is_seeded_and_differs():
    def weights(seed):
        module = randomised("resnet20")
        prune(module, SIZE, PruneOptions(0.5, "random", round_to=8, seed=seed))
        return module.conv1.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_pruned_networks_reload_with_equal_outputs(tmp_path):
    module = randomised("resnet20", shortcut="pad")
    prune(module, SIZE, PruneOptions(0.6))
    spec = ModelSpec(10, Preprocessing(SIZE, (0.5,) * 3, (0.5,) * 3), "resnet20", {"shortcut": "pad"})
    loaded = load_model(write_checkpoint(tmp_path / "m.pth", spec, module.state_dict()))
    images = torch.randn(2, *SIZE)
    assert torch.equal(loaded.module(images), module(images))


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5, -0.1])
def test_impossible_ratios(ratio):
    with pytest.raises(RcompressError, match="not between 0 and 1"):
        PruneOptions(ratio)


def test_a_rounding_that_removes_nothing_is_said():
    with pytest.raises(RcompressError, match="no layer loses a channel"):
        prune(build_model("resnet20", 10), SIZE, PruneOptions(0.1, round_to=64))
