"""Factorization: what becomes of layers, at which ranks, and which are left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rcompress.errors import RcompressError
from rcompress.measure.complexity import module_complexity
from rcompress.methods.factorize import FactorizeOptions, factorize
from rcompress.methods.low_rank import factor_weights, product


def low_rank_layer(scheme, rank, **options):
    """A layer that the scheme can say at ``rank`` without any loss."""
    torch.manual_seed(1)
    layer = nn.Conv2d(12, 16, 3, padding=1, **options) if scheme != "linear" else nn.Linear(24, 20)
    weight = layer.weight.detach().double()
    ranks = (rank, rank) if scheme == "tucker" else (rank,)
    layer.weight.data = product(factor_weights(weight, scheme, ranks), scheme).float()
    return layer


class Net(nn.Module):
    """One layer among others, called for images of (12, 9, 9)."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.flat = layer, isinstance(layer, nn.Linear)

    def forward(self, images):
        return self.layer(images.flatten(1) if self.flat else images)


@pytest.mark.parametrize("scheme", ["channel", "spatial", "tucker", "linear"])
@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_what_is_of_low_rank_is_factorized_without_loss(scheme, stride):
    if scheme == "linear":
        module, size = Net(low_rank_layer(scheme, 3)), (24, 1, 1)
        options = FactorizeOptions(rank=3)
    else:
        module, size = Net(low_rank_layer(scheme, 3, stride=stride)), (12, 9, 9)
        options = FactorizeOptions(scheme, rank=3)
    images = torch.randn(2, *size)
    before = module(images)
    report = factorize(module, size, options)
    torch.testing.assert_close(module(images), before, rtol=1e-4, atol=1e-5)
    assert report.layers[0].relative_error < 1e-6
    assert len(module.layer) == (3 if scheme == "tucker" else 2)
    counted = module_complexity(module, size)
    assert (report.parameters[1], report.macs[1]) == (counted.parameters, counted.macs)
    assert report.layers[0].macs == report.macs


def test_the_error_is_that_of_the_singular_values_cut_off():
    """Eckart and Young 1936: the squared error of the best matrix of a rank is the sum of the squared tail."""
    torch.manual_seed(0)
    layer = nn.Conv2d(12, 16, 3, padding=1)
    weight = layer.weight.detach().double().numpy()
    unfolded = {
        "channel": weight.reshape(16, -1),
        "spatial": np.stack(
            [weight[o, i, h] for i in range(12) for h in range(3) for o in range(16)]  # rows of 3
        ).reshape(36, 48),
    }
    for scheme, matrix in unfolded.items():
        module = Net(nn.Conv2d(12, 16, 3, padding=1))
        module.layer.weight.data = layer.weight.data.clone()
        row = factorize(module, (12, 9, 9), FactorizeOptions(scheme, rank=5)).layers[0]
        squares = np.linalg.svd(matrix, compute_uv=False) ** 2
        assert row.relative_error == pytest.approx(np.sqrt(squares[5:].sum() / squares.sum()), rel=1e-6)


