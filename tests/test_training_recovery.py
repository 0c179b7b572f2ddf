"""BatchNorm statistics measured anew."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rcompress.artifacts.spec import ModelSpec
from rcompress.data import balanced_indices, normalize, open_dataset
from rcompress.models import build_model, load_model
from rcompress.training import Settings, validate
from rcompress.training.recovery import REESTIMATION_BATCH, recover, reestimate_batchnorm

CPU = Settings(torch.device("cpu"))


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits")


def test_the_statistics_are_the_mean_over_batches(digits):
    train, preprocessing = digits.split("train"), digits.preprocessing()
    module = build_model("resnet20", 10)
    first = next(layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    convolution = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    assert reestimate_batchnorm(module, train, preprocessing, CPU, images=500)
    chosen = train.subset(balanced_indices(train.labels, 500, 0))
    batches = [images for images, labels in chosen.batches(REESTIMATION_BATCH)][:2]  # the third is not whole
    with torch.no_grad():
        outputs = [convolution(normalize(batch, preprocessing)) for batch in batches]
    mean = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    variance = torch.stack([output.var((0, 2, 3)) for output in outputs]).mean(0)
    assert torch.allclose(first.running_mean, mean, atol=1e-5)
    assert torch.allclose(first.running_var, variance, rtol=1e-3)


def test_modes_momentum_and_weights_stay(digits):
    module = build_model("resnet20", 10).eval()
    module.layer1.train()
    modes = [part.training for part in module.modules()]
    weights = [parameter.detach().clone() for parameter in module.parameters()]
    reestimate_batchnorm(module, digits.split("train"), digits.preprocessing(), CPU, images=200)
    assert [part.training for part in module.modules()] == modes
    assert all(part.momentum == 0.1 for part in module.modules() if isinstance(part, nn.BatchNorm2d))
    assert all(torch.equal(*pair) for pair in zip(weights, module.parameters(), strict=True))


def test_a_network_without_batchnorm_is_left_alone(digits):
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    assert not reestimate_batchnorm(module, digits.split("train"), digits.preprocessing(), CPU)


def test_it_gives_back_what_wrong_statistics_cost(trained, digits):
    loaded = load_model(trained)
    for layer in loaded.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.mul_(9)
    recovery = recover(loaded.module, loaded.spec, digits, CPU)
    scores = validate(loaded.module, digits.split("validation"), loaded.spec.preprocessing, CPU)
    assert recovery.after_percent == scores.top1_percent > recovery.before_percent + 20
    assert f"{recovery.before_percent:.2f} % -> {recovery.after_percent:.2f} %" in str(recovery)


def test_there_is_nothing_to_tell_of_a_network_without_batchnorm(digits):
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    assert recover(module, ModelSpec(10, digits.preprocessing()), digits, CPU) is None
