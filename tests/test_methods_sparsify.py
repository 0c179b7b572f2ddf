"""Which weights are set to zero, on layers small enough to be checked by hand or by PyTorch's own pruning."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as reference

from rcompress.errors import RcompressError
from rcompress.methods.sparsify import (
    BlockSparse,
    Filters,
    Unstructured,
    choose_masks,
    sparsify,
    sparsity_table,
)
from rcompress.models import build_model


@pytest.fixture
def module():
    torch.manual_seed(0)
    return build_model("resnet20", 10, shortcut="pad").eval()


def sparse_weights(module):
    return [layer.weight.detach() for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def test_global_masks_are_those_of_pytorch(module):
    twin = build_model("resnet20", 10, shortcut="pad")
    twin.load_state_dict(module.state_dict())
    layers = [layer for layer in twin.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    layers = [layer for layer in layers if layer.weight.requires_grad]
    reference.global_unstructured(
        [(layer, "weight") for layer in layers], reference.L1Unstructured, amount=0.7
    )
    masks, _ = sparsify(module, Unstructured(0.7))
    assert len(masks) == len(layers)
    for mask, layer in zip(masks.values(), layers, strict=True):
        assert torch.equal(mask, layer.weight_mask.bool())


def test_each_layer_alone_has_exactly_the_share(module):
    sparsify(module, Unstructured(0.75, "layer"))
    for row in sparsity_table(module):
        assert row.weights - row.nonzero == round(0.75 * row.weights)


def test_fixed_shortcuts_are_left_alone(module):
    fixed = {name: p.clone() for name, p in module.named_parameters() if not p.requires_grad}
    assert fixed
    sparsify(module, Unstructured(0.9))
    assert all(torch.equal(module.get_parameter(name), weight) for name, weight in fixed.items())


@pytest.mark.parametrize(("kept", "block"), [(2, 4), (1, 4), (4, 8)])
def test_blocks_lie_along_input_channels(module, kept, block):
    before = module.layer2[0].conv1.weight.detach().clone()
    _, dense = sparsify(module, BlockSparse(kept, block))
    assert set(dense) == {"conv1"}
    assert "3 input channels" in dense["conv1"]
    after = module.layer2[0].conv1.weight.detach()
    for out, row, column, start in [(0, 0, 0, 0), (5, 2, 1, 8), (31, 1, 2, 16 - block)]:
        group, old = (
            after[out, start : start + block, row, column],
            before[out, start : start + block, row, column],
        )
        assert int(group.count_nonzero()) == kept
        assert group.nonzero().flatten().tolist() == sorted(old.abs().topk(kept).indices.tolist())
    blocks = after.movedim(1, -1).reshape(-1, block)
    assert torch.all(blocks.count_nonzero(dim=1) == kept)
    assert module.fc.weight.count_nonzero() == module.fc.weight.numel() * kept // block


def test_depthwise_layers_stay_dense():
    module = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1))
    _, dense = choose_masks(module, BlockSparse())
    assert dense == {"0": "its 1 input channels are no multiple of 4"}


@pytest.mark.parametrize("share", [0.3, 0.5, 0.99])
def test_filters_are_those_of_ln_structured(module, share):
    twin = nn.Conv2d(32, 32, 3)
    twin.weight.data.copy_(module.layer2[1].conv1.weight)
    reference.ln_structured(twin, "weight", amount=min(share, 31 / 32), n=2, dim=0)
    sparsify(module, Filters(share))
    expected = twin.weight_mask.bool()
    assert torch.equal(module.layer2[1].conv1.weight != 0, expected)
    assert module.fc.weight.count_nonzero() == module.fc.weight.numel()


def test_linear_outputs_and_the_head_go_by_option_alone():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 10, 1), nn.Flatten(), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10))
    masked = {
        options: set(choose_masks(module, Filters(0.3, *options))[0])
        for options in ((False, False), (True, False), (True, True))
    }
    assert masked[False, False] == {"0.weight"}
    assert masked[True, False] == {"0.weight", "2.weight"}
    assert masked[True, True] == {"0.weight", "2.weight", "4.weight"}


def test_a_convolution_that_makes_the_classes_is_the_head():
    layers = [nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    assert set(choose_masks(nn.Sequential(*layers), Filters(0.3))[0]) == {"0.weight"}


def test_ignored_parts_stay_dense_and_are_named(module):
    _, dense = sparsify(module, Unstructured(0.9, "layer"), ["conv1", "layer3.1"])
    rows = {row.name: row for row in sparsity_table(module, dense)}
    assert set(dense) == {"conv1", "layer3.1.conv1", "layer3.1.conv2"}
    assert rows["layer3.1.conv1"].nonzero == rows["layer3.1.conv1"].weights
    assert rows["layer3.2.conv1"].sparsity_percent == pytest.approx(90, abs=0.1)
    assert rows["conv1"].reason == "it is to be left alone (--ignore)"


def test_counts_of_the_table():
    module = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False))
    module[0].weight.data.copy_(torch.tensor([0.0, 2.0, 0.0]).view(3, 1, 1, 1))
    (row,) = sparsity_table(module)
    assert (row.weights, row.nonzero, row.filters, row.zero_filters) == (3, 1, 3, 2)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: Unstructured(1.0), "between 0 and 1"),
        (lambda: Filters(0.0), "between 0 and 1"),
        (lambda: BlockSparse(4, 4), "keeps nothing or everything"),
    ],
)
def test_impossible_patterns_are_refused(make, fault):
    with pytest.raises(RcompressError, match=fault):
        make()


def test_an_unknown_layer_is_refused(module):
    with pytest.raises(RcompressError, match="no layer 'layer9'"):
        choose_masks(module, Unstructured(0.5), ["layer9"])


def test_a_network_without_fitting_layers_is_refused():
    with pytest.raises(RcompressError, match="no layer"):
        choose_masks(nn.Sequential(nn.Conv2d(3, 4, 1)), BlockSparse())
