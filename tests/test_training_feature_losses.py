"""Losses over feature maps, against computations by hand, and where a network's stages end."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rcompress.models import build_model
from rcompress.training.feature_losses import angles, attention_loss, distances, hint_loss, relational_loss
from rcompress.training.features import Watch, feature_shapes, stage_ends


def test_attention_by_hand():
    student, teacher = torch.randn(2, 3, 2, 2), torch.randn(2, 5, 2, 2)
    total = 0.0
    for own, shown in zip(student, teacher, strict=True):
        maps = []
        for features in (own, shown):
            flat = [float(sum(features[:, y, x] ** 2)) for y in range(2) for x in range(2)]
            length = math.sqrt(sum(value**2 for value in flat))
            maps.append([value / length for value in flat])
        total += sum((a - b) ** 2 for a, b in zip(*maps, strict=True))
    assert float(attention_loss(student, teacher)) == pytest.approx(total / 8, rel=1e-5)


def test_hints_compare_at_the_smaller_size():
    student, teacher = torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)
    student[:, :, :2] = 3.0
    assert float(hint_loss(student, teacher)) == pytest.approx((9.0 + 1.0) / 2)


def test_relations_by_hand():
    points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    torch.testing.assert_close(distances(points)[0], torch.tensor([0.0, 0.75, 1.0]))  # 3, 4, 5: mean 4
    found = angles(points)
    assert float(found[0, 1, 2]) == pytest.approx(0.0)  # a right angle at the origin
    assert float(found[1, 0, 2]) == pytest.approx(3 / 5)
    assert float(found[2, 0, 1]) == pytest.approx(4 / 5)


def test_relations_know_no_scale_and_no_turn():
    points = torch.randn(7, 3)
    turned, _ = torch.linalg.qr(torch.randn(3, 3))
    assert float(relational_loss(points, 5.0 * points @ turned)) == pytest.approx(0.0, abs=1e-5)
    other = torch.randn(7, 3)
    expected = 25 * F.smooth_l1_loss(distances(points), distances(other))
    expected += 50 * F.smooth_l1_loss(angles(points), angles(other))
    torch.testing.assert_close(relational_loss(points, other), expected)
    same = points.clone().requires_grad_()
    relational_loss(same, points * 2).backward()
    assert torch.isfinite(same.grad).all()


@pytest.mark.parametrize("images", [129, 200, 257])
def test_angles_of_large_batches_are_taken_in_even_parts(images):
    """Relations within a part count, so few images over must not be a part: it would have none."""
    draw = torch.Generator().manual_seed(0)
    points, other = torch.randn(images, 4, generator=draw), torch.randn(images, 4, generator=draw)
    found = relational_loss(points, other) - 25 * F.smooth_l1_loss(distances(points), distances(other))
    whole = 50 * F.smooth_l1_loss(angles(points), angles(other))
    assert float(found) == pytest.approx(float(whole), rel=0.05)


def test_angles_of_full_parts_are_their_mean():
    draw = torch.Generator().manual_seed(0)
    points, other = torch.randn(256, 4, generator=draw), torch.randn(256, 4, generator=draw)
    parts = [F.smooth_l1_loss(angles(points[at]), angles(other[at])) for at in (slice(128), slice(128, 256))]
    expected = 25 * F.smooth_l1_loss(distances(points), distances(other)) + 50 * torch.stack(parts).mean()
    assert torch.equal(relational_loss(points, other), expected)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_what_a_layer_put_out_is_kept_before_others_write_into_it(precision):
    network = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(inplace=True)).eval().to(precision)
    images = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1).to(precision)
    watch = Watch(network, ["0"])
    watch.on()
    network(images)
    kept = watch.off()["0"]
    assert kept.dtype == torch.float32
    torch.testing.assert_close(kept, network[0](images).float())


def test_stages_end_where_the_size_changes():
    ends = stage_ends(feature_shapes(build_model("resnet20", 10), (3, 32, 32)))
    assert ends == {(32, 32): "layer1", (16, 16): "layer2", (8, 8): "layer3"}
    eighteen = stage_ends(feature_shapes(build_model("resnet18", 10), (3, 32, 32)))
    assert list(eighteen.values()) == ["layer1", "layer2", "layer3", "layer4"]
