"""Importance scores, and what a ranking makes of them, against computations of another kind."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from architectures import untrained
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from rcompress.errors import RcompressError
from rcompress.methods.channel_selection import FLOOR, widths_above, widths_by_ranking, widths_by_ratio
from rcompress.methods.group_tracing import find_groups
from rcompress.methods.importance import comparable, score_channels

SIZE = (3, 8, 8)
BATCHES = 3


@pytest.fixture
def net() -> nn.Module:
    """Two convolutions with BatchNorm and a head; channels of the first are also the second's inputs."""
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    for norm in (module[1], module[4]):
        nn.init.uniform_(norm.weight, 0.3, 1.7)
        nn.init.normal_(norm.bias, std=0.3)
        nn.init.uniform_(norm.running_var, 0.1, 1.0)
    return module.eval()


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [
        (torch.randn(4 + n, *SIZE, generator=generator), torch.randint(5, (4 + n,), generator=generator))
        for n in range(BATCHES)
    ]


FIRST = {"0.weight": 0, "1.weight": 0, "1.bias": 0, "3.weight": 1}
"""Parameters that hold values of the first convolution's channels, and the axis that counts these."""


def along(values: Tensor, axis: int, channel: int) -> Tensor:
    return values.select(axis, channel)


def magnitude(net: nn.Module, channel: int, power: int) -> float:
    weights = [
        along(net.get_parameter(n).detach(), axis, channel)
        for n, axis in FIRST.items()
        if n.endswith("weight")
    ]
    return sum(float((w.abs() ** power).sum()) for w in weights)


@pytest.mark.parametrize(("importance", "power"), [("l1", 1), ("l2", 2)])
def test_magnitudes_over_all_coupled_layers(net, importance, power):
    scores = score_channels(find_groups(net, SIZE), importance)
    assert set(scores) == {"0", "3"}
    expected = [magnitude(net, channel, power) for channel in range(6)]
    assert scores["0"].tolist() == pytest.approx(expected, rel=1e-5)


def test_batchnorm_scales(net):
    scores = score_channels(find_groups(net, SIZE), "bn-scale")
    assert scores["0"].tolist() == pytest.approx(net[1].weight.abs().tolist())
    assert "0" not in score_channels(find_groups(nn.Sequential(*net[:1], *net[2:]), SIZE), "bn-scale")


def test_distances_to_the_other_filters(net):
    filters = net[0].weight.detach().flatten(1)
    expected = [sum(math.dist(mine.tolist(), other.tolist()) for other in filters) for mine in filters]
    scores = score_channels(find_groups(net, SIZE), "fpgm")
    assert scores["0"].tolist() == pytest.approx(expected, rel=1e-5)


def test_coupled_filters_are_joined_before_distances_are_taken():
    module = untrained("resnet20", shortcut="pad")
    scores = score_channels(find_groups(module, (3, 32, 32)), "fpgm")["layer2.0.conv2"]
    makers = [block.conv2.weight.detach().flatten(1) for block in module.layer2]
    joined = torch.cat(makers, 1)  # the fixed shortcut has no say
    expected = [float((joined - mine).norm(dim=1).sum()) for mine in joined]
    assert scores.tolist() == pytest.approx(expected, rel=1e-4)


def test_layer_adaptive_magnitudes(net):
    magnitudes = [magnitude(net, channel, 2) for channel in range(6)]
    expected = [m / sum(other for other in magnitudes if other >= m) for m in magnitudes]
    scores = score_channels(find_groups(net, SIZE), "lamp")["0"]
    assert scores.tolist() == pytest.approx(expected, rel=1e-5)
    assert float(scores.max()) == 1.0


