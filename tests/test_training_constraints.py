"""Masks held and grown while training, and penalties: in real runs on a few digits."""

from __future__ import annotations

import pytest
import torch
from small_net import Small
from torch import nn

from rcompress.data import open_dataset
from rcompress.errors import RcompressError
from rcompress.methods.sparsify import Unstructured, choose_masks
from rcompress.training import Recipe, Settings, Trainer
from rcompress.training.constraints import GrowMasks, HoldMasks, cubic_sparsity
from rcompress.training.guidance import Guidance
from rcompress.training.loop import Material
from rcompress.training.penalties import BatchNormScale, GroupLasso, GrowingPenalty

CPU = Settings(torch.device("cpu"))


@pytest.fixture(scope="module")
def material():
    digits = open_dataset("digits")
    parts = [
        digits.split(name).subset(torch.arange(count)) for name, count in (("train", 256), ("validation", 64))
    ]
    return Material(*parts, digits.preprocessing(), digits.augmentation)


def network() -> Small:
    torch.manual_seed(0)
    return Small(10)


def trained_by(material, *constraints, epochs=2, ema=0.9, module=None):
    recipe = Recipe(epochs=epochs, batch_size=32, learning_rate=0.05, ema=ema)
    trainer = Trainer(module or network(), material, recipe, CPU, Guidance(constraints=constraints))
    return trainer, trainer.run(lambda _: None)


def choose(module, sparsity):
    return choose_masks(module, Unstructured(sparsity))[0]


def zeros(module) -> float:
    weights = torch.cat([layer.weight.flatten() for layer in (module.conv1, module.conv2, module.fc)])
    return float((weights == 0).float().mean())


@pytest.mark.parametrize(("done", "share"), [(-1, 0), (0, 0), (0.5, 0.875 * 0.8), (1, 0.8), (2, 0.8)])
def test_the_cubic_schedule(done, share):
    assert cubic_sparsity(0.8, done) == pytest.approx(share)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_masked_weights_stay_exactly_zero(material, ema):
    module = network()
    masks = choose(module, 0.75)
    trainer, kept = trained_by(material, HoldMasks(masks), ema=ema, module=module)
    for net in (kept, trainer.module):
        for name, mask in masks.items():
            weight = net.get_parameter(name)
            assert torch.all(weight[~mask] == 0)
            assert torch.all(weight[mask] != 0)


def test_sparsity_grows_and_only_its_end_is_kept(material):
    growth = GrowMasks(choose, 0.8, epochs=4)
    trainer, kept = trained_by(material, growth, epochs=4)
    assert zeros(kept) == pytest.approx(0.8, abs=1e-3)
    assert trainer.best.epoch > 2  # the ramp ends in the third epoch
    assert growth.admits()


def test_growing_masks_follow_the_cubic_and_only_grow():
    module, growth = network(), GrowMasks(choose, 0.8, epochs=10)
    seen = []
    for epoch in range(8):
        growth.before_step(module, float(epoch))
        seen.append(zeros(module))
        assert growth.admits() == (epoch >= 6)
        with torch.no_grad():  # what is zero may not come back, whatever the optimizer does
            module.conv1.weight.add_(0.01)
        growth.after_step(module)
    expected = [cubic_sparsity(0.8, min(epoch / 6, 1.0)) for epoch in range(8)]
    assert seen == pytest.approx(expected, abs=0.03)  # masks are renewed forty times over the ramp
    assert seen == sorted(seen)


def test_grown_masks_survive_a_kill(material):
    whole, kept = trained_by(material, GrowMasks(choose, 0.8, 3), epochs=3)
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=0.05, ema=0.9)
    states = []
    first = Trainer(network(), material, recipe, CPU, Guidance(constraints=(GrowMasks(choose, 0.8, 3),)))
    with pytest.raises(InterruptedError):
        first.run(lambda trainer: states.append(trainer.state()) or stop())
    again = Trainer(network(), material, recipe, CPU, Guidance(constraints=(GrowMasks(choose, 0.8, 3),)))
    again.restore(states[0])
    resumed = again.run(lambda _: None)
    assert len(whole.history) == len(again.history) == 3
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), resumed.parameters(), strict=True))


def stop():
    raise InterruptedError


def test_group_lasso_is_the_sum_of_the_norms_and_shrinks_them(material):
    module, lasso = network(), GroupLasso(0.5)
    lasso.attach(module)
    expected = sum(
        float(layer.weight.detach().transpose(0, dim).flatten(1).norm(dim=1).sum())
        for layer in (module.conv1, module.conv2)
        for dim in (0, 1)
    )
    assert float(lasso.penalty(module).detach()) == pytest.approx(0.5 * expected, rel=1e-5)
    with torch.no_grad():
        module.conv1.weight.zero_()
    lasso.penalty(module).backward()
    assert torch.isfinite(module.conv1.weight.grad).all()
    _, free = trained_by(material, ema=0)
    _, pressed = trained_by(material, GroupLasso(0.05), ema=0)
    assert pressed.conv2.weight.norm() < 0.9 * free.conv2.weight.norm()


def test_bn_scale_is_an_l1_norm_and_shrinks_the_scales(material):
    module, penalty = network(), BatchNormScale(0.1)
    penalty.attach(module)
    assert float(penalty.penalty(module).detach()) == pytest.approx(0.1 * 16)
    _, pressed = trained_by(material, BatchNormScale(0.1), ema=0)
    assert pressed.bn1.weight.mean() < 0.9


def test_bn_scale_refuses_a_network_without_batchnorm():
    with pytest.raises(RcompressError, match="no BatchNorm"):
        BatchNormScale(0.1).attach(nn.Sequential(nn.Conv2d(3, 4, 3)))


def test_a_growing_penalty_empties_the_filters_that_go_and_no_others(material):
    doomed = torch.arange(8) < 3
    module = network()
    before = module.conv2.weight.detach().flatten(1).norm(dim=1)
    penalty = GrowingPenalty({"conv2.weight": doomed}, ceiling=10.0, epochs=6)
    penalty.attach(module)
    weight = module.conv2.weight
    for done, factor in ((0, 0), (2, 5), (4, 10), (5.9, 10)):
        penalty.before_step(module, done)
        module.zero_grad()
        penalty.penalty(module).backward()
        torch.testing.assert_close(weight.grad[doomed], factor * weight[doomed].detach())
        assert not weight.grad[~doomed].any()
    trainer, kept = trained_by(material, penalty, epochs=6, ema=0, module=module)
    after = kept.conv2.weight.detach().flatten(1).norm(dim=1)
    assert torch.all(after[doomed] < 0.1 * before[doomed])
    assert torch.all(after[~doomed] > 0.5 * before[~doomed])
    assert trainer.best.epoch == 6


def test_group_lasso_needs_convolutions():
    with pytest.raises(RcompressError, match="no convolution"):
        GroupLasso(0.1).attach(torch.nn.Linear(4, 2))