class Mixed(nn.Module):
    """What can be factorized beside what cannot."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 32, 3, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.dead = nn.Conv2d(32, 32, 3, padding=1)
        nn.init.zeros_(self.dead.weight)
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)
        self.spare = nn.Linear(32, 32)
        self.fc = nn.Linear(32, 2)

    def forward(self, images):
        features = self.dead(self.depthwise(self.wide(images))) + self.depthwise(self.wide(images))
        tokens = features.flatten(2).transpose(1, 2)
        return self.fc(self.attention(tokens, tokens, tokens)[0].mean(1))


def test_layers_left_alone_say_why():
    report = factorize(Mixed(), (3, 8, 8), FactorizeOptions("channel", rank=4))
    reasons = {row.name: row.reason for row in report.layers}
    assert reasons.pop("wide") is None
    assert reasons == {
        "depthwise": "is a grouped convolution",
        "dead": "is zero",
        "attention.out_proj": "is a NonDynamicallyQuantizableLinear",
        "spare": "is not called for an image: other code may read its weights",
        "fc": "at rank 2 it would take 106% of its MACs",
    }


@torch.no_grad()
def test_ratio_removes_so_much_of_each_layer():
    module = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 32, 3, stride=2, padding=1))
    for scheme in ("channel", "spatial", "tucker"):
        made = factorize(
            nn.Sequential(*(nn.Conv2d(*pair, 3, padding=1) for pair in ((16, 32), (32, 32)))),
            (16, 8, 8),
            FactorizeOptions(scheme, ratio=0.6, round_to=1),
        )
        for row in made.layers:
            assert 0.34 < row.macs[1] / row.macs[0] <= 0.4, row
    report = factorize(module, (16, 8, 8), FactorizeOptions(ratio=0.6, ignore=("1",)))
    assert [row.reason for row in report.layers] == [None, "is to be left alone (--ignore)"]
    assert isinstance(module[1], nn.Conv2d)


def test_ranks_are_the_nearest_multiples_but_those_that_are_given():
    def ranks(**given):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 3))
        return [row.ranks[0] for row in factorize(module, (3, 16, 16), FactorizeOptions(**given)).layers]

    assert ranks(scheme="spatial", ratio=0.35, round_to=1) == [4, 20, 31]
    assert ranks(scheme="spatial", ratio=0.35) == [4, 24, 32]
    assert ranks(scheme="spatial", ratio=0.35, round_to=24) == [4, 20, 24]
    assert ranks(scheme="spatial", rank=5) == [5, 5, 5]
    exact = ranks(scheme="spatial", energy=0.5, round_to=1)
    expected = [rank if rank < 8 else -(-rank // 8) * 8 for rank in exact]
    assert ranks(scheme="spatial", energy=0.5) == expected != exact


@pytest.mark.parametrize(("given", "figure"), [({"ratio": 0.5}, "error"), ({"energy": 0.6}, "macs")])
def test_auto_takes_for_each_layer_the_better_scheme(given, figure):
    def rows(scheme):
        torch.manual_seed(0)
        first, rows_and_columns, last = (
            nn.Conv2d(*sides, 3, padding=1) for sides in ((3, 16), (16, 32), (32, 32))
        )
        separable = torch.einsum("irh,orw->oihw", torch.randn(16, 6, 3), torch.randn(32, 6, 3))
        rows_and_columns.weight.data = separable + 0.1 * torch.randn(32, 16, 3, 3)
        few_filters = torch.einsum("or,rihw->oihw", torch.randn(32, 6), torch.randn(6, 32, 3, 3))
        last.weight.data = few_filters + 0.1 * torch.randn(32, 32, 3, 3)
        module = nn.Sequential(first, rows_and_columns, last, nn.Conv2d(32, 32, (1, 3), padding=(0, 1)))
        return factorize(module, (3, 16, 16), FactorizeOptions(scheme, **given)).layers

    def of(row):
        return row.relative_error if figure == "error" else row.macs[1]

    chosen = rows("auto")
    for best, *others in zip(chosen, rows("spatial"), rows("channel"), strict=True):
        assert of(best) == min(of(row) for row in others)
    assert {row.scheme for row in chosen[:3]} == {"spatial", "channel"}
    assert chosen[3].scheme == "channel"


def test_factors_keep_the_type_and_the_mode():
    module = nn.Sequential(nn.Conv2d(16, 32, 3)).double().eval()
    module.register_forward_pre_hook(lambda _, inputs: inputs[0].double())
    factorize(module, (16, 8, 8), FactorizeOptions(rank=2))
    assert not any(part.training for part in module.modules())
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs one way to choose ranks"),
        ({"rank": 2, "evbmf": True}, "needs one way to choose ranks"),
        ({"rank": 0}, "0 is below 1"),
        ({"ratio": 0.5, "round_to": 0}, "0 is below 1"),
        ({"energy": 1.0}, "not between 0 and 1"),
        ({"ratio": 0.0}, "not between 0 and 1"),
        ({"rank": 2, "scheme": "cp"}, "unknown scheme 'cp'"),
    ],
)
def test_options_that_make_no_sense(given, said):
    with pytest.raises(RcompressError, match=said):
        FactorizeOptions(**given)


def test_nothing_to_gain_and_nothing_to_ignore():
    module = nn.Sequential(nn.Conv2d(4, 4, 3))
    with pytest.raises(RcompressError, match="no layer would become cheaper"):
        factorize(module, (4, 8, 8), FactorizeOptions("channel", rank=4))
    with pytest.raises(RcompressError, match="has no layer 'nowhere'"):
        factorize(module, (4, 8, 8), FactorizeOptions(rank=1, ignore=("nowhere",)))


class Nosy(nn.Module):
    """Calls a layer and reads its weight too."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(16, 32, 3)

    def forward(self, images):
        return self.layer(images.to(self.layer.weight.dtype))


def test_code_that_reads_weights_is_told_apart():
    with pytest.raises(RcompressError, match="reads a layer that was replaced"):
        factorize(Nosy(), (16, 8, 8), FactorizeOptions(rank=2))