def test_first_order_taylor_is_the_derivative_by_a_gate(net):
    """A gate multiplies all that a channel has; the loss's derivative by it is the sum of weight times gradient."""
    parameters = dict(net.named_parameters())

    def loss(gates: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        gated = dict(parameters)
        for name, axis in FIRST.items():
            shape = [-1 if dim == axis else 1 for dim in range(parameters[name].dim())]
            gated[name] = parameters[name] * gates.view(shape)
        return F.cross_entropy(functional_call(net, gated, images), labels)

    total, seen = torch.zeros(6), 0
    for images, labels in batches():
        total += len(images) * jacrev(loss)(torch.ones(6), images, labels).detach() ** 2
        seen += len(images)
    scores = score_channels(find_groups(net, SIZE), "taylor", batches())
    torch.testing.assert_close(scores["0"], total / seen, rtol=1e-3, atol=1e-8)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_curvature_converges_to_the_exact_gauss_newton_diagonal(net):
    images = torch.cat([images for images, _ in batches()])
    parameters = {name: value.detach() for name, value in net.named_parameters()}
    jacobian = jacrev(lambda values: functional_call(net, values, images))(parameters)
    shares = net(images).detach().softmax(1)
    curvature = torch.diag_embed(shares) - shares[:, :, None] * shares[:, None, :]  # of cross-entropy
    expected = torch.zeros(6)
    for name, axis in FIRST.items():
        rows = jacobian[name].flatten(2)
        diagonal = torch.einsum("nip,nij,njp->p", rows, curvature, rows) / len(images)
        saliency = (parameters[name] ** 2 * diagonal.view_as(parameters[name]) / 2).movedim(axis, 0)
        expected += saliency.reshape(6, -1).sum(1)
    scores = score_channels(find_groups(net, SIZE), "hessian", batches() * 250, seed=1)["0"]
    torch.testing.assert_close(scores, expected, rtol=0.2, atol=0)


def test_activations_as_the_next_layer_sees_them(net):
    scores = score_channels(find_groups(net, SIZE), "activation", batches())
    images = torch.cat([images for images, _ in batches()])
    with torch.no_grad():
        torch.testing.assert_close(scores["0"], net[:3](images).abs().mean((0, 2, 3)))
        torch.testing.assert_close(scores["3"], net[:7](images).flatten(1).mean(0))


@pytest.mark.parametrize("importance", ["taylor", "hessian", "activation"])
def test_images_are_asked_for(net, importance):
    graph = find_groups(net, SIZE)
    with pytest.raises(RcompressError, match=f"{importance} needs images"):
        score_channels(graph, importance)
    with pytest.raises(RcompressError, match="no images"):
        score_channels(graph, importance, [])


def test_channels_of_convolution_groups_share_a_score():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=4), nn.Flatten(), nn.Linear(288, 10))
    scores = score_channels(find_groups(module, SIZE), "l2")["0"]
    reader = module[1].weight.view(4, 2, 2, 9)  # (group, out, in, kernel)
    by_channel = (module[0].weight ** 2).flatten(1).sum(1) + (reader**2).sum((1, 3)).flatten()
    assert scores.tolist() == pytest.approx(by_channel.view(4, 2).mean(0).tolist(), rel=1e-5)


@pytest.mark.parametrize("importance", ["l2", "lamp", "bn-scale"])
@pytest.mark.parametrize("ratio", [0.3, 0.7, 0.95])
def test_the_global_ranking(importance, ratio):
    """One list of all channels, sorted; a tenth of each group stays; l2 is relative to its group's mean."""
    graph = find_groups(untrained("resnet20"), (3, 32, 32))
    scores = score_channels(graph, importance)
    entries, guarded = [], 0
    for name, values in scores.items():
        shown = values / values.mean() if importance == "l2" else values
        ranked = sorted(shown.tolist())
        stay = math.ceil(FLOOR * len(ranked))
        guarded += stay
        entries += [(score, name) for score in ranked[: len(ranked) - stay]]
    total = len(entries) + guarded
    gone = [name for _, name in sorted(entries)[: math.floor(total * ratio + 1e-9)]]
    widths = widths_by_ranking(graph.prunable, comparable(scores, importance), ratio, round_to=1)
    assert widths == {name: len(values) - gone.count(name) for name, values in scores.items()}
    assert min(widths.values()) >= 2


def test_ratios_of_single_groups_and_a_threshold(net):
    groups = find_groups(net, SIZE).prunable
    assert widths_by_ratio(groups, {"0": 0.5}, 1) == {"0": 3, "3": 4}
    scores = {"0": torch.tensor([0.1, 0.5, 0.2, 0.9, 0.3, 0.4]), "3": torch.tensor([0.05, 0.06, 0.07, 0.08])}
    assert widths_above(groups, scores, 0.3, 1) == {"0": 3, "3": 1}


def test_one_slope_for_all_channels_has_no_say():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.PReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 5))
    scores = score_channels(find_groups(module.eval(), SIZE), "l2")["0"]
    squares = [layer.weight.detach().pow(2) for layer in (module[0], module[2])]
    torch.testing.assert_close(scores, squares[0].sum((1, 2, 3)) + squares[1].sum((0, 2, 3)))


@pytest.mark.parametrize("importance", ["l2", "bn-scale", "activation"])
def test_a_network_that_can_lose_nothing_is_refused(importance):
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()
    with pytest.raises(RcompressError, match="no layer can lose channels"):
        score_channels(find_groups(module, SIZE), importance)
