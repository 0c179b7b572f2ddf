"""Losses over feature maps, against computations by hand, and where a network's stages end."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rcompress.models import build_model
from rcompress.training.feature_losses import angles, attention_loss, distances, hint_loss, relational_loss
from rcompress.training.features import feature_shapes, stage_ends


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


def test_stages_end_where_the_size_changes():
    ends = stage_ends(feature_shapes(build_model("resnet20", 10), (3, 32, 32)))
    assert ends == {(32, 32): "layer1", (16, 16): "layer2", (8, 8): "layer3"}
    eighteen = stage_ends(feature_shapes(build_model("resnet18", 10), (3, 32, 32)))
    assert list(eighteen.values()) == ["layer1", "layer2", "layer3", "layer4"]
