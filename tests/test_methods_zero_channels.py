"""Zero filters are removed where nothing changes, their constants merged; what must stay is named."""

from __future__ import annotations

import pytest
import torch
from architectures import untrained
from torch import Tensor, nn

from rcompress.errors import RcompressError
from rcompress.methods.group_tracing import find_groups
from rcompress.methods.zero_channels import ZeroChannels, prune_zeros

SIZE = (3, 16, 16)
ZERO = [0, 2, 3]


def plain(second: nn.Module, shift: float) -> nn.Sequential:
    """Filters 0, 2, 3 of 8 are zero; BatchNorm and ReLU make ``shift`` of them, or nothing where it is negative."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        second,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10),
    )
    with torch.no_grad():
        module[0].weight[ZERO] = 0
        module[1].bias[:] = torch.tensor([1.0, 0.3, 2.0, -1.0, 0.1, 0.2, 0.3, 0.4])
        module[1].bias[ZERO] = shift * torch.tensor([1.0, 2.0, 0.5])
        module[1].running_mean.uniform_(-0.1, 0.1)
        module[1].running_mean[ZERO] = 0
    return module.eval()


def pruned(module: nn.Module, round_to: int = 1) -> tuple[ZeroChannels, float]:
    """What was found, and how far the logits moved, relative to the largest."""
    images = torch.randn(3, *SIZE)
    with torch.no_grad():
        expected = module(images)
        _, found = prune_zeros(find_groups(module, SIZE), SIZE, round_to)
        return found, float((module(images) - expected).abs().max() / expected.abs().max())


def test_filters_whose_constant_is_zero_simply_go():
    module = plain(nn.Conv2d(8, 6, 3, padding=1), shift=-1.0)
    before = module[3].weight.detach().clone()
    found, moved = pruned(module)
    assert found.removable == {"0": ZERO}
    assert (found.merged, found.stuck) == (0, [])
    assert moved < 1e-6
    assert torch.equal(module[3].weight, before[:, [1, 4, 5, 6, 7]])


@pytest.mark.parametrize(
    "second", [nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 5, stride=2, padding=2)]
)
def test_constants_are_merged_into_one_channel_whatever_the_padding(second):
    module = plain(second, shift=1.0)
    found, moved = pruned(module)
    assert found.removable == {"0": [0, 3]}  # channel 2 has the largest constant and stands for all
    assert found.merged == 2
    assert moved < 1e-5
    assert module[0].out_channels == 6


def test_channels_that_rounding_keeps_are_not_counted_twice():
    module = plain(nn.Conv2d(8, 6, 3, padding=1), shift=1.0)
    found, moved = pruned(module, round_to=7)
    assert found.removable == {"0": [0]}  # 3 stays, with its own weights
    assert found.merged == 1
    assert moved < 1e-5
    assert module[0].out_channels == 7


def test_constants_of_convolution_groups_are_merged_within_each():
    module = plain(nn.Conv2d(8, 6, 3, padding=1, groups=2), shift=1.0)
    with torch.no_grad():
        module[0].weight[[4, 6, 7]] = 0  # of each half the same: 0, 2, 3
    found, moved = pruned(module)
    assert found.removable == {"0": [0, 2]}  # 3 and 7 have the least small constants
    assert moved < 1e-5
    assert (module[3].in_channels, module[3].groups, module[3].weight.shape[1]) == (4, 2, 2)


def test_filters_that_are_zero_in_one_convolution_group_alone_stay():
    module = plain(nn.Conv2d(8, 6, 3, padding=1, groups=2), shift=-1.0)
    with pytest.raises(RcompressError, match="each group of the grouped convolution"):
        pruned(module)


def test_padding_on_the_way_keeps_a_constant():
    """A padded depthwise convolution makes an edge of it."""
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    module = plain(nn.Sequential(depthwise, nn.Conv2d(8, 6, 1)), shift=1.0)
    with pytest.raises(RcompressError, match="ends at zero padding"):
        pruned(module)


def test_channels_of_a_residual_sum_go_only_together():
    module = untrained("resnet20")
    with torch.no_grad():
        module.layer1[0].conv2.weight[5] = 0
        module.layer1[1].conv1.weight[[2, 4]] = 0
        module.layer1[1].bn1.bias[[2, 4]] = -1.0
        module.layer1[1].bn1.running_mean[[2, 4]] = 0
    found, moved = pruned(module)
    assert found.removable == {"layer1.1.conv1": [2, 4]}
    assert found.stuck == [("layer1.0.conv2", 1, "the same channels of coupled layers are not zero")]
    assert moved < 1e-5


def test_whole_residual_channels_go():
    module = untrained("resnet20")
    with torch.no_grad():
        for conv, norm in [(module.conv1, module.bn1), *((b.conv2, b.bn2) for b in module.layer1)]:
            conv.weight[[1, 7, 11]] = 0
            norm.running_mean[[1, 7, 11]] = 0
            norm.bias[[1, 7]] = 0.25
            norm.bias[11] = -0.1
    found, moved = pruned(module)
    assert moved < 1e-5
    assert module.conv1.out_channels == 14  # one stands for the two whose constants are read
    assert found.merged == 1


def test_layer_normalisation_keeps_zero_channels():
    module = untrained("torchvision:convnext_tiny")
    with torch.no_grad():
        module.features[0][0].weight[:4] = 0
    with pytest.raises(RcompressError, match="not only convolutions and linear layers read them"):
        prune_zeros(find_groups(module, (3, 32, 32)), (3, 32, 32))


def test_linear_layers_lose_zero_outputs_too():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(768, 12), nn.ReLU(), nn.Linear(12, 10))
    with torch.no_grad():
        module[1].weight[:5] = 0
        module[1].bias[:5] = torch.tensor([0.5, -1.0, 0.25, 1.0, -0.5])
    found, moved = pruned(module)
    assert found.removable == {"1": [0, 1, 2, 4]}
    assert moved < 1e-5
    assert module[3].in_features == 8


def test_a_layer_keeps_one_channel():
    module = plain(nn.Conv2d(8, 6, 3), shift=-1.0)
    with torch.no_grad():
        module[0].weight.zero_()
        module[1].bias.fill_(-1.0)
        module[1].running_mean.zero_()
    _, moved = pruned(module)
    assert module[0].out_channels == 1
    assert moved < 1e-6


def test_widths_can_be_rounded_up():
    module = plain(nn.Conv2d(8, 6, 3), shift=-1.0)
    _, moved = pruned(module, round_to=2)
    assert module[0].out_channels == 6
    assert moved < 1e-6
    with pytest.raises(RcompressError, match="too few for the rounding"):
        pruned(plain(nn.Conv2d(8, 6, 3), shift=-1.0), round_to=8)


def test_networks_without_zero_filters_are_refused():
    with pytest.raises(RcompressError, match="no filter of this network is zero"):
        pruned(untrained("resnet20"))


def test_what_depends_on_the_image_is_no_constant():
    """The gate of a zero channel differs from image to image, and so does what passes."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, 8, 1)
            self.gate = nn.Linear(3, 8)
            self.after = nn.Conv2d(8, 6, 1)

        def forward(self, images: Tensor) -> Tensor:
            gate = torch.sigmoid(self.gate(images.mean((2, 3))))[:, :, None, None]
            return self.after(self.features(images) * gate).mean((2, 3))

    torch.manual_seed(0)
    module = Gated().eval()
    with torch.no_grad():
        module.features.weight[2] = 0
    with pytest.raises(RcompressError, match="coupled layers are not zero"):
        pruned(module)


def test_the_zeros_of_a_padding_shortcut_are_none_of_the_networks():
    module = untrained("resnet20", shortcut="pad")
    with pytest.raises(RcompressError, match="no filter of this network is zero"):
        pruned(module)
