"""Groups of channels: the right layers together, what cannot be pruned named, costs known before the cut."""

from __future__ import annotations

import pytest
import torch
from architectures import untrained, without_constants, zero_filters
from torch import Tensor, nn

from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.errors import RcompressError
from rcompress.export import onnx_from_module
from rcompress.methods.channel_groups import HEAD
from rcompress.methods.group_tracing import find_groups
from rcompress.methods.prune import prune_to
from rcompress.methods.prune_cost import CostModel
from rcompress.models import rebuild

SIZE = (3, 32, 32)
PAD = {"shortcut": "pad"}


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("resnet20", {}),
        ("resnet20", PAD),
        ("resnet32", PAD),
        ("resnet44", {}),
        ("resnet56", PAD),
        ("resnet110", {}),
        ("resnet18", {}),
        ("resnet34", {"stem": "imagenet"}),
        ("resnet50", {}),
        ("torchvision:mobilenet_v2", {}),
        ("torchvision:densenet121", {}),
        ("torchvision:resnext50_32x4d", {}),
        ("torchvision:regnet_y_400mf", {}),
        ("torchvision:convnext_tiny", {}),
        ("vgg16_bn", {}),
        ("own", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value.values()),
)
def test_removing_dead_channels_keeps_the_outputs(arch, options):
    """Filters are zero, nothing else is touched: removing them anywhere but where they are read changes the logits.

    Of convnext only the channels inside blocks can be dead: its LayerNorms make all others depend on each other.
    """
    module = without_constants(untrained(arch, **options))
    graph = find_groups(module, SIZE, keep_residual="convnext" in arch)
    dead = {group.name: range(group.units // 2) for group in graph.prunable if not group.shares_statistics}
    for name, units in dead.items():
        gone = torch.tensor(graph[name].channels_of(units))
        for maker in graph[name].makers:
            zero_filters(maker.layer, maker.channels[torch.isin(maker.roots, gone)].tolist())
    images = torch.randn(2, *SIZE)
    with torch.no_grad():
        expected = module(images)
    widths = {name: graph[name].width - len(graph[name].channels_of(units)) for name, units in dead.items()}
    predicted = CostModel(graph, SIZE).predict(widths)
    scores = {group.name: torch.arange(group.units).float() for group in graph.prunable}
    report = prune_to(graph, SIZE, scores, widths)
    with torch.no_grad():
        torch.testing.assert_close(
            module(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
        )
    assert (predicted.parameters, predicted.macs) == (report.parameters[1], report.macs[1])
    assert report.parameters[1] < report.parameters[0]
    if arch not in ("own", "vgg16_bn"):
        spec = ModelSpec(10, Preprocessing(SIZE, (0.5,) * 3, (0.5,) * 3), arch, options)
        with torch.no_grad():
            assert torch.equal(rebuild(spec, module.state_dict())(images), module(images))


def test_groups_of_resnet20_by_name():
    graph = find_groups(untrained("resnet20"), SIZE)
    residual = [group.name for group in graph.groups if group.residual]
    assert residual == ["conv1", "layer2.0.conv2", "layer3.0.conv2"]
    stem = graph["conv1"]
    assert stem.width == 16
    assert {maker.name for maker in stem.makers} == {"conv1", *(f"layer1.{i}.conv2" for i in range(3))}
    assert {reader.name for reader in stem.readers} == {
        *(f"layer1.{i}.conv1" for i in range(3)),
        "layer2.0.conv1",
        "layer2.0.downsample.0",
    }
    assert {norm.name for norm in stem.batch_norms} == {"bn1", *(f"layer1.{i}.bn2" for i in range(3))}
    assert graph["fc"].reason == HEAD
    assert graph.kept == {}
    assert len(graph.prunable) == 12


def test_names_stay_when_the_network_is_pruned():
    module = untrained("resnet20")
    graph = find_groups(module, SIZE)
    before = [group.name for group in graph.groups]
    graph.cut({"conv1": [3], "layer2.1.conv1": [0, 31]})
    after = find_groups(module, SIZE)
    assert [group.name for group in after.groups] == before
    assert (after["conv1"].width, after["layer2.1.conv1"].width) == (15, 30)


def test_residual_channels_and_ignored_layers_stay():
    graph = find_groups(untrained("resnet20"), SIZE, keep_residual=True, ignore=("layer3", "layer1.0.conv1"))
    assert set(graph.kept) == {
        "conv1",
        "layer2.0.conv2",
        "layer3.0.conv2",
        "layer1.0.conv1",
        *(f"layer3.{i}.conv1" for i in range(3)),
    }
    assert "--keep-residual" in graph.kept["conv1"]
    assert graph.kept["layer3.1.conv1"] == "layer3.1.conv1 is to be left alone (--ignore)"
    with pytest.raises(RcompressError, match="no layer 'layer9'"):
        find_groups(untrained("resnet20"), SIZE, ignore=("layer9",))


def test_frozen_layers_are_pruned_and_stay_frozen():
    module = untrained("resnet20")
    module.layer1.requires_grad_(False)
    graph = find_groups(module, SIZE)
    graph.cut({"conv1": [0], "layer1.1.conv1": [1]})
    assert not any(parameter.requires_grad for parameter in module.layer1.parameters())
    assert all(parameter.requires_grad for parameter in module.layer2.parameters())
    assert module.layer1[1].conv1.weight.shape == (15, 15, 3, 3)


class Awkward(nn.Module):
    """Channels that cannot go, in four ways, and some that can."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 8, 3, padding=1)
        self.shifted = nn.Conv2d(8, 8, 3, padding=1)
        self.halved = nn.Conv2d(8, 8, 1)
        self.twice = nn.Conv2d(8, 8, 1)
        self.image = nn.Conv2d(4, 3, 1)
        self.classes = nn.Linear(3, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of (N, 3, H, W)."""
        x = self.shifted(torch.relu(self.fine(images)))
        x = self.halved(x + x.roll(1, 1))  # channel i needs channel i - 1
        first, second = torch.relu(self.twice(x)).chunk(2, 1)
        x = images * self.image(first + second)  # the image's three channels stay
        return self.classes(x.mean((2, 3)))


def test_what_cannot_be_pruned_is_named_with_the_reason():
    torch.manual_seed(0)
    module = Awkward().eval()
    graph = find_groups(module, SIZE)
    assert {group.name for group in graph.prunable} == {"fine", "halved"}
    assert "pairs them wrongly" in graph.kept["shifted"]
    assert "different ways" in graph.kept["twice"]
    assert "does not run without" in graph.kept["image"]
    graph.cut({"fine": [0, 1], "halved": [5]})
    assert module(torch.randn(1, *SIZE)).shape == (1, 10)


def test_grouped_convolutions_lose_the_same_channels_of_each_group():
    module = untrained("torchvision:resnext50_32x4d")
    graph = find_groups(module, SIZE)
    group = graph["layer1.0.conv1"]
    assert (group.width, group.blocks, group.units) == (128, 32, 4)
    assert group.channels_of([1]) == list(range(1, 128, 4))
    graph.cut({"layer1.0.conv1": [0, 3], "layer1.0.conv2": [2]})
    conv = module.layer1[0].conv2
    assert (conv.in_channels, conv.out_channels, conv.groups) == (64, 96, 32)


def test_networks_that_cannot_be_traced_are_refused():
    class Loops(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.detach().flatten(1)[:, :10]

    with pytest.raises(RcompressError, match="cannot be traced"):
        find_groups(Loops(), SIZE)


def test_a_pruned_grouped_convolution_exports():
    """In the graph it keeps its groups and has the pruned widths."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 1),
        nn.Conv2d(16, 32, 3, groups=4, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()
    graph = find_groups(module, SIZE)
    graph.cut({"0": [1], "1": [0, 5]})
    spec = ModelSpec(10, Preprocessing(SIZE, (0.5,) * 3, (0.5,) * 3))
    shapes = {tuple(tensor.dims) for tensor in onnx_from_module(module, spec).graph.initializer}
    assert (24, 3, 3, 3) in shapes
